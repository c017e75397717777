"""Shared folders: what the keeper does for them, in a process of its own."""
