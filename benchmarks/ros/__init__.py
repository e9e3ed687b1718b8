"""What the benchmarks of the node share."""
