"""The docker context, `env`, and what `up` says of docker's own settings."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher import host, store
from launcher.cli import shells
from launcher.dockerhome import Context, DockerHome
from launcher.errors import WherryError
from launcher.machine import context
from tests.conftest import Said
from tests.fakes import FakeKeeper, make_machine
from tests.systems import not_on_windows

Wherry = Callable[..., Said]


@pytest.fixture
def docker(home: Path, tmp_path: Path) -> Path:
    """docker's folder."""
    return tmp_path / "docker"


def address(directory: store.MachineDir) -> str:
    return host.current().endpoints().address(directory.engine_socket)


def config(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return data


def listen(path: Path) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.bind(str(path))
    stream.listen()
    return stream


@not_on_windows("modes")
def test_a_context_is_kept_as_docker_keeps_it(docker: Path) -> None:
    """docker/cli, cli/context/store/metadatastore.go: contexts/meta/SHA256 of the name/meta.json."""
    directory = make_machine("dev")
    assert context.create("dev") == "wherry-dev"
    file = docker / "contexts" / "meta" / hashlib.sha256(b"wherry-dev").hexdigest() / "meta.json"
    meta = json.loads(file.read_text())
    assert meta["Name"] == "wherry-dev"
    assert meta["Endpoints"] == {"docker": {"Host": address(directory), "SkipTLSVerify": False}}
    assert not (docker / "config.json").exists()
    assert (file.stat().st_mode & 0o777, docker.stat().st_mode & 0o777) == (0o600, 0o700)


@not_on_windows("links need a right that users lack")
def test_use_and_remove_leave_the_rest_of_the_file(docker: Path) -> None:
    make_machine()
    docker.mkdir()
    real = docker.parent / "dotfiles.json"
    real.write_text('{"auths": {"r": {}}, "currentContext": "colima", "psFormat": "é"}')
    (docker / "config.json").symlink_to(real)
    DockerHome().write(Context("colima", "unix:///nowhere"))
    assert context.use("default") == "colima"
    assert config(docker) == {"auths": {"r": {}}, "currentContext": "wherry", "psFormat": "é"}
    assert context.use("default") is None
    assert context.remove("default") == (True, "colima")
    assert config(docker)["currentContext"] == "colima"
    assert (docker / "config.json").is_symlink()
    assert context.remove("default") == (False, "colima")


def test_the_context_before_may_be_gone(docker: Path) -> None:
    make_machine()
    DockerHome().write(Context("other", "unix:///nowhere"))
    DockerHome().make_current("other")
    context.use("default")
    DockerHome().remove("other")
    (docker / "config.json").write_text('{"currentContext": "wherry", "psFormat": "x"}')
    assert context.remove("default") == (True, "default")
    assert config(docker) == {"psFormat": "x"}


def test_a_file_that_says_nothing_any_more_is_gone(docker: Path) -> None:
    make_machine()
    for _ in range(2):  # and there may be none
        context.use("default")
        assert config(docker) == {"currentContext": "wherry"}
        assert context.remove("default") == (True, "default")
        assert not (docker / "config.json").exists()
        DockerHome().make_current("default")


@not_on_windows("links need a right that users lack")
def test_a_link_to_a_file_that_says_nothing_stays(docker: Path) -> None:
    make_machine()
    docker.mkdir()
    real = docker.parent / "dotfiles.json"
    (docker / "config.json").symlink_to(real)
    context.use("default")
    context.remove("default")
    assert real.read_text() == "{}" and (docker / "config.json").is_symlink()


def test_a_context_that_is_not_ours_is_left_alone(docker: Path, wherry: Wherry, tmp_path: Path) -> None:
    make_machine()
    DockerHome().write(Context("wherry", "ssh://me@there"))
    said = wherry("context", "use")
    assert said.code == 6 and "docker context rm wherry" in said.err
    assert context.remove("default")[0] is False
    assert DockerHome().context("wherry") == Context("wherry", "ssh://me@there")
    # Another home's machine keeps its own; one that is gone leaves its name.
    DockerHome().write(Context("wherry", "unix:///x", "", {"wherry": {"machine": str(tmp_path)}}))
    assert wherry("context", "create").code == 6
    DockerHome().write(Context("wherry", "unix:///x", "", {"wherry": {"machine": str(tmp_path / "gone")}}))
    assert wherry("context", "create").code == 0


def test_docker_files_that_cannot_be_read_are_not_written_over(docker: Path, wherry: Wherry) -> None:
    make_machine()
    docker.mkdir()
    for text in ("{", "[]"):
        (docker / "config.json").write_text(text)
        assert wherry("context", "use").code == 1
        assert (docker / "config.json").read_text() == text
        assert "cannot be read" in context.offer("default").advice[0] or "no JSON" in context.offer("default").advice[0]


def test_delete_takes_the_context_along(docker: Path, wherry: Wherry) -> None:
    make_machine()
    context.use("default")
    assert wherry("delete", "--yes").code == 0
    assert DockerHome().context("wherry") is None and DockerHome().current == "default"


# What `up` does.


def test_up_takes_over_where_docker_had_nothing(docker: Path, keeper: FakeKeeper, wherry: Wherry) -> None:
    said = wherry("up")
    assert "docker context wherry is now current (was: default)" in said.err
    assert DockerHome().current == "wherry"
    assert "context" not in wherry("up").err
    assert json.loads(wherry("up", "--json").out)["data"]["context"]["current"] is True


@pytest.mark.skipif(host.current().NAME != "windows", reason="pipes are of Windows")
def test_up_leaves_docker_where_its_pipe_is(
    docker: Path, keeper: FakeKeeper, wherry: Wherry, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = host.current().endpoints().path(docker.parent, "usual", "engine")
    monkeypatch.setattr(host.current(), "docker_socket", lambda: usual)
    listening = host.current().endpoints().listen(usual, 1)
    try:
        assert "docker context use wherry" in wherry("up").err
        assert DockerHome().current == "default"
    finally:
        listening.close()
    assert "docker context wherry is now current" in wherry("up").err


@not_on_windows("unix sockets")
def test_up_leaves_docker_where_it_is(
    docker: Path, keeper: FakeKeeper, wherry: Wherry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listen(docker.parent / "usual.sock"):
        assert "docker context use wherry" in wherry("up").err
        assert DockerHome().current == "default"
    monkeypatch.setenv("DOCKER_HOST", "tcp://other:2375")
    said = wherry("up")
    assert "DOCKER_HOST leads docker in this terminal to tcp://other:2375   unset DOCKER_HOST" in said.err
    assert DockerHome().current == "default"
    monkeypatch.delenv("DOCKER_HOST")
    with listen(docker.parent / "o.sock"):
        DockerHome().write(Context("other", f"unix://{docker.parent}/o.sock"))
        DockerHome().make_current("other")
        said = wherry("up")
    assert "docker context use wherry" in said.err and "nothing answers" not in said.err
    assert DockerHome().current == "other"


def test_a_removed_context_stays_removed(docker: Path, keeper: FakeKeeper, wherry: Wherry) -> None:
    wherry("up")
    assert wherry("context", "remove").code == 0
    wherry("up")
    assert DockerHome().context("wherry") is None
    wherry("context", "create")
    wherry("up")
    assert DockerHome().current == "wherry"


@not_on_windows("unix sockets")
def test_what_leads_docker_nowhere_is_said_with_its_fix(
    docker: Path, keeper: FakeKeeper, wherry: Wherry, monkeypatch: pytest.MonkeyPatch
) -> None:
    DockerHome().make_current("lost")
    assert "docker's current context 'lost' does not exist   docker context use wherry" in wherry("up").err
    DockerHome().write(Context("lost", f"unix://{docker}/gone.sock"))
    assert "nothing answers in docker's current context 'lost'   docker context use wherry" in wherry("up").err
    monkeypatch.setenv("DOCKER_CONTEXT", "lost")
    assert "unset DOCKER_CONTEXT" in wherry("up").err
    monkeypatch.delenv("DOCKER_CONTEXT")
    text = {"credsStore": "desktop", "credHelpers": {"reg.example": "none"}, "currentContext": "wherry"}
    (docker / "config.json").write_text(json.dumps(text))
    said = wherry("up").err
    assert f"docker-credential-desktop, which is not here   remove credsStore from {docker}/config.json" in said
    assert 'docker-credential-none, which is not here   remove credHelpers "reg.example"' in said
    program = docker.parent / "bin" / "docker-credential-desktop"
    program.parent.mkdir()
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert "docker-credential-desktop" not in wherry("up").err


# env.


def test_env_leads_docker_to_the_machine(keeper: FakeKeeper, wherry: Wherry) -> None:
    said = wherry("env", "bash")
    assert said.out == f'export DOCKER_HOST={address(keeper.directory)}\n# eval "$(wherry env bash)"\n'
    assert said.out == wherry("shellinit", "bash").out == wherry("env", "default", "bash").out.replace("env default", "env")
    data = json.loads(wherry("env", "--json").out)["data"]
    assert data == {"DOCKER_HOST": address(keeper.directory)}


@not_on_windows("no sh")
def test_env_of_a_machine_that_is_off_fails_in_eval_too(home: Path, wherry: Wherry) -> None:
    make_machine()
    said = wherry("env", "bash")
    assert (said.code, said.out) == (3, "false\n") and "wherry up" in said.err
    done = subprocess.run(["bash", "-c", f"eval {said.out!r} || echo failed"], capture_output=True, text=True, check=True)
    assert done.stdout == "failed\n"
    assert json.loads(wherry("env", "--json").out)["ok"] is False
    assert wherry("env", "--unset", "fish").out.startswith("set -e DOCKER_HOST;")
    assert wherry("env", "nothing").code == 3
    assert wherry("env", "bash", "zsh").code == 2


def test_env_removes_what_would_lead_the_client_astray(
    keeper: FakeKeeper, wherry: Wherry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert "unset DOCKER_TLS_VERIFY\n" in wherry("env", "zsh").out


VALUE = 'unix:///tmp/it\'s "a" $HOME/x'
SOME = {"DOCKER_HOST": VALUE, "GONE": None}


@pytest.mark.parametrize(("shell", "program"), [("bash", "bash"), ("bash", "dash"), ("zsh", "zsh"), ("fish", "fish")])
def test_shells_read_the_value_as_it_is(shell: str, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not here")
    script = shells.code(shell, SOME, "w") + '\nprintf %s "$DOCKER_HOST|$GONE"'
    done = subprocess.run([program, "-c", script], env={**os.environ, "GONE": "x"}, capture_output=True, text=True, check=True)
    assert done.stdout == f"{VALUE}|"


def test_shells_of_windows() -> None:
    lines = shells.code("powershell", SOME, "wherry env").splitlines()
    assert lines[0] == "$Env:DOCKER_HOST = 'unix:///tmp/it''s \"a\" $HOME/x'"
    assert lines[1:] == ["Remove-Item Env:GONE -ErrorAction SilentlyContinue", "# wherry env | Invoke-Expression"]
    assert shells.code("cmd", {"A": "b", "C": None}, "wherry env").splitlines()[:2] == ["SET A=b", "SET C="]


@pytest.mark.parametrize(
    ("programs", "shell"),
    [
        (["python3.11", "zsh", "bash"], "zsh"), (["-bash"], "bash"), (["dash"], "bash"), (["PowerShell.exe"], "powershell"),
        (["pwsh"], "powershell"), (["wherry.exe", "cmd.exe"], "cmd"), (["sshd", "/usr/bin/fish"], "fish"),
        ([""], host.current().SHELL),
    ],
)  # fmt: skip
def test_the_shell_is_guessed(programs: list[str], shell: str) -> None:
    assert shells.choose(programs) == shell


def test_the_shell_we_are_started_from_is_found(keeper: FakeKeeper) -> None:
    wherry = str(Path(__file__).parent.parent / ".venv" / "bin" / "wherry")
    if shutil.which("dash") is None or not Path(wherry).exists():
        pytest.skip("no dash here")
    # A word behind it, so that the shell does not become wherry.
    done = subprocess.run(
        ["dash", "-c", f"{wherry} env; true"], env={**os.environ, "SHELL": "/bin/fish"}, capture_output=True, text=True
    )
    assert done.stdout.startswith("export DOCKER_HOST="), done.stderr


def test_status_tells_the_socket(keeper: FakeKeeper, wherry: Wherry) -> None:
    assert f"socket    {address(store.machine('default'))}\n" in wherry("status").out


def test_a_missing_machine_has_no_context(home: Path) -> None:
    with pytest.raises(WherryError):
        context.create("none")
