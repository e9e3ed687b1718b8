"""Rewards of GRPO, as the paper defines them."""
