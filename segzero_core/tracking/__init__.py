"""Tracking: follows the objects of an answer through later frames."""
