"""The helper that runs commands for the keeper: codes, signals, bytes, environment, directory, its end with its parent."""

from __future__ import annotations

import base64
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .helpers import fields, helper, request

HOME = {"HOME": "/"}


def run(*argv: str | bytes, stdin: bytes = b"", **kwargs: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([helper("exec"), request(*argv, **kwargs)], input=stdin, capture_output=True, timeout=30)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [0, 1, 7, 125, 126, 127, 130, 255])
def test_exit_code_is_the_commands_own(code: int) -> None:
    assert run("sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGPIPE, signal.SIGUSR1, signal.SIGSEGV]
)
def test_signal_becomes_128_plus_its_number(number: signal.Signals) -> None:
    assert run("sh", "-c", f"kill -{int(number)} $$").returncode == 128 + number


def test_stdout_and_stderr_stay_apart() -> None:
    result = run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.returncode) == (b"out\n", b"err\n", 7)


def test_stdin_is_binary() -> None:
    data = random.Random(1).randbytes(3_000_000)
    assert run("cat", stdin=data).stdout == data


def test_stdin_that_is_not_read_to_its_end_does_no_harm() -> None:
    assert run("head", "-c", "1", stdin=b"x" * 1_000_000).stdout == b"x"


def test_arguments_are_bytes() -> None:
    odd = [b"a b", b"", b"'\"$HOME`id`\\", b"\n\t", b"\xff\xfe", "grüße 🚢".encode()]
    result = run("printf", "%s|", *odd)
    assert result.stdout == b"".join(argument + b"|" for argument in odd)


def test_what_is_not_found_is_127_and_named() -> None:
    result = run("no-such-program")
    assert result.returncode == 127
    assert b"no-such-program: not found" in result.stderr


def test_what_cannot_be_started_is_126(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("echo hi\n")
    plain.chmod(0o644)
    assert run(str(plain)).returncode == 126
    assert run(str(tmp_path)).returncode == 126


def test_a_script_without_an_interpreter_line_is_run_by_the_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo shell $1\n")
    script.chmod(0o755)
    assert run(str(script), "x").stdout == b"shell x\n"


def test_environment_is_fresh_and_the_requests() -> None:
    environment = {**os.environ, "SECRET": "host", "TERM": "xterm-256color"}
    command = [helper("exec"), request("env", env={"TAG": "a=b", "EMPTY": "", "HOME": "/tmp"})]
    result = subprocess.run(command, env=environment, capture_output=True, check=True)
    lines = dict(line.split("=", 1) for line in result.stdout.decode().splitlines())
    assert lines["TAG"] == "a=b" and lines["EMPTY"] == "" and lines["HOME"] == "/tmp"
    assert lines["TERM"] == "xterm-256color" and lines["LANG"] == "C.UTF-8" and lines["USER"] == "root"
    assert "SECRET" not in lines


def test_program_is_looked_up_in_the_requests_path(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)
    assert run("tool", env={"PATH": f"{tmp_path}:/usr/bin:/bin"}).stdout == b"mine\n"
    assert run("tool").returncode == 127


def test_directory_is_used_when_it_exists_else_home(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    assert run("pwd", "-P", cwd=str(folder)).stdout == f"{folder.resolve()}\n".encode()
    home = {"HOME": str(tmp_path)}
    assert run("pwd", "-P", cwd="/no/such", env=home).stdout == f"{tmp_path.resolve()}\n".encode()
    assert run("pwd", "-P", env=home).stdout == f"{tmp_path.resolve()}\n".encode()


def test_request_from_a_file_which_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "request"
    arguments = [f"{number:06d}" for number in range(60_000)]
    file.write_bytes(fields("printf", "%s", *arguments))
    result = subprocess.run([helper("exec"), "-f", file], capture_output=True, check=True)
    assert result.stdout == "".join(arguments).encode()
    assert not file.exists()


def test_a_bad_file_is_removed_too(tmp_path: Path) -> None:
    file = tmp_path / "request"
    file.write_bytes(b"nonsense")
    assert subprocess.run([helper("exec"), "-f", file], capture_output=True).returncode == 126
    assert not file.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "ab=c",
        "a===",
        "MQA",
        "MQA=\n",
        "M-_A",
        base64.b64encode(b"2\0Atrue\0").decode(),
        base64.b64encode(b"1\0Atrue").decode(),
        base64.b64encode(b"1\0").decode(),
        base64.b64encode(b"1\0Xtrue\0").decode(),
        base64.b64encode(b"1\0Atrue\0ENOEQUALS\0").decode(),
        base64.b64encode(b"1\0Atrue\0E=x\0").decode(),
    ],
)
def test_a_request_that_is_none_is_refused(text: str) -> None:
    result = subprocess.run([helper("exec"), text], capture_output=True)
    assert result.returncode == 126
    assert result.stderr.startswith(b"wherry: exec: ")


def test_a_signal_to_the_group_reaches_the_command_and_the_wrapper_waits() -> None:
    script = "trap 'echo caught; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [helper("exec"), request("sh", "-c", script)], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.killpg(process.pid, signal.SIGTERM)
        assert process.stdout.read() == b"caught\n"
        assert process.wait(10) == 3


def test_a_signal_to_the_group_that_ends_the_command_is_told() -> None:
    words = request("sh", "-c", "echo up; exec sleep 60")
    with subprocess.Popen([helper("exec"), words], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) == 130


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


# Stands for sshd: starts the helper in a session of its own and tells the command's process id.
SSHD = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True).wait()"


@pytest.mark.parametrize("ignored", [False, True])
def test_the_command_dies_with_the_connection(ignored: bool, tmp_path: Path) -> None:
    # Once a command that ends by the hang-up, and tells that, once one that ignores it: the grace is 5 s.
    told = tmp_path / "told"
    trap = "trap '' HUP TERM" if ignored else f"trap 'echo >{told}; exit' HUP"
    command = request("sh", "-c", f"{trap}; echo $$; while :; do sleep 0.1; done")
    with subprocess.Popen([sys.executable, "-c", SSHD, helper("exec"), command], stdout=subprocess.PIPE) as sshd:
        assert sshd.stdout is not None
        pid = int(sshd.stdout.readline())
        assert alive(pid)
        sshd.kill()
        assert gone(pid, 15)
    assert told.exists() is not ignored


def test_the_command_dies_with_a_killed_wrapper() -> None:
    command = request("sh", "-c", "echo $$; exec sleep 60")
    with subprocess.Popen([helper("exec"), command], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait()
        assert gone(pid, 5)


def test_ignored_signals_are_not_inherited() -> None:
    # A wrapper started with SIGPIPE and SIGCHLD ignored (Python does the first itself) must not hand that on.
    command = [helper("exec"), request("sh", "-c", "grep -E 'SigIgn|SigBlk' /proc/self/status")]
    result = subprocess.run(command, capture_output=True, check=True, restore_signals=False)
    # 32 and 33 are the C library's own (nptl(7)): no program can change them, and whoever started the tests may have left one.
    own = 3 << 31
    assert [int(line.split()[1], 16) & ~own for line in result.stdout.decode().splitlines()] == [0, 0]
