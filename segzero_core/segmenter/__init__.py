"""SAM 2: from prompts to masks, in a worker thread beside the reasoner."""
