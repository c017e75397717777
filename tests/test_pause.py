"""A machine that is held because its disk cannot be written: told once, tried again until the same write holds."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import room
from launcher.errors import ConnectionLost, NoProgress, WherryError
from launcher.keeper import pause
from launcher.keeper.pause import Pause
from launcher.qemu.command import disk_args
from launcher.qemu.qmp import Pipes, Qmp
from tests.test_qemu_command import BOOT

ERROR = {"action": "stop", "nospace": True, "operation": "write", "reason": "No space left on device"}
QUOTA = {"action": "stop", "nospace": False, "operation": "write", "reason": "Disk quota exceeded"}


class Qemu:
    """Held until there is space; each `cont` before that fails with the same event."""

    def __init__(self) -> None:
        self.space = False
        self.ended = False
        self.tries = 0
        self.status = "io-error"
        self.error: dict[str, Any] = ERROR
        self.refusals: list[WherryError] = []  # the next answers to `cont`
        self.behind = 0  # so often it tells of a failed write after it was waited for
        self.late = False  # the next word that it goes on comes with a write that fails
        self.tried = threading.Event()
        self.told: list[str] = []
        self.over = threading.Event()
        self.pause = Pause(Path("/disk"), self._tell)

    def _tell(self, why: str) -> None:
        self.told.append(why)
        if not why and self.late:
            self.late = False
            self.fail()
        elif not why:
            self.over.set()

    def fail(self) -> None:
        self.status = "io-error"
        self.pause.on_event("STOP", {}, self.monitor)
        self.pause.on_event("BLOCK_IO_ERROR", self.error, self.monitor)

    def monitor(self) -> Qemu:
        return self

    @staticmethod
    def looked_twice(looked: threading.Event) -> bool:
        for _ in range(3):
            looked.clear()
            if not looked.wait(10):
                return False
        return True

    def execute(self, command: str, /, *, timeout: float = 30, **arguments: Any) -> Any:
        if self.ended:
            raise ConnectionLost("QEMU's monitor closed.")
        if command == "query-status":
            if self.behind and self.tries:
                self.behind -= 1
                self.fail()
            return {"status": self.status}
        if command == "query-block":
            return [{"io-status": "ok"}, {"io-status": "nospace" if self.error["nospace"] else "failed"}]
        assert command == "cont"
        self.tries += 1
        if self.refusals:
            raise self.refusals.pop(0)
        self.status = "running"
        if not self.space:
            self.fail()
        if self.tries >= 3:
            self.tried.set()
        return {}


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> Qemu:
    monkeypatch.setattr(pause, "_TRIES_EVERY", 0.01)
    monkeypatch.setattr(pause, "_FAILS_WITHIN", 0.05)
    return Qemu()


def test_it_is_told_once_and_goes_on_when_there_is_space(qemu: Qemu) -> None:
    qemu.fail()
    assert qemu.tried.wait(10)
    assert qemu.told == [room.FULL]
    qemu.space = True
    assert qemu.over.wait(10)
    assert qemu.told == [room.FULL, ""]


def test_another_time_is_told_again(qemu: Qemu) -> None:
    for _ in range(2):
        qemu.space = False
        qemu.tried.clear()
        qemu.over.clear()
        qemu.fail()
        assert qemu.tried.wait(10)
        qemu.space = True
        assert qemu.over.wait(10)
    assert qemu.told == [room.FULL, "", room.FULL, ""]


def test_a_write_that_fails_while_it_is_told_that_the_machine_goes_on(qemu: Qemu) -> None:
    qemu.space = qemu.late = True
    qemu.fail()
    assert qemu.over.wait(10)
    assert qemu.told == [room.FULL, "", room.FULL, ""]


def test_a_write_whose_failure_is_told_late_is_not_taken_for_one_that_holds(qemu: Qemu) -> None:
    """QEMU's main loop stood still longer than is waited for the event: it tells of it before it answers anything else."""
    qemu.behind = 2
    qemu.space = True
    qemu.fail()
    assert qemu.over.wait(10)
    assert (qemu.told, qemu.tries) == ([room.FULL, ""], 3)


def test_a_qemu_that_is_too_busy_to_answer_is_tried_again(qemu: Qemu) -> None:
    qemu.space = True
    qemu.refusals = [NoProgress("QEMU's monitor did not give an answer to cont."), WherryError("QEMU refused cont.")]
    qemu.fail()
    assert qemu.over.wait(10)
    assert (qemu.told, qemu.tries) == ([room.FULL, ""], 3)


def test_another_reason_is_told_and_not_waited_for_space(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "is_there", lambda _: False)
    qemu.error = QUOTA
    qemu.fail()
    assert qemu.tried.wait(10)
    qemu.space = True
    assert qemu.over.wait(10)
    assert qemu.told == ["this computer cannot write /disk (Disk quota exceeded)", ""]


def test_an_error_that_the_guest_is_told_of_is_the_guests(qemu: Qemu) -> None:
    qemu.pause.on_event("BLOCK_IO_ERROR", {"action": "report"}, qemu.monitor)
    assert qemu.told == []


def test_a_qemu_that_ends_while_it_is_held(qemu: Qemu) -> None:
    qemu.fail()
    assert qemu.tried.wait(10)
    qemu.ended = True
    for thread in threading.enumerate():
        if thread.name == "pause":
            thread.join(10)
    assert qemu.told == [room.FULL]


