"""Builds the messages that the node publishes."""
