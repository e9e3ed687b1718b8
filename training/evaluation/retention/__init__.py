"""Measures what a model still knows: questions that are answered in words."""