def test_one_that_was_taken_over_is_told_before_the_answer(qemu: Qemu) -> None:
    assert qemu.pause.found_held(qemu.monitor)
    assert qemu.told == [room.FULL]
    qemu.space = True
    assert qemu.over.wait(10)
    assert qemu.told == [room.FULL, ""]


def test_one_that_was_taken_over_when_there_was_space_again(qemu: Qemu) -> None:
    qemu.space, qemu.error = True, QUOTA
    assert not qemu.pause.found_held(qemu.monitor)
    assert qemu.told == ["this computer cannot write /disk", ""]
    qemu.status, tries = "running", qemu.tries
    assert not qemu.pause.found_held(qemu.monitor)
    assert qemu.tries == tries
    qemu.space, qemu.error = False, ERROR
    qemu.over.clear()
    qemu.fail()  # it is heard from then on
    qemu.space = True
    assert qemu.over.wait(10)
    assert qemu.told[2:] == [room.FULL, ""]


def test_one_that_ended_while_it_was_taken_over(qemu: Qemu) -> None:
    qemu.refusals = [ConnectionLost("QEMU's monitor closed.")]
    with pytest.raises(ConnectionLost):
        qemu.pause.found_held(qemu.monitor)
    qemu.space = True
    qemu.fail()  # of the next one
    assert qemu.over.wait(10)


def test_qemu_is_not_asked_while_the_file_system_is_full(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    there, looked = threading.Event(), threading.Event()

    def is_there(_folder: Path) -> bool:
        looked.set()
        return there.is_set()

    monkeypatch.setattr(room, "is_there", is_there)
    qemu.fail()
    assert qemu.looked_twice(looked)
    assert (qemu.told, qemu.tries) == ([room.FULL], 0)
    qemu.space = True
    there.set()
    assert qemu.over.wait(10)
    assert (qemu.told, qemu.tries) == ([room.FULL, ""], 1)


REAL = shutil.which("qemu-system-x86_64")
# xor ax,ax; mov es,ax; mov bx,7c00h; mov ax,0301h (write a sector); mov cx,2; mov dx,80h; int 13h; hlt; jmp to hlt
_WRITES_ONCE = bytes.fromhex("31c0 8ec0 bb007c b80103 b90200 ba8000 cd13 f4 ebfd").ljust(510, b"\0") + b"\x55\xaa"


class Sector:
    """A real QEMU and its boot sector, which writes another one; the first write is refused."""

    def __init__(self, disk: Path, number: int) -> None:
        self.disk = disk
        disk.write_bytes(_WRITES_ONCE + bytes(1 << 20))
        refuses = f"inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.errno={number},inject-error.0.once=on"
        words = [
            "-nodefaults", "-display", "none", "-machine", "q35", "-accel", "tcg", "-m", "64", "-S",
            "-blockdev", f"driver=file,node-name=file,filename={disk}",
            "-blockdev", f"driver=blkdebug,node-name=refuses,image=file,{refuses}",
            "-blockdev", "driver=raw,node-name=data,file=refuses",
            "-device", disk_args(BOOT)[-1],
            "-chardev", "stdio,id=qmp,signal=off", "-mon", "chardev=qmp,mode=control",
        ]  # fmt: skip
        self.process = subprocess.Popen([REAL or "", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.client = Qmp(Pipes(self.process.stdout, self.process.stdin))
        self.told: list[str] = []
        self.over, self.stopped = threading.Event(), threading.Event()
        self.pause = Pause(disk, self._tell)

    def begin(self, *, heard: bool) -> None:
        """`heard`: the keeper's Pause hears the event."""

        def on_event(name: str, data: dict[str, Any]) -> None:
            if heard:
                self.pause.on_event(name, data, lambda: self.client)
            if name == "STOP":
                self.stopped.set()

        self.client.start(on_event)
        self.client.execute("cont")
        assert self.stopped.wait(60)

    def _tell(self, why: str) -> None:
        self.told.append(why)
        if not why:
            self.over.set()

    def check_written(self) -> None:
        assert self.client.execute("query-status")["status"] == "running"
        self.client.execute("quit")
        self.process.wait(60)
        assert self.disk.read_bytes()[512:1024] == _WRITES_ONCE

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def sector(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sector, int]]:
    if REAL is None:
        pytest.skip("no qemu-system-x86_64 here")
    monkeypatch.setattr(room, "is_there", lambda _: True)
    monkeypatch.setattr(pause, "_TRIES_EVERY", 0.1)
    made = Sector(tmp_path / "disk", request.param)
    yield made, request.param
    made.close()


def test_a_real_qemu_is_held_for_every_write_that_is_refused(sector: tuple[Sector, int]) -> None:
    machine, number = sector
    machine.begin(heard=True)
    assert machine.over.wait(60)
    why = room.FULL if number == errno.ENOSPC else room.unwritable(machine.disk, os.strerror(number))
    assert machine.told == [why, ""]
    machine.check_written()


def test_a_real_qemu_that_was_taken_over_tells_why_it_is_held(sector: tuple[Sector, int]) -> None:
    machine, number = sector
    machine.begin(heard=False)
    assert machine.client.execute("query-status")["status"] == "io-error"
    assert not machine.pause.found_held(lambda: machine.client)
    assert machine.told == [room.FULL if number == errno.ENOSPC else room.unwritable(machine.disk, ""), ""]
    machine.check_written()
