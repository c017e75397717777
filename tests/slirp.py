"""QEMU's hostfwd without QEMU: rules are real listening sockets with slirp's backlog of 1, behind them servers of the test."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from typing import Any

from launcher.errors import ConnectionLost

_RULE = re.compile(r"hostfwd_(add|remove) (tcp|udp):127\.0\.0\.1:(\d+)(?:-([\d.]+):(\d+))?")


class Slirp:
    """Stands for a Qmp. `serve`: called with each accepted TCP connection, in a thread; UDP is answered in capitals."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.serve = serve
        self.rules: dict[tuple[str, int], socket.socket] = {}
        self.targets: list[tuple[str, int]] = []  # of all rules that were ever asked for
        self.ever = 0  # rules that it has had
        self.accepted = 0
        self.served = 0
        self.may_add = threading.Event()  # cleared: its loop does not come round
        self.may_add.set()
        self._ways: dict[socket.socket, tuple[str, str, int]] = {}
        self._dead = False

    def execute(self, _command: str, /, **arguments: Any) -> str:
        if self._dead:
            raise ConnectionLost("QEMU has ended.")
        line = arguments["command-line"]
        if line == "info usernet":
            rows = [f"  {proto.upper()}[HOST_FORWARD]  12  127.0.0.1 {port}  10.0.2.15  80  0  0" for proto, port in self.rules]
            return "\r\n".join(["  Protocol[State]  FD  Source", *rows, ""])
        verb, proto, port, guest, guest_port = _RULE.fullmatch(line).groups()  # type: ignore[union-attr]
        if verb == "remove":
            gone = self.rules.pop((proto, int(port)), None)
            return self._close(gone) if gone is not None else f"host forwarding rule for {proto}:{port} not found\r\n"
        self.targets.append((guest, int(guest_port)))
        assert self.may_add.wait(60)
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM)
        if proto == "tcp":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", int(port)))
        if proto == "tcp":
            made.listen(1)
        self.ever += 1
        self.rules[proto, int(port)] = made
        self._ways[made] = (proto, guest, int(guest_port))
        threading.Thread(target=self._accept if proto == "tcp" else self._echo, args=(made,), daemon=True).start()
        return ""

    def die(self) -> None:
        """As QEMU does when it is killed: its sockets go, and nobody answers at the monitor."""
        self._dead = True
        for gone in self.rules.values():
            self._close(gone)
        self.rules.clear()

    @staticmethod
    def _close(gone: socket.socket) -> str:
        with contextlib.suppress(OSError):  # ENOTCONN, and it wakes who reads
            gone.shutdown(socket.SHUT_RDWR)
        gone.close()
        return ""

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                stream, _ = listening.accept()
            except OSError:
                return
            stream.settimeout(60)
            self.accepted += 1
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        with stream:
            self.serve(stream)
        self.served += 1

    def _echo(self, bound: socket.socket) -> None:
        """As slirp, which knows the way back by the guest's address alone: the first rule to it has all answers."""
        while True:
            try:
                data, peer = bound.recvfrom(65536)
                way = self._ways[bound]
                first = next((one for one in self.rules.values() if self._ways[one] == way), None)
                if peer is None or first is None:
                    return
                first.sendto(data.upper(), peer)
            except OSError:
                return
