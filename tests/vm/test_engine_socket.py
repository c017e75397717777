"""Docker's own clients on this computer, through the engine's socket: the command line, compose, buildx and docker-py."""

from __future__ import annotations

import http.client
import io
import json
import os
import pty
import secrets
import socket
import stat
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from tests.vm.client import Client, following, frames
from tests.vm.driver import Driver

pytestmark = pytest.mark.vm
HELLO = "wherry.internal/hello"


@pytest.fixture(scope="module")
def client(machine: Driver) -> Client:
    return Client(machine)


@pytest.fixture(scope="module")
def busy(client: Client) -> Iterator[str]:
    """A container that ticks."""
    client("run", "-d", "--name", "busy", "--init", HELLO, "sh", "-c", "echo begin; while :; do echo tick; sleep 1; done")
    yield "busy"
    client("rm", "-f", "busy")


@pytest.fixture
def api(client: Client) -> Iterator[docker.APIClient]:
    with closing(docker.APIClient(base_url=f"unix://{client.socket}", timeout=300)) as made:
        yield made


def connect(client: Client) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(120)
    stream.connect(str(client.socket))
    return stream


def everything(stream: socket.socket) -> bytes:
    got = b""
    while data := stream.recv(65536):
        got += data
    return got


def test_the_context_leads_docker_to_the_machine(client: Client) -> None:
    assert stat.S_IMODE(client.socket.stat().st_mode) == 0o600
    shown = json.loads(client("context", "inspect"))[0]
    assert (shown["Name"], shown["Endpoints"]["docker"]["Host"]) == ("wherry", f"unix://{client.socket}")
    assert "linux/amd64" in client("version") or "linux/arm64" in client("version")
    # docker rewrites the file and leaves what is ours in it.
    client("context", "update", "wherry", "--description", "changed")
    assert client("context", "use", "default") == "default\n"
    client.machine.wherry("context", "use")
    assert client("context", "show") == "wherry\n"
    assert client.machine.wherry("context", "remove").returncode == 0
    assert client("context", "show") == "default\n"
    client.machine.wherry("context", "use")
    shell = f'eval "$({client.machine.wherry("env", "bash").stdout.decode()})"; {client.program} ps -q'
    assert subprocess.run(["bash", "-c", shell], env=client.machine.environment, check=False).returncode == 0


def test_run_takes_input_to_its_end(client: Client) -> None:
    data = secrets.token_bytes(1_000_000)
    done = client.run("run", "-i", "--rm", HELLO, "sh", "-c", "cat; echo done >&2; exit 7", input=data)
    assert (done.returncode, done.stdout, done.stderr) == (7, data, b"done\n")


def test_binds(client: Client, tmp_path: Path) -> None:
    before = client("ps", "-aq")
    done = client.run("run", "--rm", "-v", f"{tmp_path}:/x", HELLO, "true")
    assert done.returncode == 125
    assert f"{tmp_path} is not shared with the machine" in done.stderr.decode()
    names = ("-v", f"{client.socket}:/one", "-v", "/var/run/docker.sock:/two", "-v", "/proc:/three:ro", "-v", "volume:/four")
    script = "test -S /one -a -S /two -a -d /three/1 && test $(stat -c %i /one) = $(stat -c %i /two)"
    assert client.run("run", "--rm", *names, HELLO, "sh", "-c", script).returncode == 0
    client("volume", "rm", "volume")
    assert client("ps", "-aq") == before


def test_no_spelling_of_create_gets_past_the_check(client: Client) -> None:
    body = json.dumps({"Image": HELLO, "HostConfig": {"Binds": ["/home:/x"]}})
    for path in ("//v1.41/containers/create", "/v1.41/containers/cre%61te", "/v1.41/./containers/create"):
        with connect(client) as stream:
            made = http.client.HTTPConnection("docker")
            made.sock = stream
            made.request("POST", path, body, {"Content-Type": "application/json"})
            answer = made.getresponse()
            assert (answer.status, "not shared" in json.load(answer)["message"]) == (400, True), path


