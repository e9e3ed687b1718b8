"""Transforms, and the poses and grasps of an answer's objects."""
