"""`segzero view`: follows a running node in the viewer Rerun."""
