"""The body of a request that makes a container, a service or a volume: bind sources are translated, or refused where there is
none."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from launcher import sharing
from launcher.errors import Usage
from launcher.keeper.proxy import paths
from launcher.keeper.proxy.folders import Folders
from launcher.keeper.proxy.refusal import Refusal

LARGEST_BODY: Final = 16 << 20
ENGINE: Final = "/run/docker.sock"
AGENT: Final = "/run/host-services/ssh-auth.sock"
# What containers mount to work with the engine or the kernel is meant to be the machine's own, and so are copies of folders.
_GUEST_FILES: Final = (ENGINE, "/etc/localtime")
_GUEST_FOLDERS: Final = ("/proc", "/sys", "/dev", "/lib/modules", "/var/lib/wherry/work")


@dataclass(frozen=True)
class Rules:
    """Clean paths of the sockets here that stand for the engine's own, and the folders of this computer that are shared."""

    sockets: frozenset[str] = frozenset()
    folders: Folders = field(default_factory=Folders)
    agents: Callable[[], list[str] | None] = lambda: None  # sockets here that stand for the way to the ssh agent; None: none


class _Object(dict[str, Any]):
    """A JSON object that knows the names which came more than once for a reader that ignores case, as the engine does."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counted = Counter(name.casefold() for name, _ in pairs)
        self.repeated = {name for name, count in counted.items() if count > 1}


Publish = Callable[[dict[str, Any], str, list[str]], bool]


def rewrite(body: bytes, rules: Rules, publish: Publish = lambda _settings, _image, _exposed: False) -> bytes:
    """The body to send: the same bytes when nothing in it changes. Raises Refusal.

    `publish` may change a HostConfig, and says whether it did; it gets the image and the ports that the request exposes too.
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the settings are no JSON: {error}") from error
    changed = _volume(value, "Driver", "DriverOpts", rules)  # a request that makes one
    # The oldest versions of the API have them at the top; a swarm's service has its own place for them.
    specs = [spec for task in _members(value, "TaskTemplate") for spec in _members(task, "ContainerSpec")]
    for holder in [value, *_members(value, "HostConfig"), *specs]:
        for binds in _members(holder, "Binds"):
            changed = _binds(binds, rules) or changed
        for mounts in _members(holder, "Mounts"):
            changed = _mounts(mounts, rules) or changed
    if isinstance(value, _Object):
        changed = _ports(value, publish) or changed
    return json.dumps(value).encode() if changed else body


def _ports(value: _Object, publish: Publish) -> bool:
    settings = next((one for one in _members(value, "HostConfig") if isinstance(one, _Object)), value)
    for name in ("NetworkMode", "PublishAllPorts", "PortBindings"):
        _members(settings, name)
    for published in _members(settings, "PortBindings"):
        for entries in published.values() if isinstance(published, _Object) else ():
            for entry in entries if isinstance(entries, list) else ():
                _members(entry, "HostIp")
                _members(entry, "HostPort")
    exposed = [port for ports in _members(value, "ExposedPorts") if isinstance(ports, _Object) for port in ports]
    return publish(settings, "".join(one for one in _members(value, "Image") if isinstance(one, str)), exposed)


def _members(value: Any, name: str) -> list[Any]:
    """The member of that name, whatever its case. Raises Refusal when it is there twice: who knows which one counts."""
    if not isinstance(value, _Object):
        return []
    if name.casefold() in value.repeated:
        raise Refusal(400, f"{name} is there more than once in the settings.")
    return [item for key, item in value.items() if key.casefold() == name.casefold()]


def _binds(binds: Any, rules: Rules) -> bool:
    if not isinstance(binds, list):
        return False
    changed = False
    for position, text in enumerate(binds):
        parts = _split(text) if isinstance(text, str) else None
        if parts is None:
            continue
        source = _source(parts[0], rules, makes=True)
        if source != parts[0]:
            binds[position], changed = source + parts[1], True
    return changed


def _split(text: str) -> tuple[str, str] | None:
    try:
        return sharing.split_bind(text)
    except Usage as error:
        raise Refusal(400, f"{error.message} {error.hint}") from error


def _mounts(mounts: Any, rules: Rules) -> bool:
    if not isinstance(mounts, list):
        return False
    changed = False
    for mount in mounts:
        for options in _members(mount, "VolumeOptions"):
            for driver in _members(options, "DriverConfig"):
                changed = _volume(driver, "Name", "Options", rules) or changed
        if not any(isinstance(kind, str) and kind.casefold() == "bind" for kind in _members(mount, "Type")):
            continue
        _members(mount, "Source")
        # docker/docker, volume/mounts: only then a folder that is not there is made.
        options = [option for bind in _members(mount, "BindOptions") for option in _members(bind, "CreateMountpoint")]
        for key in [key for key in mount if key.casefold() == "source" and isinstance(mount[key], str)]:
            source = _source(mount[key], rules, makes=True in options)
            if source != mount[key]:
                mount[key], changed = source, True
    return changed


def _volume(value: Any, driver: str, options: str, rules: Rules) -> bool:
    """A volume that is a folder: its driver is local, `o` has bind or rbind, `device` names it (moby, volume/local)."""
    if any(name not in ("", "local", None) for name in _members(value, driver)):
        return False
    return any(_device(found, rules) for found in _members(value, options))  # there is one at most


def _device(options: Any, rules: Rules) -> bool:
    modes = [mode for text in _members(options, "o") if isinstance(text, str) for mode in text.lower().split(",")]
    if not {"bind", "rbind"} & set(modes):
        return False
    devices = _members(options, "device")
    if not devices or not isinstance(devices[0], str):
        return False
    source = _source(devices[0], rules, makes=False)
    if source == devices[0]:
        return False
    options[next(key for key in options if key.casefold() == "device")] = source
    return True


def _source(text: str, rules: Rules, *, makes: bool) -> str:
    """The source as the machine has it. What is no absolute path is a volume's name, or an error that the engine explains."""
    if sharing.is_network(text):
        raise Refusal(400, f"{text} is a network path, which the machine cannot have. With a drive letter it can: net use")
    source = sharing.from_windows(text)
    if not source.startswith("/"):
        return text
    path = paths.clean(source)
    if path.startswith("/var/run/"):  # a link to /run in the machine
        path = path.removeprefix("/var")
    if path in rules.sockets or os.path.realpath(source) in rules.sockets:  # also by a link of this computer
        return ENGINE
    if path == AGENT and rules.agents() is None:
        raise Refusal(400, _NO_AGENT)
    if path == AGENT or path in (rules.agents() or []):
        return AGENT
    if _is_guests(path):
        return source
    return rules.folders.source(text, paths.clean(source), makes=makes)


def _is_guests(path: str) -> bool:
    return path in _GUEST_FILES or any(paths.within(path, folder) for folder in _GUEST_FOLDERS)


def check_start(found: dict[str, Any], rules: Rules) -> None:
    """Whether the machine still has what a container binds, by the engine's description of it. Raises Refusal.

    The engine makes a folder for a source that is not there: after a share was taken back that would be an empty one.
    """
    for mount in found.get("Mounts") or []:
        source = mount.get("Source") or ""
        if mount.get("Type") == "bind" and source != AGENT and not _is_guests(source):
            rules.folders.check(source)


_NO_AGENT: Final = (
    f"{AGENT} is not there: the ssh agent of this computer is not offered to containers. "
    "wherry config set ssh_agent true --restart"
)
