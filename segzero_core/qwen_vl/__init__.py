"""The forward passes of Qwen2.5-VL: vision encoder and language model."""
