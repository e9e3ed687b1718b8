"""Simulated worlds that render images with true masks, and questions about them."""
