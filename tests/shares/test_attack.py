"""The attack of root in the guest, on the file server alone: the same script that runs in a machine (tests/vm)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("launcher.sftp.session")
pytest.importorskip("launcher.sftp.tree")

from launcher.sftp.policy import Policy
from launcher.sftp.session import Session
from launcher.sftp.tree import Tree

from tests.shares.attack import ATTACKS, Plan, run
from tests.shares.scene import HIDDEN, MISSING, STARTUP, Scene, Swapper
from tests.shares.served import owners


class Served:
    """Each `dial` is a connection that a thread of its own serves."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._ends = ExitStack()
        self._threads: list[threading.Thread] = []

    def dial(self) -> socket.socket:
        here, there = socket.socketpair()
        self._ends.enter_context(here)
        thread = threading.Thread(target=self._serve, args=(there,), daemon=True)
        thread.start()
        self._threads.append(thread)
        return here

    def _serve(self, stream: socket.socket) -> None:
        with stream:
            Session(stream, self._tree).serve()

    def close(self) -> list[threading.Thread]:
        """Those that did not end."""
        self._ends.close()
        for thread in self._threads:
            thread.join(10)
        return [thread for thread in self._threads if thread.is_alive()]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@contextmanager
def serving(scene: Scene, folder: Path, **rules: Any) -> Iterator[Served]:
    kept = owners(folder)
    tree = Tree(scene.home, Policy(scene.home, **rules), kept)
    served = Served(tree)
    try:
        yield served
        assert served.close() == []
    finally:
        served.close()
        tree.close()
        kept.close()


def test_nothing_outside_is_read_written_or_listed(scene: Scene, tmp_path: Path) -> None:
    places = (*STARTUP, *MISSING)
    with serving(scene, tmp_path, hidden=HIDDEN, protected=places) as served:
        before, descriptors = scene.state(), len(os.listdir("/proc/self/fd"))
        with Swapper(scene) as swapper:
            told = run(served.dial, Plan(**scene.plan(handles=2000)))  # type: ignore[arg-type]
        assert {name: found for name, found in told.items() if found["leaks"] or found["broken"]} == {}
        assert scene.state() == before
        assert set(told) == set(ATTACKS) and swapper.swaps > 100
        assert all(found["tried"] for found in told.values()), told
        assert served.close() == []
        # The tree itself holds the places that it guards, no more.
        assert len(os.listdir("/proc/self/fd")) <= descriptors + len(HIDDEN) + len(places) + 2


def test_the_attack_finds_a_door_that_is_open(scene: Scene, tmp_path: Path) -> None:
    before = scene.state()
    with serving(scene, tmp_path) as served:
        told = run(served.dial, Plan(**scene.plan(handles=10)))  # type: ignore[arg-type]
    for name in ("hidden folders", "parents of hidden folders", "places that run code"):
        assert told[name]["leaks"] or told[name]["broken"], name
    assert scene.state() != before
