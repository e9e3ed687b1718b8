"""Parses completions, whole or as a growing token stream."""
