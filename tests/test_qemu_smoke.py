"""Every command line of every system, made on this one from its host module, and run by this computer's QEMU.

Behind the system's own accelerator stands a software one, to which QEMU falls back; and what only a processor at hand can give
(`-cpu host`, its interrupt controller) is given by the nearest that can be emulated. All other words are as a user's QEMU gets
them, down to the monitor on its standard streams.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import pytest

from launcher.host import linux, macos, windows
from launcher.qemu.chardevs import Channel, OutputFile, Stdio, UnixListener
from launcher.qemu.command import Boot, arguments
from launcher.qemu.probe import _features
from tests.test_qemu_process import BLOB

ARCHES = ("amd64", "arm64")
PROGRAMS = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
HOSTS: tuple[ModuleType, ...] = (linux, macos, windows)
# As old as wherry takes it, and as new as the one that comes for Windows and Macs: some words depend on it.
VERSIONS = ((7, 2, 22), (10, 2, 91))
# What QEMU 7.2 does not know of a newer one's words.
NEWER = ("fzrm", "fsrs", "fsrc")


def rungs(system: ModuleType, native: str, guest: str) -> list[str]:
    """What that system tries, on a computer of that architecture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system, "native_arch", lambda: native)
        patch.setattr("os.access", lambda *_: True)  # to /dev/kvm, whether it is here or not
        found: list[str] = system.accelerators(guest)
    return found


CASES = sorted(
    {
        (system.NAME, guest, rung, version)
        for system, native, guest, version in itertools.product(HOSTS, ARCHES, ARCHES, VERSIONS)
        for rung in rungs(system, native, guest)
    }
)


def softened(words: list[str]) -> list[str]:
    """With a software accelerator behind the system's own, and nothing that the processor would have to give."""
    done = list(words)
    at = done.index("-accel")
    if done[at + 1].startswith("kvm") and os.access("/dev/kvm", os.R_OK | os.W_OK):
        done[at + 1] = "tcg"  # a KVM that is here may know less than its processor: QEMU does not fall back then, it aborts
    elif not done[at + 1].startswith("tcg"):
        done[at + 2 : at + 2] = ["-accel", "tcg"]
    cpu = done.index("-cpu") + 1
    done[cpu] = "max" if done[cpu] == "host" else ",".join(part for part in done[cpu].split(",") if not part.startswith(NEWER))
    machine = done.index("-machine") + 1
    done[machine] = done[machine].replace("gic-version=host", "gic-version=3")
    return done


def test_every_system_has_its_own_accelerator_and_all_end_with_software() -> None:
    families = {(name, rung.partition(",")[0]) for name, _, rung, _ in CASES}
    assert families == {
        ("linux", "kvm"), ("linux", "tcg"), ("macos", "hvf"), ("macos", "tcg"), ("windows", "whpx"), ("windows", "tcg"),
    }  # fmt: skip
    for system, native, guest in itertools.product(HOSTS, ARCHES, ARCHES):
        assert rungs(system, native, guest)[-1] == "tcg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    img = shutil.which("qemu-img")
    if img is None:
        pytest.skip("no qemu-img here")
    made = tmp_path_factory.mktemp("a b")
    (made / "seed").mkdir()
    (made / "seed" / "env").write_text("WHERRY_CONTRACT='1'\n")
    (made / "wherry.iso").write_bytes(bytes(20480) + b"hsqs" + bytes(65536))
    (made / "initrd").write_bytes(bytes(8192))
    (made / "vmlinuz").write_bytes(BLOB)
    subprocess.run([img, "create", "-q", "-f", "qcow2", "data.qcow2", "1G"], cwd=made, check=True)
    return made


@contextlib.contextmanager
def channels(endpoint: str, folder: Path) -> Iterator[tuple[Channel, Channel, tuple[int, ...]]]:
    if endpoint == "stdio":
        yield Stdio(lock="lock.qemu"), OutputFile("serial.raw"), ()
        return
    with socket.socket(socket.AF_UNIX) as monitor, socket.socket(socket.AF_UNIX) as serial:
        for made, name in ((monitor, "q"), (serial, "s")):
            (folder / name).unlink(missing_ok=True)
            made.bind(str(folder / name))
            made.listen(1)
        yield UnixListener(monitor.fileno()), UnixListener(serial.fileno()), (monitor.fileno(), serial.fileno())


def ask(reader: IO[bytes], writer: IO[bytes], command: str) -> Any:
    writer.write(json.dumps({"execute": command}).encode() + b"\n")
    writer.flush()
    for line in reader:
        answer = json.loads(line)
        if "return" in answer or "error" in answer:
            return answer.get("return")
    raise AssertionError(f"QEMU ended at {command}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, (*case[:3], case[3][0]))))
def test_qemu_takes_it(case: tuple[str, str, str, tuple[int, int, int]], folder: Path) -> None:
    name, arch, rung, version = case
    system = next(one for one in HOSTS if name == one.NAME)
    program = shutil.which(PROGRAMS[arch])
    if program is None:
        pytest.skip(f"no {PROGRAMS[arch]} here")
    with channels(system.ENDPOINT, folder) as (qmp, serial, handed):
        boot = Boot(
            name="t", token="0123456789abcdef", arch=arch, cpus=2, memory=256 << 20, accel=rung, version=version,
            kernel="vmlinuz", initrd="initrd", iso="wherry.iso", root_offset=20480, root_size=65540 & ~511,
            data_disk="data.qcow2", seed=(("opt/wherry/env", "seed/env"),), qmp=qmp, serial=serial,
            sandbox=name == "linux" and _features(Path(program))[0],
        )  # fmt: skip
        words = softened(arguments(boot))
        with subprocess.Popen([program, *words, "-S"], cwd=folder, stdin=-1, stdout=-1, stderr=-1, pass_fds=handed) as process:
            try:
                talk(process, folder if handed else None)
                _, said = process.communicate(timeout=60)
                assert process.returncode == 0, said
            finally:
                process.kill()
    # Of an accelerator that is not built in QEMU says so and goes on; of any other word it would have ended.
    family = rung.partition(",")[0]
    foreign = [f"invalid accelerator {family}"] if family != "tcg" else []
    lines = [line for line in said.decode().splitlines() if "falling back to tcg" not in line]
    assert all(
        any(word in line for word in [*foreign, "Could not access KVM", "failed to initialize kvm"]) for line in lines
    ), said


def talk(process: subprocess.Popen[bytes], folder: Path | None) -> None:
    """Through the channel that the keeper uses on that system: the guest is there and has not run; then the end."""
    if folder is None:
        assert process.stdin is not None and process.stdout is not None
        converse(process.stdout, process.stdin)
        return
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(60)
        stream.connect(str(folder / "q"))
        with stream.makefile("rb") as reader, stream.makefile("wb") as writer:
            converse(reader, writer)


def converse(reader: IO[bytes], writer: IO[bytes]) -> None:
    assert b"QMP" in reader.readline()
    assert ask(reader, writer, "qmp_capabilities") == {}
    assert ask(reader, writer, "query-status")["status"] == "prelaunch"
    assert {disk["inserted"]["node-name"] for disk in ask(reader, writer, "query-block")} == {"root", "data"}
    assert ask(reader, writer, "quit") == {}
