"""What containers reach of this computer (host_access), put in force in a guest that runs."""

from __future__ import annotations

from launcher import seed
from launcher.config import MachineConfig
from launcher.errors import WherryError
from launcher.ssh.transport import Connection

_HELPER = "/usr/lib/wherry/host-access"
_NOT_FOUND = 127


def apply(connection: Connection, config: MachineConfig) -> None:
    """Returns when it is in force. Raises WherryError when it cannot be: what was in force before still is."""
    code, _, words = connection.run([_HELPER, seed.host_access(config)], timeout=60)
    if code == _NOT_FOUND:
        raise WherryError(
            "the machine's image is too old for host_access: containers reach all of this computer.",
            hint="wherry upgrade, or: wherry config unset host_access",
        )
    if code != 0:
        why = words.decode(errors="replace").strip()
        raise WherryError(f"host_access could not be put in force: {why}", hint="wherry logs serial")
