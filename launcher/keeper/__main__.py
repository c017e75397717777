"""`python -m launcher.keeper NAME [ACTION]`: started by `launcher.machine`, writes "ready" on stdout when it listens,
"ready tied" when it ends with the terminal all the same, or "served" when another one keeps the machine.

ACTION is what the start may do with the data disk, one of `seed.ACTIONS`; or `stop`: to take over the QEMU that a dead keeper
left, and end it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

from launcher import control, host, saved, store
from launcher.errors import WherryError, of_system
from launcher.keeper import diary
from launcher.keeper.agent import CHANNELS as AGENT_CHANNELS
from launcher.keeper.agent import Agents
from launcher.keeper.cost import Cost
from launcher.keeper.events import Events
from launcher.keeper.guard import Guard
from launcher.keeper.healer import listening
from launcher.keeper.idle import Containers, Idle, Uses
from launcher.keeper.oom import Oom
from launcher.keeper.ports.service import PortService
from launcher.keeper.proxy.folders import Folders
from launcher.keeper.proxy.server import GUEST_CHANNELS, EngineProxy
from launcher.keeper.pulse import Pulse
from launcher.keeper.relaypool import RelayPool
from launcher.keeper.server import Server
from launcher.keeper.shares.service import ShareService
from launcher.keeper.supervisor import Supervisor
from launcher.keeper.upkeep import Upkeep
from launcher.ssh.transport import Connection
from launcher.store import MachineDir

_RELAY_SECONDS = 5.0
_LOOKS_EVERY = 0.1


def _tell(word: str) -> None:
    """One line to who started us, then the pipe is closed: nothing of ours ever prints again."""
    with contextlib.suppress(OSError):  # who started us may have been killed; the machine starts all the same
        os.write(1, f"{word}\n".encode())
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)


def _on_the_end(keeper: Supervisor) -> None:
    def stop(number: int, _frame: FrameType | None) -> None:
        logging.getLogger("wherry.keeper").info("signal %d: stopping", number)
        keeper.request_stop(force=False)

    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)

    def end() -> None:
        logging.getLogger("wherry.keeper").info("the session ends: stopping")
        keeper.request_stop(force=False)

    # Before that the machine is to be off, and what runs in it to have saved its data.
    host.current().when_session_ends(f"wherry is stopping its machine {keeper.directory.name}, and the containers in it", end)


def main() -> int:
    os.umask(0o077)
    host.current().raise_descriptor_limit()  # two for a published port, two more for each of its connections
    directory = store.machine(sys.argv[1])
    try:
        return _keep(directory, "".join(sys.argv[2:3]))
    except OSError as error:  # a full or read-only folder: there may be no log to say it in
        _tell(f"error {of_system(error).message}")
        raise


def _follow(keeper: Supervisor, events: Events, connection: Connection) -> None:
    """Follow the engine, once it is there."""
    with contextlib.suppress(WherryError):  # the start has failed
        keeper.wait_ready()
        events.connected(connection)


def _offered(way: RelayPool | None, agents: Agents) -> list[str] | None:
    """The ssh agents here, where containers can reach one: a guest may have begun before that setting, or be older."""
    return agents.addresses() if way is not None and way.usable(_RELAY_SECONDS) else None


def _lock(directory: MachineDir) -> int | None:
    """The lock that a machine's one keeper has; None when another one has it and keeps the machine.

    machine/run.py starts one at a time; but when it is killed, the next command may start another before the first has come
    as far as here. One that is about to end is waited for. Nobody gives the lock back: it goes with the process, so that
    whoever gets it next finds nothing of us left.
    """
    while (lock := host.current().lock(directory.lock_file, wait=False)) is None:
        with contextlib.suppress(WherryError):
            if control.status(directory.control_socket)["status"] in ("starting", "running"):
                return None
        time.sleep(_LOOKS_EVERY)
    return lock


def _door(directory: MachineDir) -> list[socket.socket]:
    """The engine's socket, when who started us held it, and the clients that had come. None where it is not at its place."""
    made: list[socket.socket] = []
    with contextlib.suppress(OSError, ValueError):
        for given in os.environ.pop("WHERRY_DOOR", "").split(","):
            os.set_inheritable(int(given), False)
            made.append(socket.socket(fileno=int(given)))
            made[-1].setblocking(True)
        place = directory.engine_socket
        if made[0].family == socket.AF_UNIX and made[0].getsockname() == str(place) and place.is_socket():
            return made
    for one in made:
        one.close()
    return []


