"""Handles queries, from their arrival to their result."""