def test_builds(client: Client, tmp_path: Path) -> None:
    """BuildKit speaks HTTP/2 over a connection that was upgraded; the classic builder sends one tar."""
    (tmp_path / "Dockerfile").write_text(f"FROM {HELLO}\nCOPY data /data\nRUN test -s /data\n")
    (tmp_path / "data").write_bytes(secrets.token_bytes(1_000_000))
    client("buildx", "build", "-t", "with-buildkit", "--load", ".", cwd=tmp_path)
    (tmp_path / "Dockerfile").write_text(f"FROM {HELLO}\nCOPY data /data\n")
    client("build", "-t", "classic", ".", cwd=tmp_path, env={"DOCKER_BUILDKIT": "0"})
    client("image", "rm", "with-buildkit", "classic")


def test_exec_on_a_terminal(client: Client, busy: str) -> None:
    controller, terminal = pty.openpty()
    words = ("exec", "-it", busy, "sh", "-c", "tty; stty size; read line; echo got:$line; exit 5")
    with client.popen(*words, stdin=terminal, stdout=terminal, stderr=terminal) as child:
        os.close(terminal)
        got = b""
        while b"/dev/pts" not in got:
            got += os.read(controller, 1000)
        os.write(controller, b"word\n")
        while b"got:word" not in got:
            got += os.read(controller, 1000)
        assert child.wait(120) == 5
    os.close(controller)


def test_logs_events_and_stats(client: Client, busy: str, api: docker.APIClient) -> None:
    with client.popen("logs", "-f", busy, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(3)] == [b"begin\n", b"tick\n", b"tick\n"]
        child.terminate()
    with following(api.events(decode=True, filters={"event": "rename"})) as events:
        timer = threading.Timer(1, client, ("rename", busy, "renamed"))
        timer.start()
        assert next(iter(events))["Actor"]["Attributes"]["name"] == "renamed"
        timer.join()
    client("rename", "renamed", busy)
    assert api.stats(busy, stream=False)["pids_stats"]["current"] >= 1


def test_copies_both_ways(client: Client, busy: str, tmp_path: Path, api: docker.APIClient) -> None:
    data = secrets.token_bytes(2_000_000)
    (tmp_path / "file").write_bytes(data)
    client("cp", str(tmp_path / "file"), f"{busy}:/tmp/file")
    stream, found = api.get_archive(busy, "/tmp/file")
    assert found["size"] == len(data)
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        member = tar.extractfile("file")
        assert member is not None and member.read() == data
    client("cp", f"{busy}:/tmp/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data


def test_attach_with_and_without_an_upgrade(client: Client, api: docker.APIClient) -> None:
    """With the end of the input alone told, the container's last words arrive; old clients ask for no upgrade."""
    for upgrade in (True, False):
        config = api.create_host_config(auto_remove=True)
        words = ["sh", "-c", "cat; echo bye"]
        made = api.create_container(HELLO, words, stdin_open=True, host_config=config, detach=False)["Id"]
        with connect(client) as stream:
            head = f"POST /v1.41/containers/{made}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n"
            head += "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
            stream.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())
            answer = stream.recv(4096)
            assert answer.startswith(b"HTTP/1.1 101" if upgrade else b"HTTP/1.1 200")
            api.start(made)
            stream.sendall(b"words\n")
            stream.shutdown(socket.SHUT_WR)
            got = everything(stream)
        assert frames(io.BytesIO(got)) == b"words\nbye\n"


def test_save_and_load(client: Client, tmp_path: Path) -> None:
    client("save", "-o", str(tmp_path / "image.tar"), HELLO)
    assert tarfile.is_tarfile(tmp_path / "image.tar")
    assert HELLO in client("load", "-i", str(tmp_path / "image.tar"))


def test_compose(client: Client, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        f"services:\n  web:\n    image: {HELLO}\n    init: true\n    command: sh -c 'echo up; sleep 1000'\n"
        "    volumes: [data:/data]\n"
        "volumes:\n  data:\n"
    )
    client("compose", "up", "-d", cwd=tmp_path)
    client.machine.wait_until(lambda: "up" in client("compose", "logs", cwd=tmp_path), "its word is in the logs")
    client("compose", "down", "-v", "-t", "1", cwd=tmp_path)
    assert client("ps", "-aq", "--filter", "label=com.docker.compose.project") == ""
