"""What is, without changing it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from launcher import control, store
from launcher.errors import EngineFailed, NoSuchMachine, NotRunning, Refused, Usage, WherryError
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
    data: dict[str, Any] = {"name": directory.name, "path": str(directory.path), "status": "broken", "problem": None}
    try:
        wanted = directory.read_config()
        data |= {"arch": wanted.arch, "cpus": wanted.cpus, "memory": wanted.memory, "disk": wanted.disk, "iso": wanted.iso}
        if not directory.data_disk.exists():
            raise WherryError("its data disk data.qcow2 is gone")
        state, keeper = _state(directory)
        data |= _running_values(state, alive=keeper is not None)
        data["keeper_wherry"] = (keeper or {}).get("wherry")
    except Refused as error:
        data |= {"status": "newer", "problem": error.message}
    except (WherryError, OSError) as error:
        data["problem"] = error.message if isinstance(error, WherryError) else str(error)
    data["disk_used"] = directory.disk_used()
    return data


def _state(directory: MachineDir) -> tuple[State, dict[str, Any] | None]:
    """The keeper's own word when there is one, else what it left on disk; and what the keeper says of itself."""
    try:
        data = control.status(directory.control_socket)
        keeper = data.pop("keeper", {})
        data.pop("pid", None)  # 0.1.0 before it told more
        return State.from_json(data), keeper
    except NotRunning:
        state = directory.read_state()
    if directory.qemu_runs():
        raise WherryError("its keeper ended, QEMU and the containers go on; the next wherry up takes them over")
    return state, None


def _running_values(state: State, alive: bool) -> dict[str, Any]:
    # A state file that says "running" with neither keeper nor QEMU is left over from a crash of the whole computer.
    status_now = state.status if alive else "stopped"
    return {
        "status": status_now,
        "accel": state.accel.split(",")[0],
        "engine": state.engine_version,
        "ssh_port": state.ssh_port if alive else 0,
        "uptime_seconds": round(time.time() - state.started) if status_now == "running" else 0,
        "timeline": state.timeline,
        "notes": state.notes,
        "restarts": state.restarts,
        "last_error": state.last_error or None,
    }


def logs_path(name: str, which: str) -> Path:
    """The file of a log that is kept on this computer: serial, keeper or qemu."""
    directory = store.machine(name)
    if not directory.exists():
        raise NoSuchMachine(f"there is no machine {name!r}.", hint="wherry list")
    files = {"serial": directory.serial_log, "keeper": directory.keeper_log, "qemu": directory.qemu_log}
    if which not in files:
        raise Usage(f"there is no log {which!r}: serial, engine, keeper or qemu.")
    return files[which]


def ip(name: str) -> str:
    """The address at which published ports are reached. Raises NotRunning when the machine is off."""
    if status(name)["status"] != "running":
        raise NotRunning(f"machine {name!r} is not running.", hint=f"wherry up{'' if name == 'default' else ' ' + name}")
    return "127.0.0.1"


def engine_version(name: str) -> dict[str, Any]:
    """The engine's own /version. Raises NotRunning, EngineFailed."""
    answer = control.ask(store.machine(name).control_socket, "engine", method="GET", path="/version")
    if answer["status"] != 200:
        raise EngineFailed(f"the engine answered {answer['status']}: {answer['body'].strip()}")
    version: dict[str, Any] = json.loads(answer["body"])
    return version
