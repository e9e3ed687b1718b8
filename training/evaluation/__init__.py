"""Scores models on rendered scenes and published benchmarks."""
