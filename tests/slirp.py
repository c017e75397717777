"""QEMU's hostfwd without QEMU: rules are real listening sockets with slirp's backlog of 1, behind them servers of the test."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from typing import Any

_RULE = re.compile(r"hostfwd_(add|remove) (tcp|udp):127\.0\.0\.1:(\d+)(?:-([\d.]+):(\d+))?")


class Slirp:
    """Stands for a Qmp. `serve`: called with each accepted TCP connection, in a thread; UDP is answered in capitals."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.serve = serve
        self.rules: dict[tuple[str, int], socket.socket] = {}
        self.targets: list[tuple[str, int]] = []
        self.accepted = 0

    def execute(self, _command: str, /, **arguments: Any) -> str:
        line = arguments["command-line"]
        if line == "info usernet":
            rows = [f"  {proto.upper()}[HOST_FORWARD]  12  127.0.0.1 {port}  10.0.2.15  80  0  0" for proto, port in self.rules]
            return "\r\n".join(["  Protocol[State]  FD  Source", *rows, ""])
        verb, proto, port, guest, guest_port = _RULE.fullmatch(line).groups()  # type: ignore[union-attr]
        if verb == "remove":
            gone = self.rules.pop((proto, int(port)))
            if proto == "tcp":
                gone.shutdown(socket.SHUT_RDWR)
            gone.close()
            return ""
        self.targets.append((guest, int(guest_port)))
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", int(port)))
        if proto == "tcp":
            made.listen(1)
        self.rules[proto, int(port)] = made
        threading.Thread(target=self._accept if proto == "tcp" else self._echo, args=(made,), daemon=True).start()
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

    @staticmethod
    def _echo(bound: socket.socket) -> None:
        while True:
            try:
                data, peer = bound.recvfrom(65536)
                bound.sendto(data.upper(), peer)
            except OSError:
                return
