"""Subscriptions to the camera and the buffer of its latest images."""
