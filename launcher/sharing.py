"""Which folders of this computer a machine has, where it has them, and what cannot be shared."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from launcher import host, store
from launcher.errors import Refused, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from launcher.config import MachineConfig, Shares

HOME: Final = "home"
# Of the machine, as it says them. What is in the first ones is its own too.
_OWN_WHOLE: Final = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys", "/usr",
    "/var/lib/containerd", "/var/lib/docker", "/var/lib/wherry", "/var/run",
)  # fmt: skip
_OWN: Final = frozenset({"", "/", "/private", "/tmp", "/var", "/var/lib", "/var/folders", "/var/tmp"})  # noqa: S108
_MEDIA: Final = "/run/media/"  # where desktops of Linux mount what is plugged in
_FIRST: Final = "A folder must be there before it is shared."
_NETWORK: Final = re.compile(r"(?:\\\\|//)(?![?.][\\/][A-Za-z]:)")
# In front of the colon that ends it; the colon of a drive does not: a volume's name has two letters at least.
_DRIVE: Final = r"(?:(?:\\\\|//)[?.][\\/])?[A-Za-z]:[\\/]"
_SOURCE: Final = re.compile(rf"({_DRIVE}[^:]*|(?!{_DRIVE})[^:]+)(:.*)", re.DOTALL)
_ON_A_DRIVE: Final = re.compile(_DRIVE)
_OF_A_DRIVE: Final = re.compile(r"[A-Za-z]:[^\\/:][^:]*:[\\/]")
_ABSOLUTE: Final = re.compile(r"/|[A-Za-z]:[\\/]")


class Share(NamedTuple):
    """A folder of this computer in the machine."""

    id: str  # [a-z0-9-]{1,32}, the same as long as the path is
    path: str  # its real path on this computer
    guest: str  # where the machine has it
    aliases: tuple[str, ...]  # where the machine has it too
    read_only: bool
    inside: str = ""  # the id of the share that it lies in: then it is a rule of that share, and not mounted itself


def shares_of(config: MachineConfig) -> list[Share]:
    """The machine's shares, home first. What is not there now is one all the same: it may come.

    A folder that is there twice counts as it was said last. One that cannot be shared (see `check`) is left out.
    """
    return shares_in(config.shares)


def shares_in(wanted: Shares) -> list[Share]:
    """As `shares_of`, of the settings [shares] alone."""
    given = list(_given(wanted))
    modes = {host.current().folded(real): read_only for real, _, read_only in given}
    found: dict[str, Share] = {}
    for real, said, _ in given:
        key = host.current().folded(real)
        if key not in found and not _is_machines(guest_path(real)):
            identity = HOME if key == host.current().folded(home()) else _identity(real)
            found[key] = Share(identity, real, guest_path(real), _aliases(real, said), modes[key])
    shares = [share._replace(inside=_outermost(share, found.values())) for share in found.values()]
    shares.sort(key=lambda share: share.id != HOME)  # stable: the rest stays in the order of the config
    return [share._replace(aliases=_outside(share, shares)) for share in shares]


def _given(wanted: Shares) -> Iterator[tuple[str, str, bool]]:
    """Real path, path as said, and whether it is read-only."""
    system = host.current()
    if wanted.home:
        for path in (system.home(), *system.more_shares()):
            yield system.real_path(path), path, False
    for entry in wanted.folders:
        path, read_only = split(entry)
        path = whole(path)
        yield system.real_path(path), path, read_only


def home() -> str:
    """The real path of the user's home."""
    return host.current().real_path(host.current().home())


def _identity(path: str) -> str:
    import hashlib

    name = re.sub(r"[^a-z0-9]+", "-", re.split(r"[\\/]", path.rstrip("\\/"))[-1].lower()).strip("-")
    return f"{name[:20]}-{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:8]}".lstrip("-")


