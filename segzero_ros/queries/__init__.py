"""A query's way from its arrival to its result."""
