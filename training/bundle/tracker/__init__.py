"""Trains the bundled segmenter's memory."""
