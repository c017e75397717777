"""launcher.cli.hostclient: which docker client runs, and that one of this computer gets our terminal, folder and words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.cli import hostclient
from launcher.config import GIB, MachineConfig
from launcher.console import Console
from launcher.errors import MissingOnHost, Usage
from launcher.store import create

Maker = Callable[..., Path]


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH but for a shell, in a fresh home."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    monkeypatch.setenv("WHERRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("WHERRY_CLIENT", raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setattr("launcher.host._posix.docker_plugin_folders", list)
    monkeypatch.setattr("launcher.host.linux.docker_plugin_folders", list, raising=False)
    return folder


@pytest.fixture
def docker(bin_folder: Path, tmp_path: Path) -> Maker:
    """Makes a client that says its version and notes each call."""

    def make(version: str = "Docker version 28.2.2, build abc", folder: Path = bin_folder) -> Path:
        folder.mkdir(exist_ok=True)
        program = folder / "docker"
        program.write_text(f'#!/bin/sh\necho x >> {tmp_path}/calls\necho "{version}"\n')
        program.chmod(0o755)
        return program

    return make


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[Callable[[], int]]:
    yield lambda: len((tmp_path / "calls").read_text().split()) if (tmp_path / "calls").exists() else 0


def said(console: Console) -> str:
    return console._err.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def console() -> Console:
    import io

    return Console(json=False, quiet=False, debug=False, err=io.StringIO())


def plugin(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"docker-{name}").write_text("#!/bin/sh\n")
    (folder / f"docker-{name}").chmod(0o755)


def test_the_choice_is_seen_with_debug(docker: Maker, console: Console, caplog: pytest.LogCaptureFixture) -> None:
    program = docker()
    with caplog.at_level("DEBUG", "wherry.client"):
        hostclient.select("default", "ps", console)
        hostclient.select("default", "compose", console)
    assert caplog.messages == [f"client: {program}", f"client: the guest's ({program} has no compose plugin)"]


def test_the_client_here_is_found_and_asked_once(docker: Maker, calls: Callable[[], int], console: Console) -> None:
    program = docker()
    for _ in range(3):
        assert hostclient.select("default", "ps", console) == program
    assert calls() == 1
    docker("Docker version 20.10.24, build old")  # another program in its place
    assert hostclient.select("default", "ps", console) is None
    assert calls() == 2


@pytest.mark.usefixtures("bin_folder")
def test_without_one_the_guests_is_used(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hostclient.select("default", "ps", console) is None
    assert said(console) == ""
    monkeypatch.setenv("WHERRY_CLIENT", "host")
    with pytest.raises(MissingOnHost, match="no docker on PATH"):
        hostclient.select("default", "ps", console)


def test_on_windows_it_is_led_to_the_pipe(docker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.host import windows

    real = docker().rename(tmp_path / "bin/docker.exe")
    monkeypatch.setattr(hostclient.host, "current", lambda: windows)
    monkeypatch.setattr("launcher.store.home", lambda: tmp_path)
    assert hostclient.find("ps").program == real
    monkeypatch.setenv("PROGRAMFILES", str(tmp_path))
    assert hostclient.find("compose").why == f"{real} has no compose plugin"
    (tmp_path / "Docker/cli-plugins").mkdir(parents=True)
    (tmp_path / "Docker/cli-plugins/docker-compose.exe").write_text("")
    (tmp_path / "Docker/cli-plugins/docker-compose.exe").chmod(0o755)
    assert hostclient.find("compose").program == real


def test_the_variable_wins_over_the_setting(docker: Maker, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    program = docker()
    config = MachineConfig(arch="amd64", cpus=1, memory=GIB, iso="a" * 64, client="guest", engine={"debug": True})
    create("default", config, lambda _: None)
    assert hostclient.choice("default") == "guest"
    assert hostclient.select("default", "ps", console) is None
    assert hostclient.select("other", "ps", console) == program
    monkeypatch.setenv("WHERRY_CLIENT", "host")
    assert hostclient.select("default", "ps", console) == program
    monkeypatch.setenv("WHERRY_CLIENT", "podman")
    with pytest.raises(Usage, match="WHERRY_CLIENT=podman"):
        hostclient.select("default", "ps", console)


@pytest.mark.parametrize(
    ("version", "word"),
    [("Docker version 20.10.24+dfsg1, build 297e128", "is Docker 20"), ("Docker version 24.0.9, build x", "is Docker 24")],
)
def test_an_old_one_is_told(docker: Maker, console: Console, version: str, word: str) -> None:
    docker(version)
    assert hostclient.select("default", "ps", console) is None
    assert word in said(console) and said(console).count("\n") == 1


def test_what_is_not_dockers_client_is_passed_over(docker: Maker, bin_folder: Path, tmp_path: Path, console: Console) -> None:
    """Podman's docker, our own link, something else: the next on PATH is looked at, or the guest's taken."""
    docker("Something version 4.3.1")
    assert hostclient.find("ps").why.endswith("is no client of Docker's")
    (bin_folder / "docker").write_text('#!/bin/sh\n[ -e /etc/containers/nodocker ] || echo >&2\nexec /usr/bin/podman "$@"\n')
    assert hostclient.find("ps").why == "there is no docker on PATH"
    (bin_folder / "docker").unlink()
    (tmp_path / "wherry").write_text("#!/bin/sh\n")
    (tmp_path / "wherry").chmod(0o755)
    (bin_folder / "docker").symlink_to(tmp_path / "wherry")
    real = docker(folder=tmp_path / "second")
    path = {**os.environ, "PATH": f"{bin_folder}:{real.parent}"}
    assert hostclient.find("ps", path).program == real


def test_plugins_are_found_without_a_process(docker: Maker, tmp_path: Path, calls: Callable[[], int]) -> None:
    program = docker()
    for command in ("compose", "build", "buildx"):
        assert "plugin" in hostclient.find(command).why
    plugin(tmp_path / "docker" / "cli-plugins", "compose")
    assert hostclient.find("compose").program == program
    plugin(tmp_path / "extra", "buildx")
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(tmp_path / "extra")]}))
    assert hostclient.find("build").program == program
    (tmp_path / "docker" / "config.json").write_text("[]")
    assert hostclient.find("build").program is None
    assert calls() == 1


def test_it_is_led_to_the_machine_and_nowhere_else(tmp_path: Path) -> None:
    """In a process of its own, which it replaces: same process, folder, input; nothing ignored that a shell does not ignore."""
    script = tmp_path / "docker"
    script.write_text('#!/bin/sh\necho "$$ $PWD $* $DOCKER_HOST [$DOCKER_CONTEXT$DOCKER_TLS_VERIFY] $KEPT"; cat; exit 9\n')
    script.chmod(0o755)
    code = (
        "import sys\nfrom pathlib import Path\nfrom launcher.cli import hostclient\nprint('first')\n"
        f"sys.exit(hostclient.become(Path({str(script)!r}), ['run', 'a b'], 'unix:///x'))"
    )
    more = {"DOCKER_HOST": "tcp://y", "DOCKER_CONTEXT": "z", "DOCKER_TLS_VERIFY": "1", "KEPT": "kept"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path,
        env={**os.environ, **more, "PYTHONPATH": str(Path(hostclient.__file__).parents[2])},
    ) as process:  # fmt: skip
        out, _ = process.communicate(b"input", timeout=60)
    assert out.decode() == f"first\n{process.pid} {tmp_path} run a b unix:///x [] kept\ninput"
    assert process.returncode == 9


def test_sigpipe_is_the_clients_own(tmp_path: Path) -> None:
    script = tmp_path / "docker"
    script.write_text("#!/bin/sh\ngrep SigIgn /proc/self/status\n")
    script.chmod(0o755)
    code = f"from pathlib import Path\nfrom launcher.cli import hostclient\nhostclient.become(Path({str(script)!r}), [], 'x')"
    environment = {**os.environ, "PYTHONPATH": str(Path(hostclient.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert not int(done.stdout.split()[1], 16) & 1 << 12


def test_a_missing_helper_is_said_with_the_fix(tmp_path: Path, bin_folder: Path) -> None:
    own = {"DOCKER_CONFIG": str(tmp_path)}
    assert hostclient.advice(own) == []
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "desktop"}))
    [line] = hostclient.advice(own)
    assert "docker-credential-desktop, which is not here   remove credsStore" in line
