"""Shared by the simulated worlds: simulator, renderer, scene folders and wording."""
