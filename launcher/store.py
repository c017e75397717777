"""Where machines are, and how one comes and goes: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from launcher import files, host
from launcher.errors import MissingOnHost, Refused, Usage, WherryError
from launcher.files import write_private
from launcher.machinedir import LONGEST_SOCKET, MachineDir, check_name

if TYPE_CHECKING:
    from launcher.config import MachineConfig

# A name that is taken by a folder with something in it, or by a file.
_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EACCES})

__all__ = [
    "LONGEST_SOCKET", "MachineDir", "cache_dir", "check_name", "create", "home", "isos_needed", "machine", "machines", "remove",
    "sweep", "write_private",
]  # fmt: skip


def home() -> Path:
    """The folder that holds machines/; WHERRY_HOME moves it, and everything else, away from the user's data folder."""
    moved = os.environ.get("WHERRY_HOME")
    if moved:
        return Path(moved).absolute()
    import platformdirs

    return _of_user(platformdirs.user_data_dir)


def cache_dir() -> Path:
    """Where ISOs are kept."""
    if os.environ.get("WHERRY_HOME"):
        return home() / "cache"
    import platformdirs

    return _of_user(platformdirs.user_cache_dir)


def _of_user(place: Callable[..., str]) -> Path:
    """A folder of platformdirs. Raises MissingOnHost for a user without a home: there it raises, older ones leave the ~."""
    with contextlib.suppress(RuntimeError):
        found = Path(place("wherry", appauthor=False))
        if found.is_absolute():
            return found
    host.current().home()
    raise MissingOnHost(f"HOME={os.environ.get('HOME')!r} is no whole path.", hint="Set HOME to a folder of yours.")


def machine(name: str) -> MachineDir:
    """The directory of the machine of that name, whether it exists or not. Raises Usage for a name that cannot be one."""
    return MachineDir(check_name(name), home() / "machines" / name)


def machines() -> list[MachineDir]:
    """All machines, by name. A folder that is no machine of ours is not listed; a damaged machine is."""
    folder = home() / "machines"
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        try:
            if path.is_dir() and not path.name.startswith("."):
                found.append(MachineDir(check_name(path.name), path))
        except Usage:
            continue
    return found


def isos_needed(directory: MachineDir) -> set[str]:
    """SHA-256 of every ISO that the machine, its way back or its suspended state needs. Raises WherryError when unknown."""
    needed = {directory.read_config().iso}
    for file in (directory.rollback_file, directory.suspend_file):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            needed.add(str(found["iso"]))
            # An upgrade under way: where it leads, and what led back before it.
            needed.update(str(iso) for iso in (found.get("to"), (found.get("before") or {}).get("iso")) if iso)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WherryError(f"{file} cannot be read: {error!r}") from error
    return needed


def create(name: str, wanted: MachineConfig, fill: Callable[[MachineDir], None]) -> MachineDir:
    """A new machine directory, 0700, with its config and what `fill` puts there; it appears whole or not at all.

    Raises Refused when there is one of that name already, Usage when no file of this system can have it.
    """
    import shutil

    directory = machine(name)
    if not host.current().can_have(name):
        raise Usage(f"{name!r} cannot be a machine's name here: it is a device of this system.")
    directory.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = files.temporary(directory.path)
    host.current().make_private(temporary)
    try:
        made = MachineDir(name, temporary)
        made.write_config(wanted)
        made.seed_dir.mkdir(mode=0o700)
        fill(made)
        _move(temporary, directory.path, name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    host.current().sync_folder(directory.path.parent)
    return directory


def _move(temporary: Path, path: Path, name: str) -> None:
    try:
        host.current().rename(temporary, path)
    except OSError as error:
        if error.errno in _TAKEN and os.path.lexists(path):
            raise Refused(f"machine {name!r} exists already.") from error
        raise


def remove(directory: MachineDir) -> None:
    """Delete the machine for good; the caller has asked and holds no open file in it. The rename makes it go at once."""
    import shutil

    temporary = files.temporary(directory.path)
    doomed = temporary.with_name(f"{temporary.name}.deleted")
    run_dir = directory.run_dir
    host.current().rename(directory.path, doomed)
    host.current().remove_tree(doomed)
    shutil.rmtree(run_dir, ignore_errors=True)


def sweep() -> list[Path]:
    """Remove what killed commands left beside the machines: half-made ones, half-deleted ones."""
    return files.sweep(home() / "machines")
