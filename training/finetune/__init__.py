"""`segzero-train`: supervised fine-tuning and GRPO."""
