"""Makes the bundled models and their model card."""
