"""SAM 2: from prompts to masks, in a worker beside the reasoner."""
