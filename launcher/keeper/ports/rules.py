"""QEMU's hostfwd rules of this keeper: made, taken away, and told from those that a killed keeper left.

Each call but `stands` waits until QEMU's loop comes round: for threads, not for the forwarder's loop.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from launcher.errors import NoProgress, NotRunning, WherryError
from launcher.qemu.qmp import Qmp, human

LOOPBACK: Final = "127.0.0.1"
_TRIES: Final = 5
# `  TCP[HOST_FORWARD]  12       127.0.0.1 40911       10.0.2.15    22     0     0`
_RULE: Final = re.compile(r"^\s*(TCP|UDP)\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)\s+(\S+)\s+(\d+)\s", re.MULTILINE)

Monitor = Callable[[], Qmp | None]


@dataclass(frozen=True, eq=False)
class Rule:
    """A port of 127.0.0.1 that leads into the guest, in the QEMU that has it."""

    qmp: Qmp
    proto: str
    port: int


class Rules:
    """Safe to use from many threads."""

    def __init__(self, monitor: Monitor, awake: Callable[[], None] = lambda: None) -> None:
        """`awake` returns when the machine runs, or raises WherryError; it may be resumed for that."""
        self._monitor = monitor
        self._awake = awake
        self.used = 0  # connections that were wanted ever; of the forwarder's loop
        self._own: set[Rule] = set()
        self._lock = threading.Lock()

    def stands(self, rule: Rule) -> bool:
        """Whether the QEMU that has it is still the machine's: a rule ends with its QEMU."""
        return rule.qmp is self._monitor()

    def add(self, proto: str, target: tuple[str, int]) -> Rule:
        """Raises WherryError, and OSError where this computer has no socket left."""
        self._awake()
        qmp = self._monitor()
        if qmp is None:
            raise NotRunning("the machine is off.")
        words = ""
        for _ in range(_TRIES):
            rule = Rule(qmp, proto, _free_port(proto))
            with self._lock:
                self._own.add(rule)  # before it is there: `sweep` takes away what is nobody's
            try:
                words = human(qmp, f"hostfwd_add {proto}:{LOOPBACK}:{rule.port}-{target[0]}:{target[1]}").strip()
            except BaseException as error:
                self._forget(rule)
                if isinstance(error, NoProgress):  # QEMU may do it yet, and what is asked behind it after that
                    _ask_removal(rule, 0)
                raise
            if not words:
                return rule
            self._forget(rule)
        raise WherryError(f"QEMU forwards no port to {target[0]}:{target[1]}: {words}")

    def remove(self, rule: Rule) -> None:
        _ask_removal(rule)
        self._forget(rule)

    def sweep(self, ssh_port: int) -> None:
        """Take away what a keeper before us left, which is all but sshd's rule and our own. Raises WherryError."""
        qmp = self._monitor()
        if qmp is None:
            return
        found = _RULE.findall(human(qmp, "info usernet"))  # first: what comes to be meanwhile is known below as ours
        with self._lock:
            own = {(rule.proto, rule.port) for rule in self._own if rule.qmp is qmp}
        for proto, port in ((proto.lower(), int(port)) for proto, port, _, _ in found):
            if port != ssh_port and (proto, port) not in own:
                _ask_removal(Rule(qmp, proto, port))

    def _forget(self, rule: Rule) -> None:
        with self._lock:
            self._own.discard(rule)


def _ask_removal(rule: Rule, timeout: float = 30) -> None:
    with contextlib.suppress(WherryError):  # it went with QEMU
        line: dict[str, Any] = {"command-line": f"hostfwd_remove {rule.proto}:{LOOPBACK}:{rule.port}"}
        rule.qmp.execute("human-monitor-command", timeout=timeout, **line)


def _free_port(proto: str) -> int:
    # hostfwd_add with port 0 works, but only the list of all of slirp's connections tells which it took.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
