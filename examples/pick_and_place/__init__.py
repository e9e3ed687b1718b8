"""From an instruction to a finished task: to be copied."""
