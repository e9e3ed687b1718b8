"""Reasoners: vision-language models that answer with boxes and points."""
