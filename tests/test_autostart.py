"""`wherry autostart`: what each system is told, and the doorman that it starts, with real keepers and a small guest."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import plistlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from launcher import control, store
from launcher.errors import Damaged, MissingOnHost, WherryError
from launcher.host import _login_linux, _login_macos, _login_windows
from launcher.host.login import LoginItem
from launcher.keeper import diary
from launcher.machine import autostart, doorman, inspect
from launcher.machine.stop import delete, stop
from launcher.machine.suspend import suspend
from tests.conftest import Said
from tests.fakes import make_machine
from tests.test_doctor import checks, qemu
from tests.test_suspend import OFF, QUIET, SUSPENDED, Mini, ask_engine, mini, wait_until

__all__ = ["mini", "qemu"]  # fixtures
Wherry = Callable[..., Said]

ODD = ("/opt/a b/python", "-P", 'quo"te', "per%cent", "dol$lar", "back\\slash", "end\\", "", "-m", "x")
ITEM = LoginItem("wherry-default", "wherry machine default", (sys.executable, *ODD[1:]), "/usr/bin:/opt/100% $real/bin", 120)


# What each system is told.


def test_the_unit(tmp_path: Path) -> None:
    text = _login_linux.unit(LoginItem("x", "a machine", ("/usr/bin/python3", "-m", "y"), "/usr/bin:/bin", 120))
    assert text == (
        '[Unit]\nDescription=a machine\n\n[Service]\nType=exec\nExecStart="/usr/bin/python3" "-m" "y"\n'
        'Environment="PATH=/usr/bin:/bin"\nKillMode=mixed\nTimeoutStopSec=120\n\n[Install]\nWantedBy=default.target\n'
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "wherry-default.service"

    def verify() -> str:
        words = ["systemd-analyze", "--user", "verify", str(file)]
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        return done.stderr

    file.write_text(_login_linux.unit(ITEM))
    assert verify() == ""
    file.write_text(_login_linux.unit(ITEM).replace("Type=exec", "Type=exact").replace("KillMode=mixed", "KillMode=some"))
    assert "service type" in verify() and "kill mode" in verify()  # it can fail


@pytest.fixture
def booted(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer run by systemd, whose manager does not answer; the folder of the user's units."""
    monkeypatch.setattr(_login_linux, "_RUNS", tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{tmp_path}/per%cent")
    return tmp_path / "config" / "systemd" / "user"


def test_words_come_back_from_the_unit(booted: Path) -> None:
    place = _login_linux.enable(ITEM)
    assert place == str(booted / "wherry-default.service") and _login_linux.read("wherry-default") == ITEM.argv
    wanted = booted / "default.target.wants" / "wherry-default.service"
    assert wanted.resolve() == Path(place) and sorted(path.name for path in booted.iterdir())[-1] == "wherry-default.service"
    _login_linux.enable(ITEM)  # once more is no harm
    assert _login_linux.disable("wherry-default", end=True) and not os.path.lexists(wanted) and not Path(place).exists()
    assert not _login_linux.disable("wherry-default", end=True) and _login_linux.read("wherry-default") is None


def test_without_systemd_it_says_what_to_start(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_login_linux, "_RUNS", tmp_path / "none")
    with pytest.raises(MissingOnHost) as caught:
        _login_linux.enable(ITEM)
    assert 'quo"te' in (caught.value.hint or "")


def test_the_agent_of_macos(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    place = Path(_login_macos.enable(ITEM))
    assert place == tmp_path / "Library" / "LaunchAgents" / "wherry-default.plist"
    values = plistlib.loads(place.read_bytes())
    assert values["ProgramArguments"] == list(ITEM.argv) and values["EnvironmentVariables"] == {"PATH": ITEM.path}
    assert (values["Label"], values["RunAtLoad"], values["KeepAlive"]) == ("wherry-default", True, False)
    assert values["ExitTimeOut"] == 120 and values["ProcessType"] == "Interactive"
    assert _login_macos.read("wherry-default") == ITEM.argv and _login_macos.labels("wherry-") == ["wherry-default"]
    place.write_bytes(b"<plist")
    with pytest.raises(Damaged, match="cannot be read"):
        _login_macos.read("wherry-default")
    assert _login_macos.disable("wherry-default", end=False) and _login_macos.read("wherry-default") is None
    assert not _login_macos.disable("wherry-default", end=False)


def test_the_line_of_windows() -> None:
    item = ITEM._replace(argv=(r"C:\Program Files\Wherry\python\python.exe", "-P", "-m", "launcher.machine.doorman", "default"))
    assert _login_windows.value(item) == r'"C:\Program Files\Wherry\python\pythonw.exe" -P -m launcher.machine.doorman default'
    with pytest.raises(WherryError, match="too long"):
        _login_windows.enable(item._replace(argv=(*item.argv, "x" * 300)))


class Registry:
    """As much of winreg as a value takes (docs.python.org/3/library/winreg.html)."""

    HKEY_CURRENT_USER, KEY_SET_VALUE, REG_SZ = "HKCU", 2, 1

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.access: list[int] = []

    @contextmanager
    def OpenKey(self, root: str, path: str, _reserved: int = 0, access: int = 0x20019) -> Iterator[dict[str, str]]:
        assert (root, path) == ("HKCU", r"Software\Microsoft\Windows\CurrentVersion\Run")
        self.access.append(access)
        yield self.values

    CreateKeyEx = OpenKey

    def SetValueEx(self, key: dict[str, str], name: str, _reserved: int, kind: int, value: str) -> None:
        assert (kind, self.access[-1]) == (self.REG_SZ, self.KEY_SET_VALUE)
        key[name] = value

    def QueryValueEx(self, key: dict[str, str], name: str) -> tuple[str, int]:
        if name not in key:
            raise FileNotFoundError(2, "The system cannot find the file specified")
        return key[name], self.REG_SZ

    def QueryInfoKey(self, key: dict[str, str]) -> tuple[int, int, int]:
        return 0, len(key), 0

    def EnumValue(self, key: dict[str, str], number: int) -> tuple[str, str, int]:
        return list(key)[number], "", self.REG_SZ

    def DeleteValue(self, key: dict[str, str], name: str) -> None:
        if name not in key:
            raise FileNotFoundError(2, "The system cannot find the file specified")
        del key[name]


def test_the_value_of_windows_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    monkeypatch.setattr(_login_windows, "_registry", lambda: registry)
    item = ITEM._replace(argv=(r"C:\w\python.exe", "-m", "launcher.machine.doorman", "default", "--home", r"D:\my machines"))
    assert _login_windows.read("wherry-default") is None and not _login_windows.disable("wherry-default", end=True)
    assert _login_windows.enable(item) == r"HKCU\Software\Microsoft\Windows\CurrentVersion\Run\wherry-default"
    assert _login_windows.read("wherry-default") == (r"C:\w\pythonw.exe", *item.argv[1:])
    registry.values["other"] = "stays"
    assert _login_windows.labels("wherry-") == ["wherry-default"]
    assert _login_windows.disable("wherry-default", end=False) and registry.values == {"other": "stays"}


def test_who_waits_on_windows_is_ended_by_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without signals, whatever its interpreter calls itself, and if it is this user's."""
    words = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)", secrets.token_hex(8)]
    other = [*words[:3], secrets.token_hex(8)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as one, subprocess.Popen(other, stdout=subprocess.PIPE) as two:
        try:
            for process in (one, two):
                assert process.stdout is not None and process.stdout.readline()
            with monkeypatch.context() as patch:
                patch.setattr(psutil.Process, "username", lambda process: "me" if process.pid == os.getpid() else "somebody")
                _login_windows._end((r"C:\Python\pythonw.exe", *words[1:]))
            assert one.poll() is None
            _login_windows._end((r"C:\Python\pythonw.exe", *words[1:]))
            assert not psutil.pid_exists(one.pid) and two.poll() is None
        finally:
            one.kill()
            two.kill()


def test_words_come_back_from_the_line_of_windows() -> None:
    parts = ["a", " ", '"', "\\", "\\\\", "\t"]
    for size in range(5):
        for letters in itertools.product(parts, repeat=size):
            argv = ("".join(letters), "b")
            assert _login_windows.words(_login_windows.value(ITEM._replace(argv=argv))) == argv


# The verb.


@pytest.mark.skipif(sys.platform != "linux", reason="the units of systemd")
def test_enable_status_disable(booted: Path, wherry: Wherry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert wherry("autostart", "enable").code == 3  # there is no machine yet
    make_machine()
    assert wherry("autostart", "status") == Said(0, "disabled\n", "")
    said = wherry("autostart", "enable")
    assert said.code == 0 and "starts with the first use" in said.err and str(booted) in said.err
    assert wherry("autostart", "status").out == "enabled, with its first use\n"
    assert wherry("autostart", "enable", "--now").code == 0
    assert json.loads(wherry("autostart", "status", "--json").out)["data"] == {
        "name": "default", "enabled": True, "now": True, "program": sys.executable,
    }  # fmt: skip
    words = _login_linux.read("wherry-default")
    assert words == (
        sys.executable, "-P", "-m", "launcher.machine.doorman", "default", "--now", "--home", str(store.home())
    )  # fmt: skip
    # The machine of another home with that name has it.
    monkeypatch.setenv("WHERRY_HOME", str(tmp_path / "other"))
    make_machine()
    assert wherry("autostart", "status").out == "disabled\n"
    said = wherry("autostart", "enable")
    assert said.code == 6 and f"WHERRY_HOME={tmp_path}/home wherry autostart disable default" in said.err
    assert "did not start" in wherry("autostart", "disable").err
    monkeypatch.setenv("WHERRY_HOME", str(tmp_path / "home"))
    assert "no more" in wherry("autostart", "disable").err and not list(booted.glob("*.service"))


@pytest.mark.skipif(sys.platform != "linux", reason="the units of systemd")
def test_delete_and_uninstall_take_it_along(booted: Path, wherry: Wherry) -> None:
    for name in ("one", "two"):
        make_machine(name)
        assert wherry("autostart", "enable", name).code == 0
    assert wherry("delete", "--yes", "one").code == 0
    assert [path.name for path in booted.glob("*.service")] == ["wherry-two.service"]
    assert wherry("autostart", "enable", "--now", "two").code == 0
    shutil.rmtree(make_machine("gone").path)  # by hand
    _login_linux.enable(ITEM._replace(label="wherry-gone", argv=("x", "--home", str(store.home()))))
    _login_linux.enable(ITEM._replace(label="wherry-else", argv=("x", "--home", "/other")))
    said = wherry("uninstall", "--keep").err
    assert "two starts at login no more.\n" in said and "gone starts at login no more.\n" in said
    assert [path.name for path in booted.glob("*.service")] == ["wherry-else.service"]
    assert _login_linux.disable("wherry-else", end=False)
    assert not list(booted.glob("*.service"))


@pytest.mark.skipif(sys.platform != "linux", reason="the units of systemd")
def test_doctor_knows_a_program_that_is_gone(booted: Path, qemu: Path, wherry: Wherry, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "autostart" not in checks(wherry)  # without a machine, too
    make_machine()
    assert "autostart" not in checks(wherry)
    assert wherry("autostart", "enable", "--now").code == 0
    assert checks(wherry)["autostart"]["text"] == "default starts at login"
    unit = booted / "wherry-default.service"
    unit.write_text(unit.read_text().replace(sys.executable, "/gone/python"))
    found = checks(wherry)["autostart"]
    assert (found["status"], found["step"]) == ("warning", "wherry autostart enable --now") and "/gone/python" in found["text"]


# The doorman.


@contextmanager
def at_login(*more: str, also: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """The doorman of the default machine, as its login item calls it, but with keepers of the small guest; and with what is
    done `also` before it begins."""
    item = autostart._words(store.machine("default"), "--now" in more)
    assert item[:4] == (sys.executable, "-P", "-m", "launcher.machine.doorman")
    code = (
        "import sys\nfrom launcher.machine import create, doorman, run\n"
        "run.KEEPER = 'tests.miniguest'\ndoorman._LOOKS_EVERY = 0.2\n"
        f"create._have_iso = lambda *_: None\n{also}\nsys.exit(doorman.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", code, *item[4:]]
    with subprocess.Popen(words, cwd=Path(__file__).parent.parent, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def listens(mini: Mini) -> bool:
    """And not only has its place. Who comes and asks for nothing wakes no machine."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(mini.directory.engine_socket))
        return True
    return False


def off(mini: Mini) -> bool:
    return not mini.directory.keeper_lives() and not mini.directory.qemu_runs()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """The doorman's end as a logout brings it about."""
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_the_first_call_starts_the_machine_and_logout_stops_it(mini: Mini, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATIENCE", "0.1")  # this guest knows no power button
    with at_login() as process:
        wait_until(lambda: listens(mini))
        assert (
            off(mini)
            and inspect.status("default")["status"] == "stopped"
            and mini.directory.engine_socket.stat().st_mode & 0o77 == 0
        )
        with socket.socket(socket.AF_UNIX) as looks:  # as a program does that looks whether there is an engine
            looks.connect(str(mini.directory.engine_socket))
        early = socket.socket(socket.AF_UNIX)
        early.settimeout(60)
        early.connect(str(mini.directory.engine_socket))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert off(mini)
        with ThreadPoolExecutor(4) as crowd:  # several that come at once
            assert all(answer.startswith(b"HTTP/1.1 200") for answer in crowd.map(lambda _: ask_engine(mini), range(4)))
        assert inspect.status("default")["status"] == "running"
        assert control.status(mini.directory.control_socket)["keeper_pid"] != process.pid
        with early:  # who came first has something to ask now
            early.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
            assert early.recv(12) == b"HTTP/1.1 200"
        code, said = ended(process)
    assert code == 0 and b"a client calls: starting default" in said and b"stopping default" in said
    assert off(mini) and mini.names == OFF and not mini.directory.run_dir.exists()


def test_one_that_is_suspended_is_resumed(mini: Mini, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATIENCE", "0.1")
    mini.up()
    before = mini.count()
    suspend("default", QUIET)
    with at_login() as process:
        wait_until(lambda: listens(mini))
        assert mini.names == SUSPENDED and inspect.status("default")["status"] == "suspended"
        assert ask_engine(mini).startswith(b"HTTP/1.1 200")
        assert mini.count() > before
        ended(process)
    assert off(mini)


def test_with_now_it_starts_at_once(mini: Mini, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATIENCE", "0.1")
    with at_login("--now") as process:
        wait_until(lambda: inspect.status("default")["status"] == "running")
        assert ended(process)[0] == 0
    assert off(mini)


def test_nobody_comes(mini: Mini) -> None:
    with at_login() as process:
        wait_until(lambda: listens(mini))
        assert ended(process) == (0, f"wherry.doorman: waiting at {mini.directory.engine_socket}\n".encode())
    assert not mini.directory.run_dir.exists()


# Right after that function.
ENDS_AFTER = """
import os, signal
from launcher.keeper import listener
def then(function):
    def both(*args, **more):
        done = function(*args, **more)
        os.kill(os.getpid(), signal.SIGTERM)
        return done
    return both
{place}.{name} = then({place}.{name})
"""


@pytest.mark.parametrize(
    "moment",
    [
        ENDS_AFTER.format(place="listener", name="bound"),
        "doorman.Door.wait = lambda *_: False" + ENDS_AFTER.format(place="doorman.Door", name="_is_ours"),
    ],
    ids=["opens", "closes"],
)
def test_the_session_ends_while_the_doorman(mini: Mini, moment: str) -> None:
    with at_login(also=moment) as process:
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, f"wherry.doorman: waiting at {mini.directory.engine_socket}\n".encode())
    assert not mini.directory.run_dir.exists()


FAILS = """
from launcher.errors import WherryError
def fails(*_, **__):
    raise WherryError("not now")
run.up = fails
"""


def test_a_start_that_never_began_leaves_no_socket(mini: Mini) -> None:
    with at_login(also=FAILS) as process:
        wait_until(lambda: listens(mini))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(mini.directory.engine_socket))
            client.sendall(b"GET /_ping HTTP/1.1\r\n")
            wait_until(lambda: not mini.directory.engine_socket.exists())
        assert process.poll() is None
        assert ended(process)[0] == 1


BEGINS = """
import os, sys
from pathlib import Path
from launcher.keeper import __main__, server
from tests import miniguest
miniguest.play(Path(os.environ["MINI_ISO"]), int(os.environ["SSHD_PORT"]), Path(os.environ["REST"]))
sys.argv[1:] = ["default"]
"""


def test_the_session_ends_while_a_keeper_begins(mini: Mini) -> None:
    code = BEGINS + ENDS_AFTER.format(place="server.Server", name="start") + "sys.exit(__main__.main())"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, timeout=120, stdout=subprocess.DEVNULL)
    assert off(mini) and not mini.directory.control_socket.exists() and not mini.directory.engine_socket.exists()


def test_another_command_starts_it_and_stops_it(mini: Mini, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATIENCE", "0.1")
    with at_login() as process:
        wait_until(lambda: listens(mini))
        mini.up()
        assert ask_engine(mini).startswith(b"HTTP/1.1 200")
        stop("default", False, QUIET)
        # What its user has stopped, no client starts again behind their back.
        assert off(mini) and not mini.directory.engine_socket.exists() and process.poll() is None
        mini.up()
        assert ended(process)[0] == 0
        assert off(mini)  # the session's end stops it, whoever started it


def test_its_machine_is_deleted(mini: Mini, monkeypatch: pytest.MonkeyPatch) -> None:
    with at_login() as process:
        wait_until(lambda: listens(mini))
        delete("default", False, QUIET)
        assert process.wait(60) == 0
    with at_login() as process:
        assert process.wait(60) == 0 and process.stderr is not None
        assert b"there is no machine default any more" in process.stderr.read()


def test_a_start_that_fails_is_told_to_the_client_and_not_tried_again(mini: Mini, monkeypatch: pytest.MonkeyPatch) -> None:
    mini.directory.data_disk.write_bytes(b"no disk")
    with at_login() as process:
        wait_until(lambda: listens(mini))
        answer = ask_engine(mini)
        assert answer.startswith(b"HTTP/1.1 5"), answer
        wait_until(lambda: not mini.directory.engine_socket.exists())
        assert process.stderr is not None
        said = [process.stderr.readline() for _ in range(3)]
        assert said[2].startswith(b"wherry.doorman: ") and b"data.qcow2" in said[2], said
        assert process.poll() is None
        assert ended(process)[0] == 1


@pytest.mark.parametrize("failure", [Damaged("no disk"), OSError(5, "no"), ValueError("a mistake of ours")], ids=type)
def test_the_session_ends_while_a_failure_is_said(home: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    directory = make_machine()

    def fails(*_args: object, **_more: object) -> None:
        raise failure

    class Ends(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise doorman.SessionEnds  # as the signal does in the middle of anything

    monkeypatch.setattr(doorman, "attend", fails)
    monkeypatch.setattr(doorman.log, "handlers", [Ends()])
    assert doorman._guard(directory, doorman.Session(), now=False) == 1


@pytest.mark.parametrize("there", [True, False], ids=["a machine", "none"])
def test_without_streams_it_keeps_a_diary(home: Path, there: bool) -> None:
    """As on Windows, where pythonw gives it none; a file that it held open could not be removed there."""
    directory = store.machine("default")
    if there:
        make_machine()
        (directory.path / "machine.toml").write_text("no TOML")
    code = (
        "import os, sys\nfor number in 0, 1, 2:\n os.close(number)\nsys.stdin = sys.stdout = sys.stderr = None\n"
        "from launcher import host\nfrom launcher.machine import doorman, run\n"
        "host.current().SIGNALS_END = False\n"
        "sys.exit(doorman.main(['default', '--now']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, timeout=60, check=False)
    file = directory.path / "doorman.log"
    assert (done.returncode, file.exists(), directory.path.exists()) == ((1, True, True) if there else (0, False, False))
    if there:
        said = file.read_text(encoding="utf-8")
        assert " ERROR wherry.doorman: " in said and "machine.toml" in said and file.stat().st_mode & 0o77 == 0


def test_a_diary_is_bounded_and_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diary, "_LOG_BYTES", 1000)
    log, root = logging.getLogger("wherry.test"), logging.getLogger()
    before, level, hook = list(root.handlers), root.level, threading.excepthook
    paramiko = logging.getLogger("paramiko").level
    try:
        diary.keep(tmp_path / "x.log", released=True)
        assert not (tmp_path / "x.log").exists()
        for number in range(100):
            log.info("line %d", number)
            held = [file.path for file in psutil.Process().open_files()]
            assert str(tmp_path / "x.log") not in held
    finally:
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        logging.getLogger("paramiko").setLevel(paramiko)
        threading.excepthook = hook
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1"]
    assert (tmp_path / "x.log").read_text().endswith("line 99\n") and (tmp_path / "x.log").stat().st_size <= 1000


def test_a_keeper_takes_no_other_socket_for_its_door(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.keeper import __main__ as keeper

    directory = make_machine()
    for value in ("", "x", "987654", "987654,987655"):
        monkeypatch.setenv("WHERRY_DOOR", value)
        assert keeper._door(directory) == [] and "WHERRY_DOOR" not in os.environ
    with socket.socket(socket.AF_UNIX) as other:
        monkeypatch.setenv("WHERRY_DOOR", str(os.dup(other.fileno())))
        assert keeper._door(directory) == []
    door = doorman.Door(directory.engine_socket)
    monkeypatch.setenv("WHERRY_DOOR", str(os.dup(door.sockets[0].fileno())))
    [taken] = keeper._door(directory)
    assert taken.getsockname() == str(directory.engine_socket) and not taken.get_inheritable()
    taken.close()
    door.close(passed_on=False)
    assert not directory.run_dir.exists()
