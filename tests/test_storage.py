"""The data disk of a machine that runs, with a real QEMU whose guest never begins: what the guest would say is played."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from launcher import diskcopy, disks
from launcher.errors import ConnectionLost, Refused, Usage, WherryError
from launcher.keeper import backup, storage
from launcher.keeper.storage import Storage
from launcher.qemu import blocks
from launcher.qemu.command import disk_args
from launcher.qemu.qmp import Pipes, Qmp
from launcher.ssh.transport import Connection
from launcher.store import MachineDir
from tests.test_disks import qemu_io
from tests.test_qemu_command import BOOT

GIB, MIB = 1 << 30, 1 << 20
QEMU, IMG = shutil.which("qemu-system-x86_64"), Path(shutil.which("qemu-img") or "qemu-img")
pytestmark = pytest.mark.skipif(QEMU is None or shutil.which("qemu-io") is None, reason="needs QEMU and its tools")


class Guest:
    """What the guest would answer, in place of an SSH connection."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.answer: tuple[int, bytes, bytes] = (0, b"", b"")

    def run(self, argv: list[str], *, stdin: bytes, timeout: float) -> tuple[int, bytes, bytes]:
        assert timeout >= 10 and stdin in (b"", b"d\n")
        self.asked.append(argv)
        return self.answer


class Keeper:
    """A machine with a disk of 1 GB, of which 20 MB are written, and a QEMU that has it."""

    def __init__(self, folder: Path) -> None:
        self.directory = MachineDir("default", folder)
        self.guest = Guest()
        disks.create(self.directory.data_disk, GIB, IMG)
        qemu_io(self.directory.data_disk, "write -P 7 100M 20M")
        data = [word for word in disk_args(BOOT) if "node-name=data" in word]
        words = ["-nodefaults", "-display", "none", "-machine", "none", "-S"]
        words += [word for item in data for word in ("-blockdev", item)]
        words += ["-chardev", "stdio,id=qmp,signal=off", "-mon", "chardev=qmp,mode=control"]
        self.process = subprocess.Popen([QEMU or "", *words], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.client = Qmp(Pipes(self.process.stdout, self.process.stdin))
        self.client.start(lambda _name, _data: None)

    def monitor(self) -> Qmp:
        return self.client

    def connection(self) -> Connection:
        return cast(Connection, self.guest)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self.client.close()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    made = Keeper(tmp_path)
    try:
        yield made
    finally:
        made.close()


def ignore(_done: int, _total: int) -> None:
    return


def test_the_disk_of_a_running_machine_grows(keeper: Keeper) -> None:
    keeper.guest.answer = (0, b"2100000000 2000000000\n", b"")
    serving = Storage(keeper)
    assert serving.do({"action": "grow", "size": 2 * GIB}, ignore) == {"size": 2 * GIB, "total": 2100000000}
    assert keeper.guest.asked == [["/usr/lib/wherry/grow", str(2 * GIB)]]
    assert blocks.size(keeper.client) == 2 * GIB == disks.info(keeper.directory.data_disk, IMG).virtual_size
    # Tried again, because the guest could not: QEMU is not asked for what it has done.
    assert serving.grow(2 * GIB)["size"] == 2 * GIB
    with pytest.raises(Refused, match="only grows"):
        serving.grow(GIB)
    assert len(keeper.guest.asked) == 2


def test_what_the_guest_says_is_said(keeper: Keeper) -> None:
    keeper.guest.answer = (1, b"", b"wherry: grow: no room for the journal\n")
    with pytest.raises(WherryError, match="the machine says: grow: no room for the journal"):
        Storage(keeper).grow(2 * GIB)
    keeper.guest.answer = (127, b"", b"")
    with pytest.raises(WherryError, match="ISO is too old") as caught:
        Storage(keeper).reclaim()
    assert caught.value.hint == "wherry upgrade default"


def test_how_full_it_is_is_asked_of_the_guest(keeper: Keeper) -> None:
    keeper.guest.answer = (0, b"2100000000 2000000000\n", b"")
    assert Storage(keeper).do({"action": "info"}, ignore) == {"total": 2100000000, "free": 2000000000}
    keeper.guest.answer = (0, b"error No such file or directory\n", b"")
    with pytest.raises(WherryError, match="says of its disk"):
        Storage(keeper).do({"action": "info"}, ignore)


def test_a_trim_tells_what_came_back(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], *, stdin: bytes, timeout: float) -> tuple[int, bytes, bytes]:
        assert not stdin and timeout > 60 and argv == ["/usr/lib/wherry/trim", "/var/lib/wherry"]
        command = f'qemu-io {blocks.NODE} "discard 100M 20M"'
        keeper.client.execute("human-monitor-command", **cast(dict[str, Any], {"command-line": command}))
        return 0, b"20971520\n", b""

    monkeypatch.setattr(keeper.guest, "run", run)
    done = Storage(keeper).do({"action": "reclaim"}, ignore)
    assert done["trimmed"] == 20 * MIB and done["before"] - done["after"] == 20 * MIB


