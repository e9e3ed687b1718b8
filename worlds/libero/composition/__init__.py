"""Random scenes: what stands where, settled by physics."""