def check_change(before: Shares, after: Shares) -> None:
    """Raises Refused for a change that a machine that runs cannot take: a share that would become a part of a new one loses its
    place there, and containers that use it with it."""
    was = {share.id for share in shares_in(before) if not share.inside}
    now = shares_in(after)
    for share in now:
        if share.inside and share.id in was:
            around = next(other for other in now if other.id == share.inside)
            raise Refused(
                f"{around.path} holds {share.path}, which is shared already and may be in use.",
                hint="Stop the machine first: wherry stop, the same again, wherry up",
            )


def _aliases(real: str, said: str) -> tuple[str, ...]:
    guest = guest_path(real)
    names = (guest_path(said), *host.current().other_guest_paths(guest), *host.current().other_guest_paths(guest_path(said)))
    return tuple(dict.fromkeys(name for name in names if name != guest and not _is_machines(name)))


def _outermost(share: Share, shares: Iterable[Share]) -> str:
    around = [other for other in shares if other is not share and is_within(share.path, other.path)]
    return min(around, key=lambda other: len(other.path)).id if around else ""


def _outside(share: Share, shares: list[Share]) -> tuple[str, ...]:
    """Its aliases that no share has already: there the link of this computer leads the machine too."""
    taken = [other.guest for other in shares]
    return tuple(alias for alias in share.aliases if not any(_below(alias, folder) for folder in taken))


def same(first: str, second: str) -> bool:
    """Whether two whole paths lead to one folder, as far as names and links tell."""
    fold, real = host.current().folded, host.current().real_path
    return fold(guest_path(real(first))) == fold(guest_path(real(second)))


def is_within(path: str, folder: str) -> bool:
    """Whether a real path is that folder or in it, as far as names tell."""
    fold = host.current().folded
    return _below(fold(guest_path(path)), fold(guest_path(folder)))


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def guest_path(path: str) -> str:
    """Where the machine has, or would have, a folder of this computer, given by its whole path."""
    return host.current().guest_path(path)


def split(text: str) -> tuple[str, bool]:
    """The folder of PATH[:ro|:rw], and whether it is read-only. Raises Usage when there is none before the mode."""
    from launcher.config_values import split_mode

    path, read_only = split_mode(text)
    if not path:  # a script's unset variable, never where we are: that may be the home
        raise Usage(f"{text!r} names no folder.", hint="Where you are is called .")
    return path, read_only


def split_bind(text: str) -> tuple[str, str] | None:
    r"""Source and the rest with its colon of SOURCE:TARGET[:OPTIONS], where the colon in C:\data:/data is the drive's; None
    when there is no source. Raises Usage for C:data:/data, which is one folder or another by where the drive stands."""
    if _OF_A_DRIVE.match(text):
        raise Usage(f"{text}: what {text[:2]} stands at is not known to the machine.", hint=f"Begin with {text[:2]}\\")
    match = _SOURCE.fullmatch(text)
    return (match[1], match[2]) if match else None


def from_windows(path: str) -> str:
    r"""/c/Users/x for C:\Users\x, C:/Users/x and \\?\C:\Users\x, which is where the machine has it; other paths as they
    are. Whatever this computer is: the client may be on another."""
    match = _ON_A_DRIVE.match(path)
    return f"/{path[match.end() - 3].lower()}/{path[match.end() :]}".replace("\\", "/") if match else path


def is_network(path: str) -> bool:
    r"""Whether it is a folder of another computer, as Windows says it: \\server\share."""
    return path.startswith("\\\\") and _NETWORK.match(path) is not None


def whole(path: str, here: str = "") -> str:
    """The whole path of one that may begin with ~ or, where we are `here`, with nothing. Links stay."""
    if path == "~" or path.startswith(("~/", "~\\")):
        path = host.current().home() + path[1:]
    elif here and not _ABSOLUTE.match(path) and not _NETWORK.match(path):
        path = host.current().joined(here, path)
    return host.current().clean_path(path)


def entry(path: str, read_only: bool) -> str:
    """The folder, relative to where we are, as the config has it."""
    return whole(path, here()) + (":ro" if read_only else "")


