"""Follows the objects of an answer over later images."""
