"""QEMU as a process: real signals, a real inherited lock, and the real command line with sockets that we made."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import host
from launcher.config import SSH_PORTS
from launcher.errors import LaunchFailed, MissingOnHost
from launcher.qemu import qmp, sshport
from launcher.qemu.chardevs import UnixListener
from launcher.qemu.command import Boot, arguments
from launcher.qemu.probe import _features
from launcher.qemu.process import QemuProcess
from launcher.qemu.qmp import Qmp

PYTHON = Path(sys.executable)
# Says that it runs, then sits until it is ended.
SIT = "import sys; print('here', flush=True); sys.stdin.close(); import threading; threading.Event().wait()"


@pytest.fixture
def started() -> Iterator[list[QemuProcess]]:
    processes: list[QemuProcess] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait(60)


def start(started: list[QemuProcess], folder: Path, code: str, **options: Any) -> QemuProcess:
    process = QemuProcess.start(PYTHON, ["-c", code], cwd=folder, log=folder / "qemu.log", **options)
    started.append(process)
    return process


def test_it_runs_in_its_folder_in_a_session_of_its_own_and_writes_the_log(tmp_path: Path, started: list[QemuProcess]) -> None:
    (tmp_path / "qemu.log").write_text("of the last start")
    (tmp_path / "qemu.log").chmod(0o600)
    code = "import os, sys; print(os.getcwd(), os.getsid(0) == os.getpid()); print('words', file=sys.stderr); sys.exit(3)"
    process = start(started, tmp_path, code)
    assert process.wait(60) == 3
    assert process.poll() == 3
    assert sorted(process.tail().splitlines()) == sorted([f"{tmp_path} True", "words"])
    assert (tmp_path / "qemu.log").stat().st_mode & 0o777 == 0o600


def test_a_failure_has_the_code_and_the_logs_tail(
    tmp_path: Path, started: list[QemuProcess], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "wherry.keeper")
    process = start(started, tmp_path, "for n in range(30): print('line', n)\nraise SystemExit(1)")
    assert process.wait(60) == 1
    error = process.failure()
    assert isinstance(error, LaunchFailed)
    assert "exit code 1" in error.message
    assert error.detail is not None
    assert error.detail.splitlines() == [f"line {number}" for number in range(10, 30)]
    # The command fills a screen: it is for the log.
    assert caplog.messages[0].startswith(f"+ {PYTHON} -c ")


def test_pid_and_stamp_are_those_of_the_process(tmp_path: Path, started: list[QemuProcess]) -> None:
    process = start(started, tmp_path, SIT)
    assert process.stamp == host.current().process_stamp(process.pid)
    assert process.poll() is None
    assert process.wait(0.01) is None
    process.terminate()
    assert process.wait(60) == -15
    assert "signal 15" in process.failure().message


def test_the_lock_is_held_until_the_process_ends(tmp_path: Path, started: list[QemuProcess]) -> None:
    lock = tmp_path / "lock.qemu"
    descriptor = host.current().lock(lock, wait=False)
    assert descriptor is not None
    process = start(started, tmp_path, SIT, lock_fd=descriptor)
    os.close(descriptor)
    assert host.current().lock(lock, wait=False) is None
    process.kill()
    assert process.wait(60) == -9
    again = host.current().lock(lock, wait=False)
    assert again is not None
    os.close(again)


def test_descriptors_are_handed_over_under_their_numbers_and_no_others(tmp_path: Path, started: list[QemuProcess]) -> None:
    handed, kept = os.pipe()
    os.set_inheritable(kept, True)
    code = f"import os; os.fstat({handed})\ntry: os.fstat({kept})\nexcept OSError: print('closed')"
    process = start(started, tmp_path, code, pass_fds=[handed])
    os.close(handed)
    os.close(kept)
    assert process.wait(60) == 0
    assert process.tail() == "closed"


def test_standard_streams_as_pipes(tmp_path: Path, started: list[QemuProcess]) -> None:
    process = start(started, tmp_path, "import sys; print(sys.stdin.readline().upper(), end='', flush=True)", stdio=True)
    reader, writer = process.stdio
    with reader, writer:
        writer.write(b"ping\n")
        writer.flush()
        assert reader.readline() == b"PING\n"
    assert process.wait(60) == 0


def test_streams_are_not_there_unless_asked_for(tmp_path: Path, started: list[QemuProcess]) -> None:
    process = start(started, tmp_path, "pass")
    with pytest.raises(RuntimeError):
        _ = process.stdio
    assert process.wait(60) == 0


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingOnHost, match="qemu-system-nowhere"):
        QemuProcess.start(tmp_path / "qemu-system-nowhere", [], cwd=tmp_path, log=tmp_path / "qemu.log")


def test_a_program_that_the_system_refuses(tmp_path: Path) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_bytes(b"\x7fELF nothing")
    program.chmod(0o755)
    with pytest.raises(MissingOnHost, match="qemu-system-x86_64 cannot be started: it is no program for this computer"):
        QemuProcess.start(program, ["-S"], cwd=tmp_path, log=tmp_path / "qemu.log")


def listener(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(str(path))
    made.listen(1)
    return made


def connected(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.connect(str(path))
    return made


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A folder whose name has a comma, where a socket's path is short enough."""
    folder = tmp_path / "a,b"
    folder.mkdir()
    return folder


