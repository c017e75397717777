"""A QEMU that holds the machine because a virtual CPU has failed."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from launcher.errors import ConnectionLost, LaunchFailed, WherryError
from launcher.keeper import adoption, fault, starter
from launcher.keeper.supervisor import Supervisor
from launcher.keeper.watch import Ended, Watch
from launcher.readiness import Patience


class Monitor:
    """A QEMU in that state, which ends when it is told to."""

    def __init__(self, status: str, watch: Watch) -> None:
        self.status, self.watch = status, watch
        self.asked: list[str] = []

    def execute(self, command: str, /, *, timeout: float = 30, **arguments: Any) -> Any:
        self.asked.append(command)
        if self.watch.ended:
            raise ConnectionLost("QEMU's monitor closed.")
        if command == "quit":
            self.watch.on_exit(0)
            raise ConnectionLost("it is gone.")
        return {"status": self.status, "running": False}


@pytest.fixture
def watch() -> Watch:
    return Watch(lambda _line: None)


def test_who_waits_for_the_guest_hears_of_the_end_at_once(watch: Watch) -> None:
    monitor = Monitor("internal-error", watch)
    waited = threading.Event()

    def wait() -> None:
        with pytest.raises(Ended):
            watch.wait_stage("kernel", Patience(60, 60))
        waited.set()

    thread = threading.Thread(target=wait)
    thread.start()
    fault.heard("STOP", lambda: monitor, watch)
    thread.join(60)
    assert waited.is_set() and watch.fault == fault.FAULT
    assert monitor.asked == ["query-status", "quit"]


@pytest.mark.parametrize("status", ["paused", "io-error", "running", "postmigrate"])
def test_what_is_held_for_another_reason_is_left_alone(status: str, watch: Watch) -> None:
    monitor = Monitor(status, watch)
    fault.look(monitor, watch)
    assert monitor.asked == ["query-status"] and not watch.fault and not watch.ended


def test_other_events_ask_nothing(watch: Watch) -> None:
    for name in ("RESUME", "SHUTDOWN", "BLOCK_IO_ERROR"):
        fault.heard(name, lambda: pytest.fail("asked"), watch)
    fault.look(None, watch)


def test_the_next_rung_follows_and_the_reason_is_said(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    climbed: list[str] = []
    notes: list[str] = []
    state = SimpleNamespace(accel="", restarts={})
    keeper = SimpleNamespace(
        directory=SimpleNamespace(name="default", serial_log=None, qemu_log=None), disk_action="", watch=watch, guest=None,
        config=SimpleNamespace(iso="", arch="", qemu="", accel="auto"), state=state, note=notes.append,
        virtiofsds=SimpleNamespace(plan=lambda: SimpleNamespace(ids=()), end=lambda: None, start=lambda _plan: ()),
        stop_wanted=False, on_message=lambda _line: None, on_qmp_event=lambda *_: None,
        update=lambda **values: state.__dict__.update(values),
    )  # fmt: skip

    def launch(_directory: object, _config: object, _iso: object, _qemu: object, rung: str, *more: Any) -> Any:
        climbed.append(rung)
        made = Monitor("internal-error" if rung.startswith("whpx") else "running", keeper.watch)
        if rung == "tcg":
            keeper.watch.stages.append("kernel")
        return SimpleNamespace(process=SimpleNamespace(pid=1, stamp=""), qmp=made, quit=lambda: None)

    def forward(monitor: Monitor) -> int:
        monitor.execute("hostfwd_add")
        return 19800

    for module, name, value in (
        (starter, "_examined", lambda _directory: None), (starter.images, "by_sha", lambda _sha: None),
        (starter.seed, "write", lambda *_: ()), (starter, "launch", launch), (starter, "_finish", lambda _keeper: None),
        (starter.sshport, "forward", forward),
        (starter, "tail", lambda *_: ""), (starter.probe, "find", lambda *_: None),
        (starter.probe, "remembered", lambda *_: None),
        (starter.probe, "ladder", lambda *_: ["whpx,kernel-irqchip=off", "whpx", "tcg"]),
        (starter.probe, "remember", lambda *_: None),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    starter.start(cast(Supervisor, keeper))
    assert climbed == ["whpx,kernel-irqchip=off", "whpx", "tcg"]
    assert notes == [
        f"whpx does not work here ({fault.FAULT}); trying whpx", f"whpx does not work here ({fault.FAULT}); trying tcg",
    ]  # fmt: skip


def test_a_fault_is_not_taken_for_a_panic(watch: Watch) -> None:
    watch.fault = fault.FAULT
    watch.on_exit(0)
    keeper = SimpleNamespace(watch=watch, directory=SimpleNamespace(name="x", serial_log=None, qemu_log=None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starter, "tail", lambda *_: "")
        error = starter.died(cast(Supervisor, keeper))
    assert isinstance(error, LaunchFailed) and error.message == f"{fault.FAULT}."


def test_a_keeper_that_takes_such_a_qemu_over_starts_anew(watch: Watch) -> None:
    monitor = Monitor("internal-error", watch)
    keeper = SimpleNamespace(guest=object(), state=SimpleNamespace(ssh_port=19800), monitor=lambda: monitor, watch=watch)
    with pytest.raises(WherryError, match="a virtual CPU failed"):
        adoption._reach(cast(Supervisor, keeper))
    assert watch.ended