def test_what_is_not_known_is_said_as_that(keeper: Keeper) -> None:
    for request in ({"action": "shrink"}, {"action": "grow", "size": "2G"}, {}):
        with pytest.raises(Usage, match="does not know disk"):
            Storage(keeper).do(request, ignore)


class Rest:
    """The guest's file system stands still as often as it is told to."""

    def __init__(self, *, late: bool = False) -> None:
        self.times = 0
        self._late = late

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        self.times += 1
        yield
        if self._late:
            raise WherryError("late.")


def blank(path: Path) -> Path:
    disks.create(path, GIB, IMG)
    return path


def clean(keeper: Keeper) -> bool:
    """Nothing of a backup is left in QEMU."""
    nodes = [node.get("node-name") for node in keeper.client.execute("query-named-block-nodes", flat=True)]
    return keeper.client.execute("query-jobs") == [] and "backup" not in nodes


def test_a_backup_is_the_disk_and_nothing_else(keeper: Keeper, tmp_path: Path) -> None:
    file, rest = blank(tmp_path / "copy: of,it"), Rest()
    told: list[tuple[int, int]] = []
    backup.run(keeper.client, file, rest, lambda done, total: told.append((done, total)))
    assert rest.times == 1 and told[-1][0] == told[-1][1] > 0 and clean(keeper)
    assert diskcopy.size_of(file) < 22 * MIB
    keeper.close()
    words = ["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", keeper.directory.data_disk, disks.name_of(file)]
    subprocess.run(words, cwd=tmp_path, check=True)


def test_a_backup_of_a_file_system_that_did_not_stand_still_is_none(keeper: Keeper, tmp_path: Path) -> None:
    with pytest.raises(WherryError, match="late"):
        backup.run(keeper.client, blank(tmp_path / "copy"), Rest(late=True), ignore)
    assert clean(keeper)


def test_what_a_killed_keeper_left_in_qemu_is_in_nobodys_way(keeper: Keeper, tmp_path: Path) -> None:
    left = blank(tmp_path / "left")
    named: dict[str, Any] = {"node-name": "backup", "driver": "qcow2", "file": {"driver": "file", "filename": str(left)}}
    keeper.client.execute("blockdev-add", **named)
    job: dict[str, Any] = {"job-id": "backup", "sync": "top", "speed": 1, "auto-dismiss": False}
    keeper.client.execute("blockdev-backup", device="data", target="backup", **job)
    assert not clean(keeper)
    backup.run(keeper.client, blank(tmp_path / "copy"), Rest(), ignore)
    assert clean(keeper)


def test_a_backup_that_nobody_waits_for_ends_and_is_removed(
    keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "standing_still", lambda _connection: Rest()())
    file = blank(tmp_path / "copy")

    def gone(_done: int, _total: int) -> None:
        raise BrokenPipeError

    with pytest.raises(ConnectionLost):
        Storage(keeper).do({"action": "backup", "file": str(file)}, gone)
    assert clean(keeper) and not file.exists()


def test_a_full_disk_is_named(keeper: Keeper, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", small], check=False).returncode:
        pytest.skip("needs root and tmpfs")
    try:
        with pytest.raises(WherryError, match="there is no space left"):
            backup.run(keeper.client, blank(small / "copy"), Rest(), ignore)
        assert clean(keeper)
    finally:
        keeper.close()
        subprocess.run(["umount", "-l", small], check=True)


def test_one_at_a_time(keeper: Keeper) -> None:
    serving = Storage(keeper)
    inner: list[WherryError] = []

    def run(_argv: list[str], *, stdin: bytes, timeout: float) -> tuple[int, bytes, bytes]:
        assert not stdin and timeout
        with pytest.raises(WherryError, match="another command") as caught:
            serving.do({"action": "reclaim"}, ignore)
        inner.append(caught.value)
        return 0, b"0\n", b""

    keeper.guest.run = run  # type: ignore[method-assign]
    serving.do({"action": "reclaim"}, ignore)
    assert len(inner) == 1
    assert storage.TRIM