def _blob() -> bytes:
    """What QEMU takes for a kernel and loads; it is never run. arm64 takes any bytes, a PC wants Linux' boot header."""
    blob = bytearray(16384)
    blob[0x1F1] = 1  # setup sectors
    blob[0x1FE:0x200] = b"\x55\xaa"
    blob[0x202:0x208] = b"HdrS" + (0x20C).to_bytes(2, "little")
    blob[0x211] = 1  # loaded high
    blob[0x22C:0x230] = (0x7FFFFFFF).to_bytes(4, "little")  # the highest address for an initrd
    return bytes(blob)


BLOB = _blob()


@pytest.mark.parametrize(("arch", "program"), [("amd64", "qemu-system-x86_64"), ("arm64", "qemu-system-aarch64")])
def test_a_real_qemu_takes_the_whole_command_line(short: Path, started: list[QemuProcess], arch: str, program: str) -> None:
    found, img = shutil.which(program), shutil.which("qemu-img")
    if found is None or img is None:
        pytest.skip(f"no {program} here")
    (short / "seed").mkdir()
    (short / "seed" / "env").write_text("WHERRY_CONTRACT='1'\n")
    (short / "wherry.iso").write_bytes(bytes(20480) + b"hsqs" + bytes(65536))
    (short / "initrd").write_bytes(bytes(8192))
    (short / "vmlinuz").write_bytes(BLOB)
    subprocess.run([img, "create", "-q", "-f", "qcow2", "data.qcow2", "1G"], cwd=short, check=True)
    with listener(short / "q") as monitor, listener(short / "s") as serial:
        boot = Boot(
            name="t", token="0123456789abcdef", arch=arch, cpus=2, memory=256 << 20, accel="tcg", version=(7, 2, 0),
            kernel="vmlinuz", initrd="initrd", iso=str(short / "wherry.iso"), root_offset=20480, root_size=65540 & ~511,
            data_disk="data.qcow2", seed=(("opt/wherry/env", "seed/env"),),
            qmp=UnixListener(monitor.fileno()), serial=UnixListener(serial.fileno()),
            sandbox=_features(Path(found))[0],
        )  # fmt: skip
        # The clients connect before QEMU exists, as the keeper does: nothing that QEMU says can be missed.
        control, console = connected(short / "q"), connected(short / "s")
        argv = [*arguments(boot), "-S"]
        handed = [monitor.fileno(), serial.fileno()]
        process = QemuProcess.start(Path(found), argv, cwd=short, log=short / "qemu.log", pass_fds=handed)
        started.append(process)
    client = Qmp(control)
    try:
        client.start(lambda _name, _data: None)
        assert client.execute("query-status")["status"] == "prelaunch"
        port = sshport.forward(client)
        assert port in SSH_PORTS and qmp.ssh_port(client) == port
        disks = {(disk["inserted"]["node-name"], disk["inserted"]["ro"]) for disk in client.execute("query-block")}
        assert disks == {("root", True), ("data", False)}
        client.execute("quit")
        assert process.wait(60) == 0, process.tail()
        assert any("0123456789abcdef" in word for word in process.argv)
    finally:
        client.close()
        console.close()
