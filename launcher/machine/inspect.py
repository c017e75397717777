"""What is, without changing it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from launcher import control, host, room, saved, store
from launcher.errors import Damaged, EngineFailed, NoSuchMachine, NotRunning, Refused, Usage, WherryError, of_system
from launcher.state import State
from launcher.store import MachineDir


def status(name: str) -> dict[str, Any]:
    """One machine, as plain values. Raises NoSuchMachine; damage is reported, not raised."""
    directory = store.machine(name)
    if not directory.exists():
        raise NoSuchMachine(f"there is no machine {name!r}.", hint=f"wherry up{'' if name == 'default' else ' ' + name}")
    return _describe(directory)


def list_machines() -> list[dict[str, Any]]:
    """All machines, the damaged ones too."""
    return [_describe(directory) for directory in store.machines()]


def _describe(directory: MachineDir) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": directory.name, "path": str(directory.path), "status": "broken", "problem": None, "next": None,
    }  # fmt: skip
    try:
        wanted = directory.read_config()
        data |= {"arch": wanted.arch, "cpus": wanted.cpus, "memory": wanted.memory, "disk": wanted.disk, "iso": wanted.iso}
        data["idle_suspend_containers"] = wanted.idle_suspend_containers
        saved.check_disks(directory)
        if not saved.is_suspended(directory) and not directory.data_disk.exists():
            raise Damaged(f"its data disk {directory.data_disk.name} is gone.", hint=directory.repair_hint)
        state, keeper = _state(directory)
        data["idle_suspend"] = saved.idle_minutes(wanted, state.accel)
        suspended = saved.is_suspended(directory)
        values = _running_values(state, keeper, suspended=suspended)
        data["suspended"] = None
        with contextlib.suppress(*[Damaged] if keeper is not None else []):  # it may be resumed as we look
            data["suspended"] = _suspended(directory) if values["status"] == "suspended" else None
        data |= values
        data["socket"] = str(directory.engine_socket) if keeper is not None else None
        if data["status"] == "running" and state.paused:
            held = room.held(directory.path, state.paused)
            data |= {"status": "paused", "problem": held.message, "next": held.hint}
        data["keeper_wherry"] = (keeper or {}).get("wherry")
        data["health"] = (keeper or {}).get("health")
        data["cost"] = (keeper or {}).get("cost")
        guest = (keeper or {}).get("disk")
        data["warnings"] = room.warnings(directory.path, (guest[0], guest[1]) if guest else None)
    except Refused as error:
        data |= {"status": "newer", "problem": error.message, "next": error.hint}
    except OSError as error:
        data["problem"], data["next"] = of_system(error).message, directory.repair_hint
    except WherryError as error:
        data["problem"], data["next"] = error.message, error.hint or directory.repair_hint
    data["disk_used"] = directory.disk_used()
    return data


def _suspended(directory: MachineDir) -> dict[str, Any]:
    """Since when, in seconds since the epoch, and bytes of the saved memory. Raises Damaged."""
    found = saved.read(directory)
    return {"at": found.at, "memory": found.memory}


def _state(directory: MachineDir) -> tuple[State, dict[str, Any] | None]:
    """The keeper's own word when there is one, else what it left on disk; and what the keeper says of itself."""
    try:
        data = control.status(directory.control_socket, cost=True)
        if not directory.keeper_lives():
            control.status(directory.control_socket)  # it may have ended after its answer
            raise WherryError(
                "who answers here is the keeper of a folder that was moved or deleted while it ran; it is ending.",
                hint="wherry up waits for that.",
            )
        keeper = data.pop("keeper", {})
        data.pop("pid", None)  # 0.1.0 before it told more
        return State.from_json(data), keeper
    except NotRunning:
        state = directory.read_state()
    if directory.qemu_runs():
        raise _orphaned(directory)
    for key in (directory.client_key, directory.host_key):
        if not key.exists():
            raise Damaged(f"its key {key.name} is lost.", hint=directory.repair_hint)
    return state, None


def _orphaned(directory: MachineDir) -> WherryError:
    up = f"wherry up{'' if directory.name == 'default' else ' ' + directory.name}"
    if directory.keeper_lives():
        # It has begun and does not listen yet, or listens where this folder was before it was moved.
        return WherryError("its keeper does not listen here: it has just begun, or the folder was moved while it ran.", hint=up)
    # Where QEMU's channels are sockets, that is; pipes have ended with the keeper (keeper/channels.py).
    next_is = "takes them over" if host.current().ENDPOINT == "unix" else "powers the machine off and starts it again"
    return WherryError(f"its keeper ended, QEMU and the containers go on; the next wherry up {next_is}.", hint=up)


def _running_values(state: State, keeper: dict[str, Any] | None, *, suspended: bool) -> dict[str, Any]:
    # A state file that says "running" with neither keeper nor QEMU is left over from a crash of the whole computer.
    off = "suspended" if suspended else "stopped"
    status_now = off if keeper is None else state.status
    uptime = (keeper or {}).get("uptime", 0.0)
    return {
        "status": status_now,
        "accel": state.accel.split(",")[0],
        "engine": state.engine_version,
        "ssh_port": 0 if keeper is None else state.ssh_port,
        "uptime_seconds": round(uptime) if status_now == "running" else 0,
        "timeline": state.timeline,
        "notes": state.notes,
        "restarts": state.restarts,
        "last_error": state.last_error or None,
    }


def logs_path(name: str, which: str) -> Path:
    """The file of a log that is kept on this computer: serial, keeper, shares or qemu."""
    directory = store.machine(name)
    if not directory.exists():
        raise NoSuchMachine(f"there is no machine {name!r}.", hint="wherry list")
    files = {"serial": directory.serial_log, "keeper": directory.keeper_log, "qemu": directory.qemu_log}
    files["shares"] = directory.shares_log
    if which not in files:
        raise Usage(f"there is no log {which!r}: serial, engine, keeper, shares or qemu.")
    return files[which]


def ip(name: str) -> str:
    """The address at which published ports are reached. Raises NotRunning when the machine is off."""
    if status(name)["status"] != "running":
        raise NotRunning(f"machine {name!r} is not running.", hint=f"wherry up{'' if name == 'default' else ' ' + name}")
    published = store.machine(name).read_config().published[0]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(published, published)  # noqa: S104


def engine_version(name: str) -> dict[str, Any]:
    """The engine's own /version. Raises NotRunning, EngineFailed."""
    answer = control.ask(store.machine(name).control_socket, "engine", method="GET", path="/version")
    if answer["status"] != 200:
        raise EngineFailed(f"the engine answered {answer['status']}: {answer['body'].strip()}")
    version: dict[str, Any] = json.loads(answer["body"])
    return version
