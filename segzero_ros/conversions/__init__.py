"""Conversions between ROS messages and the core's types."""
