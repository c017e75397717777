"""Whether macOS lets a program use Hypervisor.framework: its signature must have the entitlement (codesign(1)).

Homebrew signs its QEMU, and an upgrade or a relinked library has lost that before (homebrew-core issue 139409). Any user can
sign a program of his own anew, with no certificate.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from launcher import proc
from launcher.errors import MissingOnHost, WherryError

NEEDED: Final = "com.apple.security.hypervisor"
FILE: Final = Path(__file__).with_name("hypervisor.entitlements")
_WITHIN: Final = 20.0


def no_acceleration_by(program: Path) -> tuple[str, str] | None:
    """Why that QEMU cannot be accelerated, and the command that mends it; None when nothing speaks against it."""
    real = program.resolve()
    try:
        # Since macOS 12 a list in words, before that the property list: the name is in both.
        entitled = NEEDED in proc.run(["codesign", "--display", "--entitlements", "-", real], timeout=_WITHIN)
    except MissingOnHost:
        return None
    except WherryError:  # it is not signed at all
        entitled = False
    if entitled:
        return None
    mend = ["codesign", "--sign", "-", "--force", "--entitlements", str(FILE), str(real)]
    return f"{program} lacks the entitlement {NEEDED}", shlex.join(mend)
