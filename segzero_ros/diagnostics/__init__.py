"""Status, diagnostics, logging and memory of the node."""
