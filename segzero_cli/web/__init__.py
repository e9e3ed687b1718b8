"""`segzero web`: a page on this machine that asks a model, or a running node, about an image."""
