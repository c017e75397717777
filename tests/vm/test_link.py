"""What leads from a machine to the user's own things, and back: the ssh agent in containers, `wherry link`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest.helpers import static
from tests.test_agent import Agent
from tests.vm.client import Client
from tests.vm.driver import Driver

pytestmark = pytest.mark.vm
AGENT = "/run/host-services/ssh-auth.sock"
IMAGE = "agent-test"
Start = Callable[[str], Agent]


@pytest.fixture
def agent() -> Iterator[Start]:
    """Starts ssh-agents, each with one key that has its name."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent here")
    made: list[Agent] = []
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        yield lambda name: made.append(Agent(Path(folder), name)) or made[-1]  # type: ignore[func-returns-value]
        for one in made:
            one.end()


@pytest.fixture(scope="module")
def image(machine: Driver, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("image")
    shutil.copy(static("askagent"), folder)
    (folder / "Dockerfile").write_text("FROM wherry.internal/hello\nCOPY askagent /\n")
    done = machine.wherry("docker", "build", "-q", "-t", IMAGE, ".", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return IMAGE


def keeper_pid(machine: Driver) -> int:
    pid: int = json.loads(next(machine.path.glob("home/machines/*/state.json")).read_text())["keeper_pid"]
    return pid


def with_agent(one: Agent) -> dict[str, str]:
    return {"SSH_AUTH_SOCK": str(one.socket)}


def test_a_container_keeps_the_agent_whatever_ends(machine: Driver, image: str, agent: Start) -> None:
    first = agent("first")
    words = ("-d", "--name", "agent", "--user", "1234", "-v", f"{AGENT}:/agent", image, "sleep", "86400")
    done = machine.wherry("run", *words, env=with_agent(first))
    assert done.returncode == 0, done.stderr.decode()

    def keys(env: dict[str, str] | None = None) -> tuple[int, bytes]:
        told = machine.wherry("docker", "exec", "agent", "/askagent", "/agent", env=env)
        return told.returncode, told.stdout

    try:
        assert keys() == (0, b"first\n")
        second = agent("second")
        assert keys(with_agent(second)) == (0, b"second\n")  # the newest that a command has
        second.end()
        assert keys() == (0, b"first\n")
        # The SSH connection, then the keeper, whose successor learns it from the command that starts it.
        machine.wherry("ssh", "killall -9 sshd sshd-session")
        machine.wait_until(lambda: keys() == (0, b"first\n"), "the agent is there again")
        keeper = keeper_pid(machine)
        os.kill(keeper, 9)
        machine.wait_until(lambda: keys(with_agent(first)) == (0, b"first\n"), "the next keeper has the agent")
        assert keeper_pid(machine) != keeper
        first.end()
        code, said = keys()
        assert (code, said) == (4, b"")  # refused at once, as by an agent that is gone
        assert machine.container_state("agent") == "running"
    finally:
        machine.wherry("docker", "rm", "-f", "agent")


def test_the_agents_own_path_is_the_agent(machine: Driver, image: str, agent: Start) -> None:
    one = agent("own")
    words = ("--rm", "-v", f"{one.socket}:/agent", image, "/askagent", "/agent")
    done = machine.wherry("run", *words, env=with_agent(one))
    assert (done.returncode, done.stdout) == (0, b"own\n"), done.stderr.decode()


def test_docker_and_the_usual_socket_by_request(machine: Driver, tmp_path: Path) -> None:
    """A shell's `docker` and a client that looks where Docker Desktop listens, and nothing left afterwards."""
    (tmp_path / ".local" / "bin").mkdir(parents=True)
    path = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/.local/bin"}
    environment = {**machine.environment, **path}
    for kind in ("docker", "socket"):
        done = machine.wherry("link", kind, env=path)
        assert done.returncode == 0, done.stderr.decode()
    told = subprocess.run(["/bin/sh", "-c", "docker version -f {{.Server.Version}}"], env=environment, capture_output=True)
    assert told.returncode == 0 and told.stdout.strip(), told.stderr.decode()
    client = Client(machine)
    server = client.run("-H", f"unix://{tmp_path}/.docker/run/docker.sock", "version", "-f", "{{.Server.Version}}")
    assert server.stdout == told.stdout, server.stderr.decode()
    for kind in ("docker", "socket"):
        assert machine.wherry("unlink", kind, env=path).returncode == 0
    assert not list((tmp_path / ".local" / "bin").iterdir()) and not list((tmp_path / ".docker" / "run").iterdir())


def test_files_of_this_computer_with_the_machines_client(machine: Driver, tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=one two\n")

    def docker(*words: str) -> str:
        done = machine.wherry("docker", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    hello = "wherry.internal/hello"
    identity = docker("create", "--env-file", "a.env", "--cidfile", "cid", hello, "sh", "-c", "cat /in/a.env; echo $A").strip()
    try:
        assert (tmp_path / "cid").read_text() == identity
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.env").write_text("inside\n")
        docker("cp", "in", f"{identity}:/in")
        assert docker("start", "-a", identity) == "inside\none two\n"
        docker("cp", f"{identity}:/in", "out")
        assert (tmp_path / "out" / "a.env").read_text() == "inside\n"
        docker("export", "-o", "c.tar", identity)
        docker("import", "c.tar", "link-imported")
        docker("save", "-o", "i.tar", "link-imported")
        docker("rmi", "link-imported")
        assert "link-imported" in docker("load", "-i", "i.tar")
        (tmp_path / "context").mkdir()
        (tmp_path / "Dockerfile").write_text(f"FROM {hello}\nRUN --mount=type=secret,id=k grep -q two /run/secrets/k\n")
        docker("build", "-q", "-f", "Dockerfile", "--secret", "id=k,src=a.env", "context")
        assert not machine.ssh("ls /var/lib/wherry/work").split()
    finally:
        machine.wherry("docker", "rm", "-f", identity)
        machine.wherry("docker", "rmi", "link-imported")
