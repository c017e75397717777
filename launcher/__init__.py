"""Wherry: a helper VM for containers."""

__version__ = "0.1.0"