def here() -> str:
    """The folder where we are. Raises Usage when it has been removed meanwhile."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        raise Usage("the folder where you are is not there any more.", hint="cd") from None


def shown(path: str) -> str:
    """A path in the user's words: what is in the home begins with ~."""
    for above in (host.current().home(), home()):
        if path == above or path.startswith((above + "/", above + "\\")):
            return "~" + path[len(above) :]
    return path


def check(path: str, shares: Iterable[Share] = ()) -> None:
    """Raises Usage or Refused for a whole path that cannot be shared, with what to do instead. A file can be only what lies in
    one of `shares`, where it is hidden or has another mode than the rest."""
    _check_name(path)
    if _NETWORK.match(path):
        raise Usage(f"{path} is a network path, and cannot be shared.", hint="Give it a drive letter: net use Z: " + path)
    real = host.current().real_path(path)
    also = f", which is {real}," if real != path else ""
    if _is_machines(guest_path(real)):
        raise Refused(
            f"{path}{also} cannot be shared: the machine has its own {guest_path(real) or '/'}.",
            hint="Share a folder in it, or copy what is needed: wherry cp",
        )
    _check_there(path, any(share.path != real and is_within(real, share.path) for share in shares))
    for own in wherrys():
        if is_within(real, own):
            raise Refused(
                f"{path}{also} is wherry's own: keys and disks of the machines are there.",
                hint="wherry cp copies single files.",
            )


def _check_there(path: str, may_be_file: bool) -> None:
    try:
        there = host.current().long_path(path)
        folder = stat.S_ISDIR(os.stat(there).st_mode)
        closed = not os.access(there, os.R_OK | os.X_OK if folder else os.R_OK)
    except PermissionError:
        folder, closed = False, True
    except (OSError, ValueError):
        before, colon, _ = path.rpartition(":")
        mode = colon and _ABSOLUTE.match(before) and Path(before).exists()
        hint = "Only :ro or :rw may follow: the machine has it at the same path." if mode else _FIRST
        raise Usage(f"there is no folder {path}.", hint=hint) from None
    if closed:
        raise Usage(f"{path} is closed to you: the machine sees what you see.")
    if not folder and not may_be_file:
        import shlex

        raise Usage(f"{path} is no folder.", hint=f"Share its folder: wherry share add {shlex.quote(str(Path(path).parent))}")


def _check_name(path: str) -> None:
    wrong = "a control character" if any(ord(character) < 32 or ord(character) == 127 for character in path) else ""
    try:
        path.encode()
    except UnicodeEncodeError:  # machine.toml cannot have it
        wrong = "what is not UTF-8"
    if wrong:
        raise Usage(f"{path!r} has {wrong} in its name, and cannot be shared.", hint="Rename it, or share the folder above it.")


def _is_machines(guest: str) -> bool:
    if guest.startswith(_MEDIA):
        return False
    return guest in _OWN or any(_below(guest, own) for own in _OWN_WHOLE)


def wherrys() -> list[str]:
    """Real paths of the folders that are wherry's own."""
    folders = (store.home(), store.cache_dir(), host.current().run_base())
    return [host.current().real_path(str(folder)) for folder in folders]


def find(shares: list[Share], path: str) -> Share | None:
    """The innermost share that a real path lies in; None when it is in none."""
    around = [share for share in shares if is_within(path, share.path) and _is_really(share, path)]
    return max(around, key=lambda share: len(share.path), default=None)


def _is_really(share: Share, path: str) -> bool:
    """Names that differ in case alone may be two folders: there are file systems of both kinds on one computer."""
    parts = guest_path(path).split("/")
    prefix = "/".join(parts[: share.guest.rstrip("/").count("/") + 1])
    if prefix == share.guest:
        return True
    try:
        return Path(host.current().local_path(prefix)).samefile(share.path)
    except OSError:
        return False


def in_guest(share: Share, path: str) -> str:
    """Where the machine has a real path that lies in the share."""
    parts = guest_path(path).split("/")
    return "/".join([share.guest.rstrip("/"), *parts[share.guest.rstrip("/").count("/") + 1 :]])
