"""`segzero bench`: measures the pipeline against the plain flow."""
