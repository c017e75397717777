"""What others have written for Docker, against a machine that nobody told it about: led by `wherry env` or the context alone.

docker-py, buildx, compose, testcontainers and the dev containers CLI, with images made of Debian packages and a real registry.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.images.build import Built, build
from tests.vm.client import Client, following, frames
from tests.vm.driver import SOAK, START_SECONDS, Driver
from tests.vm.registry import Registry, registry

pytestmark = pytest.mark.vm
BASE = "wherry.test/base"
DEVCONTAINERS_CLI = "@devcontainers/cli@0.89.0"
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def built() -> Built:
    return build()


@pytest.fixture(scope="module")
def client(machine: Driver, built: Built) -> Iterator[Client]:
    """docker, with all images there."""
    made = Client(machine)
    made("load", "-i", str(built.archive), timeout=900)
    yield made
    left = made("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=wherry.test/*").split()
    made("image", "rm", *left)


@pytest.fixture(scope="module")
def environment(client: Client) -> dict[str, str]:
    """A shell's after eval "$(wherry env)", without a context to fall back on."""
    told = client.machine.wherry("env", "bash")
    assert told.returncode == 0
    script = f'{told.stdout.decode()}\nprintf %s "$DOCKER_HOST"'
    address = subprocess.run(["bash", "-c", script], capture_output=True, check=True, text=True).stdout
    path = f"{client.program.parent}:{os.environ['PATH']}"
    return {**client.machine.environment, "DOCKER_HOST": address, "PATH": path}


@pytest.fixture(scope="module")
def engine(environment: dict[str, str]) -> Iterator[docker.DockerClient]:
    with closing(docker.from_env(environment=environment, timeout=300)) as made:
        yield made


@pytest.fixture
def store(built: Built, tmp_path: Path) -> Iterator[Registry]:
    with registry(built.registry, tmp_path) as made:
        yield made


def test_docker_py_builds_and_runs(engine: docker.DockerClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nARG WHO\nCOPY words /words\nRUN echo $WHO >>/words\n")
    (tmp_path / "words").write_text("made by\n")
    image, log = engine.images.build(path=str(tmp_path), tag="wherry.test/made", buildargs={"WHO": "docker-py"}, rm=True)
    assert any("Successfully" in line.get("stream", "") for line in log)
    assert engine.containers.run(image.id, "cat /words", remove=True) == b"made by\ndocker-py\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        engine.containers.run(BASE, ["sh", "-c", "echo no >&2; exit 3"], remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (3, b"no\n")
    with pytest.raises(docker.errors.APIError, match="is not shared with the machine"):
        engine.containers.run(BASE, "true", volumes={str(tmp_path): {"bind": "/x"}})


def test_docker_py_with_a_container_that_runs(engine: docker.DockerClient) -> None:
    words = ["sh", "-c", "echo begin; while :; do echo tick; sleep 1; done"]
    with following(engine.events(decode=True, filters={"type": "container", "event": "start"})) as events:
        container = engine.containers.run(BASE, words, detach=True, init=True, name="py")
        try:
            assert next(events)["Actor"]["Attributes"]["name"] == "py"
            with following(container.logs(stream=True, follow=True)) as lines:
                got = b""
                while got.count(b"tick\n") < 2:
                    got += next(lines)
            assert got.startswith(b"begin\n")
            _exec(container)
            _copies(container)
            stats = container.stats(stream=True, decode=True)
            assert [next(stats)["pids_stats"]["current"] >= 1 for _ in range(2)] == [True, True]
            stats.close()
        finally:
            container.remove(force=True)


def _exec(container: Any) -> None:
    code, output = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (code, output) == (4, (b"out\n", b"err\n"))
    # With input: the stream is the connection itself, and only one direction of it ends.
    api = container.client.api
    made = api.exec_create(container.id, ["sh", "-c", "wc -c; echo bye"], stdin=True)["Id"]
    stream = api.exec_start(made, socket=True)
    with closing(stream._sock), closing(stream):
        stream._sock.sendall(b"x" * 300_000)
        stream._sock.shutdown(socket.SHUT_WR)
        assert frames(io.BufferedReader(stream)) == b"300000\nbye\n"
    assert api.exec_inspect(made)["ExitCode"] == 0


def _copies(container: Any) -> None:
    data, packed = secrets.token_bytes(1_500_000), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("file")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    assert container.put_archive("/tmp", packed.getvalue())
    stream, found = container.get_archive("/tmp/file")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        back = archive.extractfile("file")
        assert back is not None and back.read() == data and found["size"] == len(data)


def test_attach_by_docker_py_ends_input_alone(engine: docker.DockerClient) -> None:
    container = engine.containers.create(BASE, ["sh", "-c", "cat; sleep 1; echo bye"], stdin_open=True)
    try:
        stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        with closing(stream._sock), closing(stream):
            stream._sock.sendall(b"words\n")
            stream._sock.shutdown(socket.SHUT_WR)
            assert frames(io.BufferedReader(stream)) == b"words\nbye\n"
        assert container.wait(timeout=120)["StatusCode"] == 0
    finally:
        container.remove(force=True)


def test_attach_by_docker_ends_input_alone(client: Client) -> None:
    made = client("create", "-i", "--name", "attached", BASE, "sh", "-c", "cat; sleep 1; echo bye").strip()
    data = b"line\n" * 100_000
    done = client.run("start", "-ai", made, input=data)
    client("rm", made)
    assert (done.returncode, done.stdout) == (0, data + b"bye\n")


def test_a_terminal_follows_its_window(client: Client, environment: dict[str, str]) -> None:
    """exec -it from a shell that only has DOCKER_HOST; keys go in, a resize and Ctrl-C reach the command."""
    client("run", "-d", "--init", "--name", "shell", BASE, "sleep", "1000")
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    script = "trap 'stty size; echo changed' WINCH; trap 'echo stopped; exit 9' INT; stty size; while :; do sleep 1; done"
    command = [str(client.program), "exec", "-it", "shell", "sh", "-c", script]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as child:
        try:
            _read_until(controller, b"31 97")
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 43, 111, 0, 0))
            # The terminal is not the child's controlling one, so it is told; it listens only a moment after its start.
            _read_until(controller, b"43 111\r\nchanged", lambda: child.send_signal(signal.SIGWINCH))
            os.write(controller, b"\x03")
            _read_until(controller, b"stopped")
            assert child.wait(120) == 9
        finally:
            child.kill()
    os.close(terminal)
    os.close(controller)
    client("rm", "-f", "shell")


