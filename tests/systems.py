"""Tests that are of some systems only."""

from __future__ import annotations

import pytest

from launcher import host


def not_on_windows(why: str) -> pytest.MarkDecorator:
    """For a test of what Windows has not, or has otherwise: modes, signals, unix sockets, shells."""
    return pytest.mark.skipif(host.current().NAME == "windows", reason=f"not on Windows: {why}")
