"""Which wherry is the newer one. Files and keepers tell which wherry made them; what a newer one made is left alone."""

from __future__ import annotations

from launcher import __version__
from launcher.errors import Refused


def is_newer(version: str, than: str = __version__) -> bool:
    """Whether `version` (PEP 440) is a later one. Equal texts are told apart from all others without an import."""
    if not version or version == than:
        return False
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version) > Version(than)
    except InvalidVersion:  # nothing that wherry ever called itself
        return False


def refused(what: str, version: object) -> Refused:
    """The error for what a newer wherry made; `what` names it ("machine.toml")."""
    named = isinstance(version, str) and is_newer(version)
    return Refused(
        f"{what} was made by {f'wherry {version}' if named else 'a newer wherry'}; this is wherry {__version__}.",
        hint=f"Use {f'wherry {version}' if named else 'that wherry'}, or a later one; everything stays as it is.",
    )