def _read_until(controller: int, words: bytes, again: Callable[[], None] = lambda: None) -> None:
    """Reads the terminal; `again` is called whenever nothing came for half a second."""
    got, deadline = b"", time.monotonic() + 120
    while words not in got:
        assert time.monotonic() < deadline, got
        if select.select([controller], [], [], 0.5)[0]:
            got += os.read(controller, 1000)
        else:
            again()


def test_save_and_load_by_docker_py(engine: docker.DockerClient) -> None:
    saved = b"".join(engine.images.get("wherry.test/redis").save(named=True))
    [loaded] = engine.images.load(saved)
    assert "wherry.test/redis:latest" in loaded.tags


def test_push_and_pull(client: Client, engine: docker.DockerClient, store: Registry, tmp_path: Path) -> None:
    """Three clients that push, two that pull; what the registry got is looked at on this computer."""
    names = [f"{store.name}/{name}" for name in ("docker", "buildx", "docker-py")]
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nCOPY blob /blob\n")
    (tmp_path / "blob").write_bytes(secrets.token_bytes(3_000_000))
    client("tag", BASE, f"{names[0]}:1")
    client("push", f"{names[0]}:1")
    client("buildx", "build", "-t", f"{names[1]}:1", "--push", ".", cwd=tmp_path)
    engine.images.get(BASE).tag(names[2], "1")
    said = list(engine.images.push(names[2], tag="1", stream=True, decode=True))
    assert not [line for line in said if "error" in line], said
    assert store.get("_catalog")["repositories"] == ["buildx", "docker", "docker-py"]
    assert store.get("buildx/tags/list")["tags"] == ["1"]
    client("image", "rm", *(f"{name}:1" for name in (names[0], names[2])))
    assert client("run", "--rm", f"{names[1]}:1", "stat", "-c", "%s", "/blob") == "3000000\n"
    assert f"{names[2]}:1" in engine.images.pull(names[2], tag="1").tags
    client("image", "rm", *(f"{name}:1" for name in names[1:]))


