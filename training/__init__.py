"""Data preparation, training and evaluation; never imported by the library or the node."""
