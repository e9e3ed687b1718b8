"""Trains the bundled segmenter."""
