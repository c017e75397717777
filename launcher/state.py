"""What runs now: the content of a machine's state.json, and what makes a process ours."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from launcher import __version__, release
from launcher.errors import WherryError

STATE_VERSION: Final = 1


@dataclass(frozen=True)
class State:
    """What runs now, for commands that come later. Written before QEMU is started, so that nothing is ever unknown."""

    status: str = "stopped"  # starting, running, stopping, stopped, failed
    token: str = ""  # also in QEMU's -name: tells ours from a process that got the pid later
    qemu_pid: int = 0
    qemu_start: float = 0.0  # process creation time, seconds since the epoch
    keeper_pid: int = 0
    ssh_port: int = 0  # on 127.0.0.1
    accel: str = ""
    started: float = 0.0  # when the start began, seconds since the epoch
    timeline: list[list[Any]] = field(default_factory=list)  # [stage, seconds since the start began]
    engine_version: str = ""
    restarts: dict[str, int] = field(default_factory=dict)  # named cause -> how often a start was repeated for it
    last_error: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what the guest or the start wants the user to know
    wherry: str = ""  # the version that wrote this; empty before 0.1.0 told it

    def to_json(self) -> dict[str, Any]:
        return {"version": STATE_VERSION, **asdict(self), "wherry": __version__}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Keys that are missing have their defaults: the file may be an older wherry's. Raises Refused for a newer one's."""
        if not isinstance(data, dict):
            raise WherryError("state.json is damaged.")
        values = dict(data)
        version, wherry = values.pop("version", None), values.get("wherry")
        unknown = set(values) - set(cls.__dataclass_fields__)
        newer = isinstance(version, int) and version > STATE_VERSION
        if newer or (unknown and release.is_newer(str(wherry or ""))):
            raise release.refused("state.json", wherry)
        if version != STATE_VERSION:
            raise WherryError("state.json is damaged.")
        if unknown:
            raise WherryError("state.json has keys that this wherry does not know.")
        return cls(**values)


def new_token() -> str:
    import secrets

    return secrets.token_hex(8)


def process_is(pid: int, start: float, token: str) -> bool:
    """Whether `pid` is still the process that we started: same pid, same creation time, our token in its command line."""
    if pid <= 0:
        return False
    import psutil

    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - start) < 2 and any(token in word for word in process.cmdline())
    except psutil.Error:
        return False
