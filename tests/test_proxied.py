"""launcher.cli.proxied: the client as a process of its own, with real pipes, terminals and signals."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.ssh.transport import WINDOW
from tests.fakekeeper import Keeper, keeper
from tests.guestserver import Guest, guest

# As launcher.cli.proxy does it. Sub-processes of a test run may have signals ignored that a user's shell leaves alone.
CLIENT = """
import json, signal, sys
from pathlib import Path
for name in ("INT", "QUIT", "HUP", "TERM"):
    signal.signal(getattr(signal, "SIG" + name), signal.SIG_DFL)
path, more, *argv = sys.argv[1:]
more = {"env": {}, "cwd": None, "tty": False, "client": False, **json.loads(more)}
if more.pop("nohup", False):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
from launcher.cli import proxied
from launcher.errors import WherryError
try:
    sys.exit(proxied.run_exec(Path(path), argv, **more))
except WherryError as error:
    print("wherry:", error.message, file=sys.stderr)
    sys.exit(125)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guest]:
    with guest(tmp_path) as made:
        yield made


@pytest.fixture
def served(server: Guest) -> Iterator[Keeper]:
    with keeper(server.connect()) as made:
        yield made


def command(served: Keeper, argv: list[str], more: str = "{}") -> list[str]:
    return [sys.executable, "-c", CLIENT, str(served.path), more, *argv]


def run(served: Keeper, argv: list[str], more: str = "{}", **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(served, argv, more), capture_output=True, check=False, timeout=60, **options)


def start(served: Keeper, argv: list[str], more: str = "{}", **options: Any) -> subprocess.Popen[bytes]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command(served, argv, more), **pipes)


def finish(process: subprocess.Popen[bytes]) -> int:
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return process.wait(60)


def test_streams_are_separate_and_the_exit_code_is_the_commands(served: Keeper) -> None:
    done = run(served, ["sh", "-c", "cat; printf '\\000\\377' >&2; exit 7"], input=b"\0\xff\r\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"\0\xff\r\n", b"\0\xff")


def test_20_mb_both_ways_come_back_identical(served: Keeper) -> None:
    data = os.urandom(20_000_000)
    done = run(served, ["cat"], input=data)
    assert done.returncode == 0
    assert done.stdout == data


def test_environment_directory_and_terminal_go_along(served: Keeper, tmp_path: Path) -> None:
    done = run(served, ["sh", "-c", 'echo "$A"; pwd'], f'{{"env": {{"A": "b"}}, "cwd": "{tmp_path}", "ensure_hello": true}}')
    assert (done.returncode, done.stdout, done.stderr) == (0, f"b\n{tmp_path}\n".encode(), b"")
    assert {name: served.requests[0][name] for name in ("verb", "tty", "client", "ensure_hello")} == {
        "verb": "exec", "tty": False, "client": False, "ensure_hello": True,
    }  # fmt: skip


def test_it_ends_with_the_command_though_its_input_goes_on(served: Keeper) -> None:
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as yes:
        done = run(served, ["head", "-n", "1"], stdin=yes.stdout)
        yes.kill()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"y\n", b"")


def test_it_ends_with_the_command_though_its_input_stays_open(served: Keeper) -> None:
    process = start(served, ["true"])
    assert process.wait(60) == 0
    finish(process)


def test_without_stdin_ours_is_left_alone(served: Keeper) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"for the next command")
    done = run(served, ["cat"], '{"stdin": false}', stdin=reading)
    assert (done.returncode, done.stdout) == (0, b"")
    assert os.read(reading, 100) == b"for the next command"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_nobody_reads_our_output(served: Keeper, server: Guest, which: str) -> None:
    process = start(served, ["sh", "-c", "exec yes" if which == "stdout" else "exec yes >&2"])
    stream = getattr(process, which)
    assert stream.read(2) == b"y\n"
    stream.close()
    assert process.wait(60) == 141
    other = process.stderr if which == "stdout" else process.stdout
    assert other is not None
    assert other.read() == b""  # quiet, as SIGPIPE is
    server.wait(lambda: server.signals == ["KILL"])
    finish(process)