def test_a_projects_file(client: Client, store: Registry, tmp_path: Path) -> None:
    """`up -f`: a restart that is agreed to, a folder, an image that is pulled, a service; and nothing the second time."""
    machine, image, project = client.machine, f"{store.name}/project:1", tmp_path / "a project"
    client("tag", BASE, image)
    client("push", image)
    client("image", "rm", image)
    project.mkdir()
    service = {"image": image, "entrypoint": ["sleep", "1000000"], "init": True, "volumes": [".:/here"]}
    (project / "compose.yaml").write_text(json.dumps({"services": {"base": service}}))
    (project / "wherry.toml").write_text(
        f'requires = ">=0.1"\nimages = ["{image}"]\ncompose = "compose.yaml"\n'
        'shares.folders = ["."]\nengine.labels = ["project=ours"]\n'
    )
    words = ["up", "-f", str(project / "wherry.toml")]
    try:
        refused = machine.wherry(*words)
        assert refused.returncode == 6 and b"nobody to ask; nothing is changed" in refused.stderr, refused
        done = machine.wherry(*words, "--yes", "--json", timeout=START_SECONDS)
        assert done.returncode == 0, (done.stdout.decode(), done.stderr.decode())
        data = json.loads(done.stdout)["data"]
        assert {change["key"] for change in data["changed"]} == {"engine.labels", "shares.folders"}
        assert (data["already"], data["restarted"], data["pulled"]) == (False, True, [image])
        assert "project=ours" in client("info", "--format", "{{.Labels}}")
        [container] = client("ps", "-q", "--filter", f"ancestor={image}").split()
        assert client("exec", container, "ls", "/here").split() == ["compose.yaml", "wherry.toml"]
        again = json.loads(machine.wherry(*words, "--json").stdout)["data"]
        assert (again["already"], again["changed"], again["pulled"]) == (True, [], [])
        assert client("ps", "-q", "--filter", f"ancestor={image}").split() == [container]
    finally:
        client.run("rm", "-f", *client("ps", "-aq", "--filter", f"ancestor={image}").split())
        client.run("image", "rm", image)
        machine.wherry("share", "remove", str(project))
        machine.wherry("config", "unset", "engine.labels")


def test_buildx_has_cache_secrets_and_output(client: Client, environment: dict[str, str], tmp_path: Path) -> None:
    """What needs a session of BuildKit with this computer: files from here, a secret, results back to here."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {BASE} AS made\nRUN --mount=type=cache,target=/cache --mount=type=secret,id=word cat /run/secrets/word >/made\n"
        "RUN --mount=type=bind,from=other,target=/other cat /other/file >>/made\n"
        "FROM scratch\nCOPY --from=made /made /\n"
    )
    (tmp_path / "word").write_text("secret\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("other\n")
    words = ["buildx", "build", "--secret", "id=word,src=word", "--build-context", "other=other", "-o", "out", "."]
    done = subprocess.run([str(client.program), *words], cwd=tmp_path, env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "out" / "made").read_text() == "secret\nother\n"


# A check of health is a process in the guest each time: one is enough. A database takes a minute to begin on a busy computer.
COMPOSE = """
services:
  cache:
    image: wherry.test/redis
    ports: ["127.0.0.1::6379"]
    healthcheck: {test: [CMD, redis-cli, ping], interval: 5s, timeout: 60s, retries: 100}
  web:
    image: wherry.test/nginx
    ports: ["80"]
    depends_on:
      cache: {condition: service_healthy}
    configs: [{source: page, target: /usr/share/nginx/html/page.html}]
  echo:
    image: wherry.test/echo
    ports: ["7/udp"]
  base:
    image: wherry.test/postgres
    profiles: [database]
    ports: ["0:5432"]
    volumes: [data:/data]
volumes:
  data:
configs:
  page: {content: "a page of compose's"}
"""
# The first message of a session (PostgreSQL's protocol 3.0), and the answer that nothing is asked for.
POSTGRES = struct.pack(">II", 41, 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
POSTGRES_ANSWER = struct.pack(">cII", b"R", 8, 0)


def test_compose_with_published_ports(client: Client, environment: dict[str, str], tmp_path: Path) -> None:
    """TCP and UDP, ports of the user's and of the engine's choice."""
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    env = {**environment, "COMPOSE_PROFILES": "database" if SOAK else ""}

    def compose(*words: str) -> str:
        command = [str(client.program), "compose", *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=600)
        assert done.returncode == 0, (words, done.stderr.decode())
        return done.stdout.decode()

    try:
        compose("up", "-d")
        assert _ask(_port(compose("port", "cache", "6379")), b"PING\r\n") == b"+PONG\r\n"
        answer = _ask(_port(compose("port", "web", "80")), b"GET /page.html HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"a page of compose's")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(60)
            sender.connect(_port(compose("port", "--protocol", "udp", "echo", "7")))
            for data in (b"one", secrets.token_bytes(1400)):
                sender.send(data)
                assert sender.recv(65536) == data
        if SOAK:
            base = _port(compose("port", "base", "5432"))
            # It takes connections before it takes sessions ("the database system is starting up").
            client.machine.wait_until(lambda: _ask(base, POSTGRES).startswith(POSTGRES_ANSWER), "the database is up")
        assert "PONG" in compose("exec", "-T", "cache", "redis-cli", "ping")
        assert "GET /page.html" in compose("logs", "web")
    finally:
        compose("down", "-v", "-t", "1")
    assert client("ps", "-aq", "--filter", "label=com.docker.compose.project") == ""


TESTCONTAINERS = """
import os, socket, sys
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

