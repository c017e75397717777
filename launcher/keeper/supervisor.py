"""One machine's life: start, watch, stop. The keeper's main thread runs `Supervisor.run`; other threads ask and request."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from launcher import readiness, room, saved, seed
from launcher.errors import Damaged, NoProgress, NotRunning, WherryError, of_system
from launcher.keeper import fault, reach, resumer, starter, stopper, tidy
from launcher.keeper import life as living
from launcher.keeper.adoption import possible as adoption_possible
from launcher.keeper.adoption import take_over, tell_succession
from launcher.keeper.healer import Healer
from launcher.keeper.health import Health
from launcher.keeper.identified import Parts
from launcher.keeper.idle import Nap
from launcher.keeper.journal import Journal
from launcher.keeper.launch import Guest
from launcher.keeper.pause import Pause
from launcher.keeper.virtiofsd import Virtiofsds
from launcher.keeper.watch import Cancelled, Watch
from launcher.qemu.qmp import Qmp
from launcher.readiness import Line
from launcher.ssh.transport import Connection
from launcher.state import State
from launcher.store import MachineDir

log = logging.getLogger("wherry.keeper")

T = TypeVar("T")


class Supervisor:
    """Owns QEMU, the console and the SSH connection of one machine.

    Journal events: stage, note, ready | failed for the start; stop, stopped for the end.
    """

    def __init__(self, directory: MachineDir, *, only_stop: bool = False, disk_action: str = "") -> None:
        """`only_stop`: take over the QEMU that a dead keeper left, and end it. `disk_action`: one of `seed.ACTIONS`."""
        self.directory = directory
        self.only_stop = only_stop
        self.disk_action = disk_action or seed.USE
        self.config = tidy.config(directory, only_stop)
        directory.check_state()  # what a newer wherry wrote is not written over
        self.journal = Journal()
        self.watch = Watch(self.on_message)
        self.guest: Guest | None = None
        self.pause = Pause(directory.data_disk, self._held)
        self.state = self.first_state()
        self.began = time.monotonic()
        self.stop_force = False
        self._stop_wanted = threading.Event()
        self._leave_wanted = threading.Event()
        self.suspend_wanted = threading.Event()
        self.idle_wanted = False
        self.parts = Parts()
        self.nap = Nap()
        self._state_lock = threading.Lock()
        self.virtiofsds = Virtiofsds(self)
        self.health = Health()
        self.link = reach.link_to(self)
        self.healer = Healer(self.link, self.health, self.is_awake)

    # What other threads use

    def first_state(self) -> State:
        """Of a keeper that has just begun, or begins anew. Never "stopped": who asks would wait for the end of this keeper.

        A look at a damaged disk does not mend it: why the machine did not start stays known, for `repair`.
        """
        status = "stopping" if self.only_stop else "starting"
        if self.disk_action == seed.READ_ONLY:
            with suppress(Damaged):
                return State(status=status, last_error=self.directory.read_state().last_error)
        return State(status=status)

    @property
    def status(self) -> str:
        return self.state.status

    def is_awake(self) -> bool:
        return self.status == "running" and not self.state.paused

    @property
    def uptime(self) -> float:
        """Seconds since the start began; setting the clock does not change it."""
        return time.monotonic() - self.began

    @property
    def stop_wanted(self) -> bool:
        return self._stop_wanted.is_set()

    def request_stop(self, *, force: bool) -> None:
        """Ask the main thread to stop the machine; a later force overtakes a polite stop that is under way."""
        self.stop_force = self.stop_force or force
        self._stop_wanted.set()
        self.watch.cancel()
        if force and self.status == "stopping" and self.guest is not None:
            threading.Thread(target=self.guest.quit, name="force", daemon=True).start()

    def request_suspend(self, *, idle: bool = False) -> None:
        """`stopped`, or `unsuspended` with why, is in the journal then. With `idle` the keeper stays until the next use."""
        self.idle_wanted = idle
        self.suspend_wanted.set()
        self.watch.interrupt()

    @property
    def leaving(self) -> bool:
        return self._leave_wanted.is_set()

    @property
    def may_leave(self) -> bool:
        """Whether the machine could be left to the next keeper as it is."""
        return adoption_possible() and self.status == "running" and not self.stop_wanted and not self.watch.ended

    def leave(self) -> None:
        """Ask the main thread to end this keeper and leave QEMU, and state.json, to the next one."""
        self._leave_wanted.set()
        self.watch.cancel()

    def folder_lost(self) -> None:
        """The machine's folder was moved or deleted: its files are elsewhere, and nobody finds this keeper any more."""
        self.note(f"{self.directory.path} was moved or deleted while the machine ran; it was stopped", warning=True)
        self.request_stop(force=False)

    def wait_ready(self, seconds: float | None = None) -> None:
        """Until the start is done, but not longer than `seconds`.

        Raises the error of a failed start, NotRunning when a stop came first, NoProgress when the time was too short; and at
        once when the machine is held, because its disk cannot be written on this computer.
        """
        self.nap.wake()
        event = self.journal.wait(lambda event: event["event"] in ("ready", "failed", "stop"), seconds)
        if event is None:
            raise NoProgress(f"machine {self.directory.name!r} is still starting.", hint="wherry up")
        if event["event"] == "failed":
            raise starter.error_of(event)
        if self.status != "running":
            raise NotRunning(f"machine {self.directory.name!r} is {self.status}.", hint="wherry up")
        if self.state.paused:
            raise room.held(self.directory.path, self.state.paused)

    def connection(self) -> Connection:
        """The warm SSH connection; where it is lost, the next one. Raises ConnectionLost, NotRunning."""
        return self.link.get()

    def open(self, make: Callable[[Connection], T]) -> T:
        """What `make` makes of it, in place of a connection or a QEMU that ends meanwhile of the next one."""
        return reach.open_on(self, make)

    def update(self, **values: Any) -> None:
        """Change state.json; the keeper is its only writer."""
        with self._state_lock:
            self.state = replace(self.state, **values)
            try:
                self.directory.write_state(self.state)
            except OSError as error:  # a full disk must not end a running machine
                log.error("state.json: %s", error)

    # The main thread

    def run(self) -> int:
        """The whole life. Returns the keeper's exit code; what failed is in the journal and in state.json."""
        try:
            try:
                self._begin()
                if living.live(self):
                    return self._ended("suspended")
            except Cancelled:
                log.info("stopped while starting")
            return self._let_go() if self._leave_wanted.is_set() else self._finish()
        except (WherryError, OSError) as error:
            ours = of_system(error) if isinstance(error, OSError) else error
            log.error("%s", ours.message, exc_info=True)
            self._fail(ours)
            return ours.exit_code
        except Exception as error:
            log.exception("the keeper failed")
            self._fail(WherryError(f"the keeper failed: {error!r}", hint=f"wherry logs keeper {self.directory.name}"))
            return 1

    def _begin(self) -> None:
        taken_over = self.directory.qemu_runs() and take_over(self)
        if not taken_over:
            tidy.clean(self.directory)
        if self.only_stop:
            self.request_stop(force=False)
            raise Cancelled
        if taken_over:
            self.began -= max(0.0, time.time() - self.state.started) if self.state.started else 0.0
            self.update(keeper_pid=os.getpid())
            tell_succession(self)
        else:
            self.update(status="starting", keeper_pid=os.getpid(), started=time.time())
            bring = resumer.resume if saved.is_suspended(self.directory) else starter.start
            bring(self)
        self.is_ready()

    def is_ready(self) -> None:
        """The start is done."""
        self.update(status="running")
        saved.sweep(self.directory)
        if self.health.state("engine") is None:  # of one that was taken over more may be known
            self.health.report("engine", "ok")
        tidy.remember_config(self.directory)
        self.journal.add({"event": "ready", "data": starter.summary(self.state)})
        log.info("ready: %s", self.state.timeline)

    def _let_go(self) -> int:
        """End, and touch neither QEMU nor state.json: the next keeper adopts what they name."""
        self.link.drop()
        if self.guest is not None:
            self.guest.close()
        log.info("left to the next keeper")
        return 0

    def _finish(self) -> int:
        suspended = saved.is_suspended(self.directory)  # cancelled before its guest ran
        if self.guest is None or suspended:
            if self.guest is not None:
                self.guest.quit()
            return self._ended("suspended" if suspended else "stopped")
        if self._stop_wanted.is_set() and not self.watch.ended:
            self.update(status="stopping")
            stopper.stop(self)
        elif "begin" not in self.watch.stops:
            self.guest.close()
            raise starter.died(self)
        self.guest.close()
        return self._ended("stopped")

    def _fail(self, error: WherryError) -> None:
        # Before anybody hears of the failure: who does waits for our end, and would not for a keeper that is "starting".
        self.update(status="stopping")
        if self.guest is not None:
            with suppress(Exception):
                self.guest.quit()
        if self.journal.find("ready") is None:
            self.journal.add({"event": "failed", "error": error.to_json()})
        self._ended("failed", error.to_json())

    def _ended(self, status: str, error: dict[str, object] | None = None) -> int:
        self.link.drop()
        self.virtiofsds.end()
        for socket in (self.directory.qmp_socket, self.directory.serial_socket):
            with suppress(OSError):
                socket.unlink(missing_ok=True)
        # What was learned stays readable after the end; what pointed at processes does not.
        self.update(
            status=status, qemu_pid=0, qemu_stamp="", keeper_pid=0, ssh_port=0, token="",
            last_error=error or self.state.last_error,
        )  # fmt: skip
        self.journal.add({"event": "stopped", "forced": self.stop_force})
        return 0

    # Fed by the console and QMP

    def on_message(self, line: Line) -> None:
        """Called by the console thread for each line of the guest that is for us."""
        elapsed = round(time.monotonic() - self.began, 2)
        log.info("guest: %s %s %s", line.kind, line.name, line.text)
        if line.kind == "stage":
            self.update(timeline=[*self.state.timeline, [line.name, elapsed]])
            self.journal.add({"event": "stage", "name": line.name, "seconds": elapsed})
        elif line.kind == "note":
            self.note(readiness.note(line), warning=line.name in readiness.WARNINGS)
        elif line.kind == "stop":
            self.journal.add({"event": "stop", "step": line.name, "seconds": elapsed})

    def note(self, text: str, *, warning: bool = False) -> None:
        """Something that is kept for `status`; a warning is said even where notes are not."""
        self.update(notes=[*self.state.notes, text][-20:])
        self.journal.add({"event": "warning" if warning else "note", "text": text})

    def on_qmp_event(self, name: str, data: dict[str, Any]) -> None:
        log.info("qemu: %s %s", name, data)
        self.pause.on_event(name, data, self.monitor)
        fault.heard(name, self.monitor, self.watch)

    def monitor(self) -> Qmp | None:
        """QEMU's, as long as there is one."""
        return self.guest.qmp if self.guest is not None else None

    def _held(self, why: str) -> None:
        self.update(paused=why)
        if why:
            said = room.held(self.directory.path, why).message.removesuffix(".")
            self.note(f"{said}; the machine goes on when it can be written", warning=True)
            self.health.report("engine", "failed", f"paused: {why}")
        else:
            self.note(f"{self.directory.path} can be written again; the machine goes on")
            self.healer.woke(0.0)
