"""What the guest may see and change of a share: hidden places, places that the host runs code from, and what was given."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from launcher.sftp.identities import Identities
from launcher.sftp.names import Comparer, Folded, comparer, slashed
from launcher.sftp.rules import GUARDED, HIDDEN, OPEN, READ_ONLY, Node, Rules

_LINK_LOOKS: Final = 8
LOOK_SECONDS: Final = 1.0  # how long a place that the host has just made or renamed is known by its name alone
_REFUSALS: Final = {GUARDED: errno.EACCES, READ_ONLY: errno.EROFS, HIDDEN: errno.ENOENT}


class Policy:
    """Of one share. Places are below its root, or absolute paths in it; those that are not in it do not matter.

    By name, as the file system compares, whether they exist or not; and by identity wherever they are met. A file that lies in
    a hidden folder and has another hard link outside is not known by that link; a hidden file is.
    """

    def __init__(
        self,
        root: Path,
        *,
        read_only: bool = False,
        hidden: Sequence[str | bytes | Path] = (),
        protected: Sequence[str | bytes | Path] = (),
        given: Sequence[tuple[str | bytes | Path, bool]] = (),
        names: Comparer | None = None,
    ) -> None:
        """`given` are places with whether they are read-only; they come before the other two, which may hold them."""
        self.root = slashed(os.fsencode(os.path.realpath(root)))
        self._typed = slashed(os.fsencode(root.absolute()))
        self.read_only = read_only
        self.names = names or _compared(self.root)
        self._base = READ_ONLY if read_only else OPEN
        self._places: dict[bytes, int] = {}
        for places, rule in ((protected, GUARDED), (hidden, HIDDEN)):
            for place in places:
                self._add(place, rule)
        for place, only_read in given:
            self._add(place, READ_ONLY if only_read else OPEN)
        self._identities = Identities(self.root, self._places, self._base, self.names)
        self._due = 0.0
        self._lock = threading.Lock()  # the proxy asks from threads of its own
        self._rules: Rules | None = None

    def _add(self, place: str | bytes | Path, rule: int) -> None:
        whole = os.fsencode(place)
        # A place beside the share may be a link into it. That it becomes one later is not noticed.
        below = self._below(whole) or self._below(os.path.realpath(os.path.join(self.root, whole)))  # noqa: PTH118
        if below:
            self._places[below] = rule

    def _below(self, place: bytes) -> bytes | None:
        """The path below the root, b"" for the root itself; None when it is not in it."""
        path = slashed(os.path.normpath(os.path.join(self.root, place)))  # noqa: PTH118
        for root in (self.root, self._typed):
            if path == root:
                return b""
            if path.startswith(root.rstrip(b"/") + b"/"):
                return path[len(root.rstrip(b"/")) + 1 :]
        return None

    def rules(self) -> Rules:
        """What holds now; places are looked at again when the last look is older than LOOK_SECONDS."""
        now = time.monotonic()
        if self._rules is None or now >= self._due:
            with self._lock:
                if self._rules is None or now >= self._due:
                    self._due = now + LOOK_SECONDS
                    self._rules = self._identities.rules()
        return self._rules

    @property
    def is_plain(self) -> bool:
        """Whether no place in it has a rule of its own, there or not."""
        return not self._places

    def look_again(self) -> None:
        """The guest has made a folder on the way to a place."""
        self._due = 0.0

    def hides(self, path: str) -> bool:
        """Whether a path of this computer is hidden from the guest, is in something hidden, or is only shown in part. False for
        what is not in the share."""
        return self._hidden_at(path) is not None

    def name_of(self, path: str) -> str | None:
        """The hidden place that a path is, or is in, in the user's words: `~/.aws`; None when there is none."""
        found = self._hidden_at(path)
        if found is None:
            return None
        place = slashed(found)
        home = slashed(os.fsencode(Path.home()))
        if place.startswith(home.rstrip(b"/") + b"/"):
            return "~" + os.fsdecode(place[len(home.rstrip(b"/")) :])
        return os.fsdecode(place)

    def _hidden_at(self, path: str) -> bytes | None:
        """As it was asked for, and as it is: each link may lead into a hidden place, and out of one."""
        raw = os.fsencode(path)
        for whole in (_real(raw), raw):
            below = self._below(whole)
            if below is not None:
                found = self._hidden_below(below)
                if found is not None:
                    return found
        return None

    def _hidden_below(self, below: bytes) -> bytes | None:
        rules = self.rules()
        node: Node | None = rules.root
        rule = rules.root.rule or OPEN
        here = self.root
        place = None
        for name in below.split(b"/") if below else ():
            here = os.path.join(here, name)  # noqa: PTH118
            named = rules.named(node, name)
            try:
                found = os.stat(here)
                new, node = rules.met(rule, named, found.st_dev, found.st_ino)
            except (OSError, ValueError):
                new, node = rules.met(rule, named, -1, -1)
            if new == HIDDEN and rule != HIDDEN:
                place = here if node is None or node.place is None else os.path.join(self.root, node.place)  # noqa: PTH118
            rule = new
        return place if rule == HIDDEN else None


def refusal(rule: int) -> int:
    """The errno of a change in a place with that rule, which is not OPEN."""
    return _REFUSALS[rule]


def _real(path: bytes) -> bytes:
    """Without links. realpath fails where a link becomes something else between its two looks: then it is looked at anew."""
    for _ in range(_LINK_LOOKS):
        with contextlib.suppress(OSError):
            return os.path.realpath(path)
    return path


def _compared(root: bytes) -> Comparer:
    if not hasattr(os, "O_DIRECTORY"):
        return Folded()  # Windows has no descriptors of folders, and compares so wherever nobody has asked it not to
    held = os.open(root, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        return comparer(held)
    finally:
        os.close(held)