def redis():
    return DockerContainer("wherry.test/redis").with_exposed_ports(6379).waiting_for(LogMessageWaitStrategy("Ready to accept"))

with redis() as container:
    address = container.get_container_host_ip(), int(container.get_exposed_port(6379))
    with socket.create_connection(address, timeout=60) as stream:
        stream.sendall(b"PING\\r\\n")
        assert (got := stream.recv(100)) == b"+PONG\\r\\n", got
    code, output = container.exec(["redis-cli", "set", "a", "b"])
    assert (code, output) == (0, b"OK\\n"), (code, output)
print("left:", redis().start().get_wrapped_container().id, flush=True)
os._exit(0)  # without a goodbye: the reaper is to clean up
"""


def test_testcontainers(client: Client, environment: dict[str, str], tmp_path: Path) -> None:
    """Containers with ports; the reaper, which has the engine's socket as a bind mount, removes what a dead process left."""
    env = {**environment, "RYUK_CONTAINER_IMAGE": "wherry.test/reaper", "HOME": str(tmp_path)}
    if Path("/.dockerenv").exists():
        # It takes this computer for a container of the same engine, and asks its gateway for the ports.
        env |= {"TC_HOST": "localhost", "TESTCONTAINERS_CONNECTION_MODE": "docker_host"}
    command = [sys.executable, "-c", TESTCONTAINERS]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    left = done.stdout.decode().removeprefix("left: ").strip()

    def there() -> str:
        return client("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}", "--filter", "label=org.testcontainers")

    assert left in (now := there()) and "testcontainers-ryuk" in now
    client.machine.wait_until(lambda: there() == "", "the reaper has removed what was left, and ended")


DEVCONTAINER = """
{
  // A comment, as they are allowed here.
  "build": {"dockerfile": "Dockerfile"},
  "workspaceMount": "source=dev-files,target=/workspace,type=volume",
  "workspaceFolder": "/workspace",
  "mounts": ["source=/var/run/docker.sock,target=/var/run/docker.sock,type=bind"],
  "containerEnv": {"WORD": "yes"},
  "postCreateCommand": "echo created >/workspace/file"
}
"""


@pytest.fixture(scope="module")
def devcontainer() -> Path:
    """The dev containers CLI, from npm, once."""
    folder = ROOT / "build" / "devcontainers"
    program = folder / "node_modules" / ".bin" / "devcontainer"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        words = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", DEVCONTAINERS_CLI]
        done = subprocess.run(words, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
    return program


def test_devcontainers_cli(client: Client, environment: dict[str, str], devcontainer: Path, tmp_path: Path) -> None:
    """Its workspace is a volume: a folder of this computer needs shares."""
    (tmp_path / ".devcontainer").mkdir()
    (tmp_path / ".devcontainer" / "devcontainer.json").write_text(DEVCONTAINER)
    (tmp_path / ".devcontainer" / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo built >/built\n")

    def call(*words: str) -> subprocess.CompletedProcess[bytes]:
        command = [str(devcontainer), words[0], "--workspace-folder", str(tmp_path), *words[1:]]
        return subprocess.run(command, env=environment, capture_output=True, timeout=300)

    up = call("up")
    told = json.loads(up.stdout)
    assert (up.returncode, told["outcome"]) == (0, "success"), up.stderr.decode()
    try:
        script = "cat /built /workspace/file; echo $WORD; pwd; test -S /var/run/docker.sock; exit 3"
        done = call("exec", "sh", "-c", script)
        assert (done.returncode, done.stdout) == (3, b"built\ncreated\nyes\n/workspace\n"), done.stderr.decode()
    finally:
        image = client("inspect", "--format", "{{.Image}}", told["containerId"]).strip()
        client("rm", "-f", told["containerId"])
        client("volume", "rm", "dev-files")
        client("image", "rm", "-f", image)


def _port(told: str) -> tuple[str, int]:
    """What compose says of a published port."""
    address, _, port = told.strip().rpartition(":")
    return address.replace("0.0.0.0", "127.0.0.1"), int(port)


def _ask(address: tuple[str, int], sent: bytes) -> bytes:
    """The answer, up to its end or that of a line. The port is there at once, what listens behind it begins when it can: until
    then a connection is broken off."""
    deadline = time.monotonic() + 600
    while True:
        with socket.create_connection(address, timeout=300) as stream:
            try:
                stream.sendall(sent)
                if not sent.startswith(b"GET"):
                    return stream.recv(1000)
                return b"".join(iter(lambda: stream.recv(65536), b""))
            except ConnectionResetError:
                assert time.monotonic() < deadline, f"nothing answers at {address}"
        time.sleep(0.5)
