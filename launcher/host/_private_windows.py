"""What is this user's alone on Windows, by access lists. Loads the system's libraries for them when it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def make_private(folder: Path) -> None:
    from launcher.host import acls

    # %TEMP% and %LOCALAPPDATA% are the user's own; WHERRY_HOME may be anywhere, and most drives are open to all users.
    folder.mkdir(parents=True, exist_ok=True)
    acls.close(str(folder))


def is_private(path: Path) -> bool:
    from launcher.host import acls

    return not acls.readers(acls.listed(str(path)), acls.user())


def close_hint(paths: Sequence[Path]) -> str:
    from launcher.host import acls

    # By number: %USERNAME% is cmd's, $env:USERNAME is PowerShell's. Without the reset others keep what they were given by name.
    def both(path: Path) -> tuple[str, str]:
        rights = f'"*{acls.user()}:{"(OI)(CI)" if path.is_dir() else ""}F"'
        return f'icacls "{path}" /reset', f'icacls "{path}" /inheritance:r /grant:r {rights}'

    # Lines, since nothing joins commands in both: `&&` is not of Windows' own PowerShell, `;` not of cmd.
    return "\n".join(command for path in paths for command in both(path))
