"""The file server with its real tree, without a keeper; and the guest's file system mounted on it here, without a guest."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Served:
    """One tree; each `dial` is a connection that a thread of its own serves."""

    def __init__(self, root: Path, folder: Path, **rules: Any) -> None:
        """The folder is for what is remembered; rules are those of `Policy`."""
        from launcher.sftp.owners import Owners
        from launcher.sftp.policy import Policy
        from launcher.sftp.tree import Tree

        self._owners = Owners(folder / "owners.db", folder.stat().st_dev)
        self._tree = Tree(root, Policy(root, **rules), self._owners)
        self._ours: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def dial(self) -> socket.socket:
        here, there = socket.socketpair()
        self._ours.append(here)
        self.serve(there)
        return here

    def serve(self, stream: socket.socket) -> None:
        """What the other end of the stream asks, until it ends."""
        thread = threading.Thread(target=self._serve, args=(stream,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def _serve(self, stream: socket.socket) -> None:
        from launcher.sftp.session import Session

        with stream:
            Session(stream, self._tree).serve()

    def end(self) -> None:
        """All connections; each of them has to end."""
        for stream in self._ours:
            stream.close()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        self._tree.close()
        self._owners.close()


@contextmanager
def serving(root: Path, folder: Path, **rules: Any) -> Iterator[Served]:
    for part in ("owners", "policy", "session", "tree"):
        pytest.importorskip(f"launcher.sftp.{part}")
    served = Served(root, folder, **rules)
    try:
        yield served
        served.end()
    finally:
        served.close()


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Where the guest's file system shows folder/host. Only other processes may open files there: this one serves them."""
    sharemount = pytest.importorskip("tests.guest.sharemount")
    mount: Callable[..., Any] = sharemount.mounted
    with mount(folder, serve=False) as made, serving(made.host, folder) as served:
        stream = sharemount.dial(made.socket)
        try:
            served.serve(stream)
            yield made.path
        finally:
            # The end of the connection first: who waits for the file system gets an error.
            stream.shutdown(socket.SHUT_RDWR)
