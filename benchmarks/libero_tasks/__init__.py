"""What is made of the episodes of `benchmarks.libero`."""