def _idle(keeper: Supervisor, events: Events, *parts: Uses) -> Idle:
    """What has the machine suspended when no part of the keeper is used, and no container runs that counts."""

    def minutes() -> int:
        return saved.idle_minutes(keeper.config, keeper.state.accel)

    idle = Idle(minutes, keeper.is_awake, lambda: keeper.request_suspend(idle=True))
    for uses in (*parts, Containers(events, lambda: keeper.config.idle_suspend_containers).uses):
        idle.count(uses)
    keeper.parts.used = idle.used
    return idle


def _pulse(keeper: Supervisor, *looks: Callable[[], None]) -> Pulse:
    """Begun: the link is looked at every second, `looks` every few."""
    pulse = Pulse(keeper.healer.woke)
    pulse.every_second(keeper.link.look)
    for look in looks:
        pulse.every_few(look)
    pulse.start()
    return pulse


def _keep(directory: MachineDir, action: str) -> int:
    diary.keep(directory.keeper_log)
    lock = _lock(directory)
    if lock is None:
        _tell("served")
        return 0
    try:
        keeper = Supervisor(directory, only_stop=action == "stop", disk_action=action)
        _on_the_end(keeper)  # before there is a socket, which an end by the signal itself would leave behind
        events = Events(keeper.healer.engine_doubted)
        ports = PortService(keeper, events)
        keeper.link.subscribe(lambda connection: _follow(keeper, events, connection))
        agents = Agents(os.environ)
        way = RelayPool(keeper.link, AGENT_CHANNELS, agents.serve) if keeper.config.ssh_agent else None
        shares = ShareService(keeper, events)
        folders = Folders(shares.shares, shares.private, shares.failed, directory.name)
        proxy = EngineProxy(keeper, ports.publisher, lambda: _offered(way, agents), folders, _door(directory))
        guest = RelayPool(keeper.link, GUEST_CHANNELS, proxy.serve)
        cost = Cost(lambda: {"qemu": keeper.state.qemu_pid, "keeper": os.getpid(), "shares": shares.pid})
        oom = Oom(keeper, events)
        server = Server(
            keeper, proxy.working, ports.holders.listing, ports.by_hand.change, guest.usable, agents.learn, shares,
            cost=cost.to_json, oom=oom.to_json,
        )  # fmt: skip
        upkeep = Upkeep(keeper, events, server.storage)
        server.start()
        proxy.start()
        keeper.health.report("socket", "ok")
        keeper.healer.check(listening(directory.engine_socket, keeper.health))
        keeper.healer.check(events.look)
        keeper.healer.check(shares.look)
        keeper.parts.at_rest.append(shares.quiet)
        keeper.parts.hindrances.append(server.hindrance)
        idle = _idle(keeper, events, server.uses, proxy.uses, ports.uses, shares.uses)
        if not keeper.only_stop:
            shares.begin()
    except WherryError as error:
        logging.getLogger("wherry.keeper").exception("cannot begin")
        _tell(f"error {error.message}")
        return error.exit_code
    guard = Guard(directory, lock, keeper.folder_lost)
    looks = guard.look, shares.look_at_pause, shares.look_at_virtiofs, idle.look, cost.look, upkeep.look
    pulse = _pulse(keeper, *looks)
    # Here and not where we are started, which is a command's way: to know costs one more program in the job of a launcher.
    _tell("ready tied" if host.current().tied() else "ready")
    try:
        return keeper.run()
    finally:
        pulse.stop()
        shares.close()
        events.close()
        ports.close()
        guest.close()
        if way is not None:
            way.close()
        proxy.close()
        server.close()


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Request threads may be blocked on clients that do not read; they are daemons and end with us.
    sys.exit(code)
