"""What no share has as a copy in the machine: put, use, remove."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from launcher.cli import pack, remote
from launcher.console import Console
from launcher.errors import Usage, WherryError

WORK: Final = "/var/lib/wherry/work"
_PROGRAM: Final = "/usr/lib/wherry/work"


def new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(6)}"


def put(
    control: Path, identity: str, entries: list[pack.Entry], console: Console, *, prefix: str = "", keep_owner: bool = False,
    extra: Sequence[tuple[str, bytes]] = (),
) -> None:  # fmt: skip
    """Copy the entries into the machine as WORK/identity."""
    with console.telling() as reporter:
        feed = pack.feeder(entries, reporter, prefix=prefix, keep_owner=keep_owner, extra=extra)
        remote.call(control, [_PROGRAM, "put", identity], feed=feed).check("the copy of the folder")


def remove(control: Path, identity: str, console: Console) -> None:
    """Remove the copy; a failure is told, not raised: the command that used it has ended already."""
    try:
        remote.call(control, [_PROGRAM, "remove", identity]).check("removing the copy of the folder")
    except WherryError as error:
        console.warning(f"the copy {WORK}/{identity} in the machine could not be removed: {error.message}")


def inside(root: Path, path: str | Path, base: Path, what: str) -> str:
    """The path, as the caller wrote it, relative to root and with slashes. Raises Usage when it is not inside."""
    # The last part is not followed: it may be a link that is sent as a link.
    full = Path(os.path.normpath(base / path))
    full = full.parent.resolve() / full.name if full != root else full
    try:
        relative = full.relative_to(root)
    except ValueError:
        raise Usage(
            f"{what} {path} is outside of {root}; only that folder is copied into the machine.",
            hint="Share the folder above both, then nothing is copied: wherry share add FOLDER",
        ) from None
    return relative.as_posix()
