"""What `up` says of a machine that is held because its disk cannot be written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import room
from tests.conftest import Said
from tests.fakes import FakeKeeper


@pytest.mark.parametrize("why", [room.FULL, room.unwritable(Path("/x/data.qcow2"), "Disk quota exceeded")])
def test_up_says_that_it_is_paused_and_fails(keeper: FakeKeeper, wherry: Callable[..., Said], why: str) -> None:
    keeper.paused = why
    held = room.held(keeper.directory.path, why)
    said = wherry("up")
    assert said.code == 1
    assert f"default is paused: {why}" in said.err and (held.hint or "") in said.err
    if why == room.FULL:
        assert f"free in {keeper.directory.path})." in said.err
    assert "running" not in said.err + said.out
    answer = json.loads(wherry("up", "--json").out)
    assert answer["ok"] is False and answer["error"]["exit_code"] == 1
    keeper.paused = ""
    assert wherry("up").code == 0
