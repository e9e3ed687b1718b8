"""Trains the bundled reasoner."""
