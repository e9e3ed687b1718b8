"""What is written to a terminal or a log."""
