"""The benchmark's own tasks as grounding data."""
