"""The host's loopback port that leads to the guest's sshd, out of one range for all machines.

Whatever listens on the host's loopback can be reached by every container as 10.0.2.2. The guest's firewall closes the range as
a whole, so that no container reaches the sshd of any of the user's machines, also of one that starts later.
"""

from __future__ import annotations

import random
import re
from typing import Final

from launcher.config import SSH_PORTS
from launcher.errors import WherryError
from launcher.qemu import qmp
from launcher.qemu.qmp import Qmp

# An accepted one has its end here as the source (libslirp, src/misc.c). Those in TIME_WAIT are over for the guest.
_OPEN: Final = re.compile(
    r"^\s*TCP\[(?!HOST_FORWARD|TIME_WAIT|CLOSED)\w+\]\s+-?\d+\s+127\.0\.0\.1\s+\d+\s+\S+\s+22\s", re.MULTILINE
)


def connections(monitor: Qmp) -> int:
    """How many there are to the guest's sshd, those too that the guest has not ended yet. Raises WherryError."""
    return len(_OPEN.findall(qmp.human(monitor, "info usernet")))


def forward(monitor: Qmp) -> int:
    """Have QEMU forward a free port of the range to the guest's port 22; which one. Raises WherryError when none is free.

    QEMU's own try to bind decides: a port that looked free could be another machine's a moment later.
    """
    words = ""
    for port in random.sample(SSH_PORTS, len(SSH_PORTS)):
        words = qmp.human(monitor, f"hostfwd_add net0 tcp:127.0.0.1:{port}-:22").strip()
        if not words:
            return port
    raise WherryError(
        f"no port from {SSH_PORTS.start} to {SSH_PORTS.stop - 1} of this computer's loopback is free for the machine's sshd.",
        hint="wherry list",
        detail=words or None,
    )
