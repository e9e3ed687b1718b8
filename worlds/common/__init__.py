"""What the simulated worlds share: the simulator and camera poses."""
