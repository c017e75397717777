"""Which ISOs a machine needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import store
from launcher.errors import WherryError
from tests.fakes import make_machine


def test_its_own_that_of_its_way_back_and_that_of_its_suspended_state(home: Path) -> None:
    directory = make_machine()
    assert store.isos_needed(directory) == {"a" * 64}
    directory.rollback_file.write_text('{"iso": "b"}')
    directory.suspend_file.write_text('{"iso": "c"}')
    assert store.isos_needed(directory) == {"a" * 64, "b", "c"}


@pytest.mark.parametrize("text", ["", "{}", "[]", "{"])
def test_what_cannot_be_read_is_an_error(home: Path, text: str) -> None:
    directory = make_machine()
    directory.rollback_file.write_text(text)
    with pytest.raises(WherryError, match=r"rollback\.json cannot be read"):
        store.isos_needed(directory)
    directory.rollback_file.unlink()
    directory.config_file.write_text("version = 1\n")
    with pytest.raises(WherryError, match=r"machine\.toml"):
        store.isos_needed(directory)
