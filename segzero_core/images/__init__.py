"""Image files, ROS image encodings and overlays."""
