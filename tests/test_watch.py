"""The keeper's ears: console lines, stages, patience."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from launcher import readiness
from launcher.errors import NoProgress, Refused
from launcher.keeper import console
from launcher.keeper.console import BoundedLog, Console, tail
from launcher.keeper.journal import Journal
from launcher.keeper.watch import Cancelled, Ended, Stalled, Watch
from launcher.readiness import Line, Patience

LONG = Patience(first=60, later=60)


def heard() -> tuple[Watch, list[Line]]:
    lines: list[Line] = []
    return Watch(lines.append), lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("wherry-stage kernel 2.91", Line("stage", "kernel", "2.91")),
        ("wherry-note engine-config unknown key: x", Line("note", "engine-config", "unknown key: x")),
        ("wherry-stop begin 30.10", Line("stop", "begin", "30.10")),
        ("wherry-fail disk /dev/vdb holds xfs", Line("fail", "disk", "/dev/vdb holds xfs")),
        ("[    2.1] wherry-stage kernel 2.91", None),
        ("wherry-stage", None),
        ("wherry-other kernel 1", None),
        ("", None),
    ],
)
def test_lines(text: str, line: Line | None) -> None:
    assert readiness.parse(text) == line


@pytest.mark.parametrize(
    ("text", "panic"),
    [
        ("[    2.1] Kernel panic - not syncing: Fatal exception", True),
        ("[    2.0] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI", True),
        ("[    2.0] Loops: none", False),
        ("wherry-stage kernel 2.9", False),
    ],
)
def test_panics(text: str, panic: bool) -> None:
    assert readiness.is_panic(text) is panic


def test_stages_are_heard_once_and_in_order() -> None:
    watch, lines = heard()
    for text in ("wherry-stage kernel 1", "noise", "wherry-stage root 2", "wherry-stage kernel 3"):
        watch.on_line(text)
    watch.wait_stage("root", LONG)
    assert watch.stages == ["kernel", "root"]
    assert [line.name for line in lines] == ["kernel", "root"]


def test_waiting_ends_when_the_stage_comes_later() -> None:
    watch, _ = heard()
    thread = threading.Thread(target=watch.on_line, args=("wherry-stage ready 9",))
    thread.start()
    watch.wait_stage("ready", LONG)
    thread.join()


def test_waiting_ends_with_qemu_with_a_stop_and_with_silence() -> None:
    watch, _ = heard()
    with pytest.raises(Stalled):
        watch.wait_stage("kernel", Patience(first=0, later=60))
    watch.cancel()
    with pytest.raises(Cancelled):
        watch.wait_stage("kernel", LONG)
    watch.on_exit(0)
    with pytest.raises(Ended):
        watch.wait_stage("kernel", LONG)
    assert watch.wait_end(0)


def test_patience_is_longer_once_the_guest_speaks() -> None:
    watch, _ = heard()
    watch.on_line("wherry-stage kernel 1")
    with pytest.raises(Stalled):
        watch.wait_stage("root", Patience(first=60, later=0))


def test_a_failure_of_the_guest_ends_the_wait() -> None:
    watch, _ = heard()
    watch.on_line("wherry-fail disk holds xfs")
    watch.wait_stage("disk", LONG)
    assert watch.failure == Line("fail", "disk", "holds xfs")


def test_the_first_panic_line_is_kept() -> None:
    watch, lines = heard()
    watch.on_line("Oops: int3: 0000 [#1]")
    watch.on_line("Kernel panic - not syncing: x")
    assert watch.panic == "Oops: int3: 0000 [#1]"
    assert lines == []


def test_a_stop_is_noticed() -> None:
    watch, _ = heard()
    assert not watch.wait_stop(0)
    watch.on_line("wherry-stop begin 30")
    assert watch.wait_stop(0)
    assert not watch.wait_end(0)


def test_the_stage_that_is_missing_is_named_with_its_hint() -> None:
    error = readiness.stalled(["kernel", "root", "ssh", "disk"], 300.0, "last words")
    assert isinstance(error, NoProgress)
    assert "engine" in error.message.lower()
    assert error.hint == "wherry logs engine"
    assert error.detail == "last words"


def test_a_guest_that_gives_up_is_quoted() -> None:
    assert "disk: no such disk" in readiness.failed(Line("fail", "disk", "no such disk"), "", "default").message


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("disk-foreign", "it holds an xfs {file} system. It was not touched", "repair --new-disk shop"),
        ("disk-damaged", readiness.DAMAGED_WORDS, "wherry repair shop"),
        ("disk-layout", "it holds an xfs {file} system", "upgrade"),
    ],
)
def test_a_disk_that_is_not_used_is_a_refusal_with_a_way_on(name: str, words: str, hint: str) -> None:
    error = readiness.failed(Line("fail", name, "it holds an xfs {file} system"), "tail", "shop")
    assert isinstance(error, Refused)
    assert words in error.message and hint in (error.hint or "") and error.detail == "tail"


def test_the_console_splits_lines_and_logs_every_byte(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    lines: list[str] = []
    byte = threading.Event()
    listener = Console(ours, tmp_path / "serial.log", lines.append, byte.set)
    listener.start()
    with theirs:
        for piece in (b"wherry-sta", b"ge kernel 1.0\r\nnoise \xff\r\nhalf", b" a line"):
            theirs.sendall(piece)
    listener.join(10)
    listener.close()
    assert lines == ["wherry-stage kernel 1.0", "noise \ufffd"]
    assert byte.is_set()
    assert (tmp_path / "serial.log").read_bytes() == b"wherry-stage kernel 1.0\r\nnoise \xff\r\nhalf a line"


def test_the_log_is_bounded_and_keeps_what_was_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LARGEST_LOG", 100)
    log = BoundedLog(tmp_path / "log")
    for number in range(20):
        log.write(b"%09d\n" % number)
    log.close()
    kept = (tmp_path / "log.1").read_bytes() + (tmp_path / "log").read_bytes()
    assert len((tmp_path / "log").read_bytes()) <= 100
    assert kept.endswith(b"000000019\n")
    assert len(kept.splitlines()) == 20


def test_tail(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\r\n".join(b"%d" % number for number in range(50)))
    assert tail(tmp_path / "log", 2) == "48\n49"
    assert tail(tmp_path / "none") == ""


def test_the_journal_tells_the_past_and_the_future() -> None:
    journal = Journal()
    journal.add({"event": "stage", "name": "kernel"})
    follower = journal.follow()
    assert next(follower)["name"] == "kernel"
    thread = threading.Thread(target=journal.add, args=({"event": "ready"},))
    thread.start()
    assert next(follower) == {"event": "ready"}
    thread.join()
    assert journal.find("ready") == {"event": "ready"}
    assert journal.find("failed") is None
    assert journal.wait(lambda event: event["event"] == "ready") == {"event": "ready"}
    assert journal.wait(lambda event: event["event"] == "no", timeout=0) is None
