"""Prepares training data: one schema for all sources."""