@pytest.mark.parametrize(
    ("name", "code"), [("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131), ("USR1", 138), ("USR2", 140)]
)
def test_signals_are_the_commands(served: Keeper, server: Guest, name: str, code: int) -> None:
    process = start(served, ["sh", "-c", "echo on; exec sleep 1000"])
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.wait(60) == code
    assert server.signals == [name]
    finish(process)


def test_a_signal_passes_input_that_nobody_takes(served: Keeper, server: Guest) -> None:
    process = start(served, ["sh", "-c", "echo on; exec sleep 1000"])
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    os.set_blocking(process.stdin.fileno(), False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(process.stdin.fileno(), bytes(65536))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    finish(process)


def test_a_signal_passes_output_that_nobody_takes(served: Keeper, server: Guest) -> None:
    process = start(served, ["sh", "-c", "exec head -c 200000000 /dev/zero"])
    assert process.stdout is not None
    assert process.stdout.read(1) == b"\0"
    process.send_signal(signal.SIGINT)
    server.wait(lambda: server.signals == ["INT"])
    rest = process.stdout.read()
    assert process.wait(60) == 130
    assert len(rest) < 200_000_000 - WINDOW
    finish(process)


def test_a_signal_that_was_ignored_stays_ignored(served: Keeper, server: Guest) -> None:
    process = start(served, ["sh", "-c", "echo on; exec sleep 1000"], '{"nohup": true}')
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert server.signals == ["TERM"]
    finish(process)


def test_killed_it_takes_the_command_along(served: Keeper, server: Guest) -> None:
    process = start(served, ["sh", "-c", "echo on; exec sleep 1000"])
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    server.wait(lambda: server.signals == ["KILL"])
    finish(process)


@pytest.mark.parametrize("what", ["keeper", "machine"])
def test_an_unknown_end_is_said(served: Keeper, server: Guest, what: str) -> None:
    process = start(served, ["sh", "-c", "echo on; exec sleep 1000"])
    assert process.stdout is not None
    process.stdout.readline()
    served.die() if what == "keeper" else server.drop()
    assert process.wait(60) == 125
    assert process.stderr is not None
    words = process.stderr.read().decode()
    assert words.startswith("wherry: the keeper ended" if what == "keeper" else "wherry: the connection to the machine ended")
    finish(process)


def test_what_keeps_a_command_from_starting_is_said(served: Keeper, server: Guest) -> None:
    server.refused.add("exec")
    done = run(served, ["true"])
    assert (done.returncode, done.stderr) == (125, b"wherry: true was not started in the machine: Channel closed.\n")


def test_nothing_slow_is_imported() -> None:
    code = (
        "import sys; from launcher.cli import proxied; from launcher import host; host.current().terminal();"
        "slow = {'paramiko', 'requests', 'pycdlib', 'psutil', 'tqdm', 'click', 'cryptography', 'logging', 'subprocess'};"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# With a terminal.


class Screen:
    """The user's terminal: we hold its other end."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(11, 42)
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def start(self, served: Keeper, argv: list[str]) -> subprocess.Popen[bytes]:
        return start(served, argv, '{"tty": true}', stdin=self.slave, stdout=self.slave, stderr=self.slave)

    def until(self, text: bytes) -> None:
        while text not in self.seen:
            self.seen += os.read(self.master, 1000)
        self.seen = self.seen.partition(text)[2]

    @property
    def raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    @property
    def restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    os.close(made.master)
    os.close(made.slave)


def test_keys_go_as_they_are_and_the_screen_is_restored(served: Keeper, server: Guest, screen: Screen) -> None:
    process = screen.start(served, ["sh", "-c", "stty raw -echo; echo on; head -c 3 | od -An -tx1"])
    screen.until(b"on")
    assert screen.raw
    os.write(screen.master, b"\x03\x1a\r")
    screen.until(b"03 1a 0d")
    assert process.wait(60) == 0
    assert screen.restored
    assert server.terminals == [(os.environ.get("TERM", "xterm"), 11, 42)]


def test_a_signal_from_elsewhere_reaches_a_command_with_a_terminal(served: Keeper, server: Guest, screen: Screen) -> None:
    process = screen.start(served, ["sh", "-c", "trap 'exit 9' INT; echo on; while :; do :; done"])
    screen.until(b"on")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 9
    assert server.signals == ["INT"]
    assert screen.restored


def test_a_resize_arrives(served: Keeper, server: Guest, screen: Screen) -> None:
    process = screen.start(served, ["sh", "-c", "echo on; read line"])
    screen.until(b"on")
    screen.resize(30, 100)
    process.send_signal(signal.SIGWINCH)
    server.wait(lambda: server.sizes == [(30, 100)])
    os.write(screen.master, b"\n")
    assert process.wait(60) == 0


@pytest.mark.parametrize("how", ["lost", "term"])
def test_the_screen_is_restored_however_it_ends(served: Keeper, server: Guest, screen: Screen, how: str) -> None:
    process = screen.start(served, ["sh", "-c", "echo on; exec sleep 1000"])
    screen.until(b"on")
    assert screen.raw
    if how == "term":
        process.terminate()
    else:
        served.die()
    assert process.wait(60) == (143 if how == "term" else 125)
    assert screen.restored


def test_stopped_it_gives_the_screen_back_and_takes_it_again(served: Keeper, server: Guest, screen: Screen) -> None:
    process = screen.start(served, ["sh", "-c", 'echo on; read line; echo "got $line"'])
    screen.until(b"on")
    process.send_signal(signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    assert screen.restored
    screen.resize(30, 100)
    process.send_signal(signal.SIGCONT)
    server.wait(lambda: server.sizes == [(30, 100)])
    os.write(screen.master, b"x\n")
    screen.until(b"got x")
    assert process.wait(60) == 0
    assert screen.restored
