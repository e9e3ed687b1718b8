"""The client over ROS 2, and the benchmark's simulated Panda as an arm on the graph."""
