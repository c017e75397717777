"""What a person would use instead: OpenSSH's own client, its master connection and its forwarding."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Self

from tests.vm.driver import Driver


class Master:
    """One warm connection (ControlMaster) to the machine's sshd, with the same cipher as ours."""

    def __init__(self, machine: Driver) -> None:
        self._machine = machine
        self._control = machine.path / "ssh.control"
        place = machine.path / "home" / "machines" / machine.name
        known = machine.path / "known_hosts"
        known.write_text(f"wherry {(place / 'host_ed25519.pub').read_text()}")
        options = {
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(known),
            "HostKeyAlias": "wherry",
            "LogLevel": "ERROR",
            "Ciphers": "aes128-gcm@openssh.com",
            "ControlPath": str(self._control),
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        self._argv = ["ssh", "-i", str(place / "id_ed25519"), "-p", str(machine.status()["ssh_port"]), *words]

    def __enter__(self) -> Self:
        subprocess.run([*self._argv, "-M", "-N", "-f", "root@127.0.0.1"], check=True, stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_: object) -> None:
        self._command("exit")

    def _command(self, *words: str) -> None:
        subprocess.run([*self._argv, "-O", *words, "root@127.0.0.1"], check=False, capture_output=True)

    def forward(self, here: Path | str, there: str) -> None:
        """ssh -L: a unix socket here, or HOST:PORT, to a socket or HOST:PORT there."""
        self._command("forward", "-L", f"{here}:{there}")

    def run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._argv, "root@127.0.0.1", *words], check=True, capture_output=True, stdin=subprocess.DEVNULL
        )

    def popen(self, *words: str, stdin: socket.socket, stdout: socket.socket) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self._argv, "root@127.0.0.1", *words], stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL)
