"""paramiko, imported late: it is half of what a keeper imports, and nothing of it is needed before there is a guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paramiko import SSHException


def load() -> None:
    """Import it all, where that time is nobody's: beside a QEMU that begins. `Connection.connect` does it otherwise."""
    import launcher.ssh.channels  # noqa: F401


def broken() -> tuple[type[SSHException], type[EOFError], type[OSError]]:
    """What paramiko raises from any call, also from close and recv, which send messages, once the connection has ended."""
    from paramiko import SSHException

    return SSHException, EOFError, OSError
