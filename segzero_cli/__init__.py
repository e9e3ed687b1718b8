"""The `segzero` command."""
