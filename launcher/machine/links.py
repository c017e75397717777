"""Places of other programs that lead to a machine because the user asked: a `docker` on PATH, the socket where clients look.

What was made is noted in links.json before it is made, so that a kill at any moment leaves something that `unlink` undoes.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

from launcher import files, host, proc, store
from launcher.errors import NoSuchMachine, Refused, WherryError
from launcher.machine import program
from launcher.store import MachineDir

Kind = Literal["docker", "socket"]
_MARK: Final = "made by wherry link"
_BEFORE: Final = ".before-wherry"  # behind the name of what was there


@dataclass(frozen=True)
class Link:
    """One thing that was made: where, and for the machine in which folder."""

    kind: Kind
    place: str
    machine: str
    target: str = ""  # of a socket: where it leads

    @property
    def is_ours(self) -> bool:
        """Whether what is there now is still what we made."""
        place = Path(self.place)
        if self.kind == "socket":
            return place.is_symlink() and os.fspath(place.readlink()) == self.target
        return _is_script(place)


def link(kind: Kind, name: str) -> list[Link]:
    """Make it, in place of one for another machine. Raises Refused rather than hide or lose what another program has there."""
    directory = store.machine(name)
    if not directory.exists():
        raise NoSuchMachine(f"there is no machine {name!r}.", hint=f"wherry up{'' if name == 'default' else ' ' + name}")
    known = listing()
    made = _docker(directory, known) if kind == "docker" else _sockets(directory, known)
    _undo([item for item in known if item.kind == kind])
    _note([*listing(), *made])
    for item in made:
        _make(item)
    return made


def unlink(kind: Kind) -> list[Link]:
    """Undo it, and put back what was there; what was undone."""
    return _undo([item for item in listing() if item.kind == kind])


def forget(directory: MachineDir) -> None:
    """The machine goes: what leads to it goes too."""
    _undo([item for item in listing() if item.machine == str(directory.path)])


def renew(directory: MachineDir) -> None:
    """After a start: the machine's sockets again where a logout or a reboot took them, or their folder is another one now."""
    known, target = listing(), str(directory.engine_socket)
    for item in known:
        place = Path(item.place)
        mine = item.kind == "socket" and item.machine == str(directory.path)
        if not mine or (os.path.lexists(place) and (not item.is_ours or item.target == target)):
            continue  # another program has taken its place back, or all is well
        if item.is_ours:
            place.unlink()
        new = replace(item, target=target)
        known = [new if other == item else other for other in known]
        _note(known)
        _make(new)


def listing() -> list[Link]:
    """What was made, by the note. Raises WherryError when that cannot be read."""
    note = _file()
    try:
        data = json.loads(note.read_text(encoding="utf-8"))
        return [Link(**item) for item in data["links"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WherryError(f"{note} cannot be read: {error}", hint="mend or remove it") from error


def other_docker() -> Path | None:
    """A `docker` on PATH that is not ours."""
    name = f"docker{host.current().PROGRAM_SUFFIX}"
    for folder in _path_folders():
        program = folder / name
        if os.path.lexists(program) and not _is_script(program):
            return program
    return None


def gone_program(item: Link) -> str:
    """The wherry that our `docker` starts, when that is not there any more; else empty."""
    for line in Path(item.place).read_text(encoding="utf-8").splitlines():
        if line.startswith("# starts "):
            program = line.removeprefix("# starts ")
            return "" if os.access(program, os.X_OK) else program
    return ""


def _docker(directory: MachineDir, known: list[Link]) -> list[Link]:
    if host.current().command_script("", [], {}) is None:
        raise _later("docker")
    other = other_docker()
    if other is not None:
        from launcher.machine.context import context_name

        raise Refused(
            f"{other} is another program, which a docker of wherry's would hide.",
            hint=f"It reaches the machine as it is: docker context use {context_name(directory.name)}",
        )
    place = next((item.place for item in known if item.kind == "docker" and item.is_ours), None)
    return [Link("docker", place or str(_folder_on_path() / "docker"), str(directory.path))]


def _sockets(directory: MachineDir, known: list[Link]) -> list[Link]:
    places = host.current().user_docker_sockets()
    if not places:
        raise _later("socket")
    made = [Link("socket", str(place), str(directory.path), str(directory.engine_socket)) for place in places]
    ours = {item.place for item in known if item.is_ours}
    for item in made:
        if item.place not in ours:
            _check_place(Path(item.place))
    return made


def _later(kind: str) -> WherryError:
    return WherryError(f"wherry link {kind} comes to {host.current().NAME} in a later release.", hint="wherry docker, compose")


def _check_place(place: Path) -> None:
    """Raises Refused for what could not be put back."""
    if not os.path.lexists(place):
        return
    mode = place.lstat().st_mode
    if not stat.S_ISLNK(mode) and not stat.S_ISSOCK(mode):
        raise Refused(f"{place} is neither a socket nor a link.", hint="Move it away first.")
    if os.path.lexists(_before(place)):
        raise Refused(f"{_before(place)} is there already.", hint="Remove it, or rename it.")


def _before(place: Path) -> Path:
    return place.with_name(place.name + _BEFORE)


def _folder_on_path() -> Path:
    """A folder of PATH that the user can write: their own before that of wherry itself."""
    wherry, home = proc.find("wherry"), Path(host.current().home())
    wanted = [home / ".local" / "bin", home / "bin", *([wherry.parent] if wherry else [])]
    usable = set(_path_folders())
    for folder in wanted:
        if folder in usable and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise WherryError(
        f"no folder of PATH can take a docker of wherry's: {', '.join(map(str, wanted))}.",
        hint=f'mkdir -p {wanted[0]}, then in your shell\'s profile: export PATH="{wanted[0]}:$PATH"',
    )


def _path_folders() -> list[Path]:
    return [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]


def _is_script(place: Path) -> bool:
    try:
        with place.open("rb") as file:
            return _MARK.encode() in file.read(4096).split(b"\nexec ")[0]
    except OSError:
        return False


def _make(item: Link) -> None:
    place = Path(item.place)
    if item.kind == "docker":
        script = host.current().command_script(*_words(item))
        assert script is not None
        files.write_private(place, script.encode())
        place.chmod(0o755)
        return
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.path.lexists(place):
        place.rename(_before(place))
    written = files.temporary(place)
    written.symlink_to(item.target)
    written.replace(place)


def _words(item: Link) -> tuple[str, list[str], dict[str, str]]:
    """Comment, command and variables of our docker."""
    wherry = program.command()
    moved = {"WHERRY_HOME": str(store.home())} if os.environ.get("WHERRY_HOME") else {}
    comment = f"{_MARK} docker; wherry unlink docker removes it\nstarts {wherry[0]}"
    return comment, [*wherry, "--machine", Path(item.machine).name, "docker"], moved


def _undo(items: list[Link]) -> list[Link]:
    if not items:
        return []
    for item in items:
        _take_away(item)
    _note([item for item in listing() if item not in items])
    return items


def _take_away(item: Link) -> None:
    """Remove what we made, and put back what was there. What somebody else put there meanwhile stays."""
    place, before = Path(item.place), _before(Path(item.place))
    if item.is_ours:
        place.unlink()
    if item.kind == "socket" and os.path.lexists(before):
        if os.path.lexists(place):
            before.unlink()  # its program has made it anew
        else:
            before.rename(place)


def _file() -> Path:
    return store.home() / "links.json"


def _note(items: list[Link]) -> None:
    if not items:
        _file().unlink(missing_ok=True)
        return
    text = json.dumps({"version": 1, "links": [asdict(item) for item in items]}, indent=1)
    files.write_private(_file(), text.encode())
