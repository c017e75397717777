"""A tree of Windows for one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.windows import fixture
from tests.windows.wine import Windows


@pytest.fixture
def windows() -> Iterator[Windows]:
    """No other test's programs are in it."""
    if why := fixture.missing():
        pytest.skip(why)
    with fixture.alone() as made:
        yield made
