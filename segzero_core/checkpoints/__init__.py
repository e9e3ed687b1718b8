"""Finds, checks and loads model folders and their weights."""
