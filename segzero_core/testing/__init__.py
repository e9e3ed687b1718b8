"""Public fakes and tiny models for tests."""
