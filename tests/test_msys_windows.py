"""Git Bash's rewritten words, and its terminal that is a pair of pipes."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from launcher import host
from launcher.cli import proxy
from launcher.console import Console
from launcher.host import windows
from launcher.host._msys_windows import is_mintty, rewritten

BASH = {"MSYSTEM": "MINGW64", "EXEPATH": r"D:\tools\G\bin"}


@pytest.mark.parametrize(
    "word",
    [
        "C:/Program Files/Git/code", r"C:\Users\ana\x;C:\Program Files\Git\code", "--workdir=C:/Program Files/Git/code",
        "type=bind,src=.,dst=C:/msys64/x", "D:/tools/G/code", "C:/Program Files (x86)/Git/usr", r"C:\x;D:\y",
        r"--volume=C:\x;D:\y", r"-v=C:\x;D:\y",
    ],
)  # fmt: skip
def test_a_word_that_git_bash_has_made_another_path_of(word: str) -> None:
    assert rewritten(["run", "-v", word, "debian"], BASH) == word
    assert rewritten(["run", word], {}) == ""
    assert rewritten(["run", word], BASH | {"MSYS_NO_PATHCONV": "1"}) == ""
    assert rewritten(["run", word], BASH | {"MSYS2_ARG_CONV_EXCL": "*"}) == ""


@pytest.mark.parametrize(
    "word",
    [
        r"C:\Users\ana\x:/code", "/code", "//code", "a;b", "C:/Users/ana/Gitter/x", "https://github.com/x", "echo x; ls",
        "C:/git/proj", "C:/Users/ana/git/x:/code", "D:/git/x", "src=C:/Users/a/git", r"PATH=C:\a;C:\b", r"--env=P=C:\a;C:\b",
    ],
)  # fmt: skip
def test_a_word_that_is_as_it_was_typed(word: str) -> None:
    assert rewritten(["run", word], BASH) == ""
    assert rewritten(["run", "-e", word, "-v", "C:/git/x:/x"], BASH) == ""


class Kernel32:
    """One that knows the name of a stream, or none."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    def GetFileInformationByHandleEx(self, handle: Any, kind: int, buffer: Any, size: int) -> int:
        assert kind == 2 and size == len(buffer)
        if self._name is None:
            return 0
        name = self._name.encode("utf-16-le")
        buffer.raw = (len(name).to_bytes(4, "little") + name).ljust(size, b"\0")
        return 1


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        (r"\msys-1888ae32e00d56aa-pty0-from-master", True), (r"\cygwin-e022582115c10879-pty4-to-master", True),
        (r"\msys-dd50a72ab4668b33-pty1-to-master-nat", True), (r"\wherry-default-x-engine", False), (r"\Users\a.txt", False),
        (None, False),
    ],
)  # fmt: skip
def test_its_terminal_is_known_by_its_name(name: str | None, yes: bool) -> None:
    assert is_mintty(7, Kernel32(name)) is yes


def test_a_shell_in_it_is_told_of_winpty(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(host.current(), "no_terminal", lambda: "this window is a pipe: put winpty before the command")
    machine = proxy.Machine("default", Console())
    monkeypatch.setattr(proxy.Machine, "command", lambda *_words, **_options: 0)
    assert machine.client(["docker", "run", "-it", "debian"]) == 0
    assert "wherry: this window is a pipe: put winpty before the command" in capsys.readouterr().err
    assert machine.client(["docker", "run", "debian"]) == 0
    assert capsys.readouterr().err == ""


def test_its_words_are_told_and_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(host.current(), "rewritten_words", windows.rewritten_words)
    for name in ("MSYS_NO_PATHCONV", "MSYS2_ARG_CONV_EXCL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in BASH.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(proxy, "_docker", lambda _machine, _words: 0)
    assert proxy._dispatch("docker", "default", ["run", "-w", "C:/Program Files/Git/code", "x"], Console()) == 0
    assert "C:/Program Files/Git/code is what this shell has made of a path: MSYS_NO_PATHCONV=1" in capsys.readouterr().err


@pytest.mark.skipif(host.current().NAME != "windows", reason="pipes with names are of Windows")
def test_a_real_pipe_of_that_name() -> None:
    from launcher.host import pipes

    for name, yes in (("msys-1888ae32e00d56aa-pty0-from-master", True), ("wherry-test-mintty", False)):
        with contextlib.closing(pipes.Listening(rf"\\.\pipe\{name}")) as listening:
            assert is_mintty(listening._next) is yes
    assert windows.no_terminal() == ""
