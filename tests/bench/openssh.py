"""What a person would use instead: OpenSSH's own client, its master connection and its forwarding."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Self

from tests.vm.driver import Driver


class Master:
    """One warm connection (ControlMaster) to the machine's sshd, with the same cipher as ours."""

    def __init__(self, machine: Driver) -> None:
        self._machine = machine
        self._control = machine.path / "ssh.control"
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": os.devnull,
            "LogLevel": "ERROR",
            "Ciphers": "aes128-gcm@openssh.com",
            "ControlPath": str(self._control),
        }
        key = machine.path / "home" / "machines" / machine.name / "id_ed25519"
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        self._argv = ["ssh", "-i", str(key), "-p", str(machine.status()["ssh_port"]), *words]

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
