"""`segzero demo`: plays a recorded camera to the node and asks it questions."""
