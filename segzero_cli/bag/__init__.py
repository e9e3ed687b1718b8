"""`segzero bag`: one query about every image of a recorded bag."""
