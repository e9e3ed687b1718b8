"""`segzero check-model`: asks a model about images with known boxes."""
