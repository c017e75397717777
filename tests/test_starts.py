"""Why a program is not started: said with its file, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import host, proc
from launcher.errors import MissingOnHost, WherryError, of_start, of_system
from launcher.machine import run
from launcher.qemu import probe
from tests.fakes import make_machine
from tests.systems import not_on_windows

SECONDS = 60.0  # a hang guard


def of_windows(number: int, kind: type[OSError] = OSError) -> OSError:
    """As Python for Windows raises it, on any system."""
    error = kind(22, "refused")
    error.winerror = number  # type: ignore[attr-defined,unused-ignore]
    return error


@pytest.mark.parametrize(
    ("number", "why", "hint"),
    [
        (1260, "a policy of this computer blocks it", "AppLocker"),
        (4551, "a policy of this computer blocks it", "App Control"),
        (225, "the virus scanner takes it for harmful", "quarantine"),
        (226, "the virus scanner took it away", "quarantine"),
        (216, "it is a program for another processor", None),
    ],
)
def test_who_blocks_a_program_is_said_with_the_file(number: int, why: str, hint: str | None) -> None:
    error = of_start(r"C:\q\qemu.exe", of_windows(number))
    assert error.message == rf"C:\q\qemu.exe cannot be started: {why}."
    assert hint in error.hint if hint and error.hint else error.hint is hint


STARTS: list[Callable[..., Any]] = [
    lambda argv: proc.run(argv, timeout=SECONDS),
    proc.interactive,
    proc.spawn,
    lambda argv: proc.spawn(argv, tied={}),
]


@pytest.mark.parametrize("start", STARTS, ids=["run", "interactive", "spawn", "tied"])
@pytest.mark.parametrize("kind", [OSError, PermissionError])
def test_every_way_to_start_one_says_it(
    start: Callable[..., Any], kind: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: object, **options: object) -> None:
        raise of_windows(1260, kind)

    monkeypatch.setattr(proc.subprocess, "Popen", refused)
    with pytest.raises(MissingOnHost, match=r"^q\.exe cannot be started: a policy"):
        start(["q.exe"])


def test_a_job_that_lets_nobody_go_is_heard_of_and_a_second_try_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[dict[str, object]] = []

    def refused(*words: object, **options: object) -> None:
        tries.append(options)
        raise of_windows(5 if len(tries) == 1 else 225, PermissionError)

    monkeypatch.setattr(proc.subprocess, "Popen", refused)
    told: list[str] = []
    with pytest.raises(MissingOnHost, match="virus scanner"):
        proc.spawn(["q"], detach={"creationflags": 1}, tied={"creationflags": 0}, on_tied=lambda: told.append("tied"))
    assert [options["creationflags"] for options in tries] == [1, 0]
    assert told == []


@not_on_windows("modes")
def test_what_may_not_run_or_cannot(tmp_path: Path) -> None:
    program = tmp_path / "x"
    program.write_bytes(b"\x7fELF nothing")
    with pytest.raises(MissingOnHost, match="closed to you, or its disk lets no program run"):
        proc.run([program], timeout=SECONDS)
    program.chmod(0o755)
    with pytest.raises(MissingOnHost, match="no program for this computer"):
        proc.run([program], timeout=SECONDS)


@pytest.mark.skipif(host.current().NAME != "windows", reason="its own numbers")
def test_a_file_that_is_no_program_on_windows(tmp_path: Path) -> None:
    program = tmp_path / "é.exe"
    program.write_bytes(b"MZ nothing")
    with pytest.raises(MissingOnHost, match=r"é\.exe cannot be started: it is"):
        proc.run([program], timeout=SECONDS)


def test_a_file_that_is_in_use_is_not_said_to_be_closed(tmp_path: Path) -> None:
    error = of_windows(32, PermissionError)
    error.errno, error.filename = 13, str(tmp_path / "data.qcow2")
    found: WherryError = of_system(error)
    assert found.message == f"{tmp_path / 'data.qcow2'} is in use by another program."


@not_on_windows("which names no folder")
def test_a_folder_that_cannot_be_used_is_not_the_programs_fault(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder, said in ((file, "file"), (tmp_path / "none", "none")):
        with pytest.raises(WherryError) as caught:
            proc.run([sys.executable, "-c", ""], timeout=60, cwd=folder)
        assert said in caught.value.message and sys.executable not in caught.value.message


@pytest.mark.parametrize("there", [True, False])
def test_why_it_is_slow_is_told_once_and_needs_no_qemu_any_more(
    home: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    def find(_arch: str, _wanted: str | None) -> SimpleNamespace:
        if not there:
            raise MissingOnHost("QEMU is not installed.")
        return SimpleNamespace(program=Path("q"))

    monkeypatch.setattr(probe, "find", find)
    monkeypatch.setattr(host.current(), "accelerator_hint", lambda arch, program: f"{arch} {program}")
    directory = make_machine()
    assert run._emulation_hint(directory, "kvm") is None
    assert run._emulation_hint(directory, "tcg") == f"{directory.read_config().arch} {'q' if there else None}"
    assert run._emulation_hint(directory, "tcg") is None
