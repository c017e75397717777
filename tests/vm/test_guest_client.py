"""The docker client in the guest goes through the keeper's proxy: what is checked and changed is as for one here."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.vm.client import Client
from tests.vm.driver import SOAK, Driver

pytestmark = pytest.mark.vm
HELLO = "wherry.internal/hello"
Runner = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def client(machine: Driver) -> Client:
    return Client(machine)


@pytest.fixture(params=["host", "guest", "shell"])
def docker(request: pytest.FixtureRequest, machine: Driver, client: Client) -> Runner:
    """Docker here, `wherry docker`, and docker typed in `wherry ssh`."""
    if request.param == "host":
        return client.run
    words = ("docker",) if request.param == "guest" else ("ssh", "docker")
    return lambda *rest, **options: machine.wherry(*words, *rest, **options)


SRV = "/srv/data is not there, and not shared with the machine"
MOUNT = "type=bind,source=/srv/data,target=/x"
# Words behind "docker", the exit code, what is said.
TABLE = {
    "a folder that is not shared": (("run", "--rm", "-v", "/srv/data:/x", HELLO, "true"), 125, SRV),
    "the same as --mount": (("run", "--rm", "--mount", MOUNT, HELLO, "true"), 125, SRV),
    "create": (("create", "-v", "/home:/x", HELLO), 1, "not shared"),
    "a Windows path": (("create", "-v", r"C:\data:/x", HELLO), 1, r"C:\data is not there"),
    "the guest's own": (("run", "--rm", "-v", "/proc:/x:ro", HELLO, "test", "-d", "/x/1"), 0, ""),
    "the engine's socket": (("run", "--rm", "-v", "/var/run/docker.sock:/x", HELLO, "test", "-S", "/x"), 0, ""),
    "the guest's way to the proxy": (("run", "--rm", "-v", "/run/wherry/engine.sock:/x", HELLO, "test", "-S", "/x"), 0, ""),
    "a volume": (("run", "--rm", "-v", "both:/x", HELLO, "true"), 0, ""),
    "an exit code": (("run", "--rm", HELLO, "sh", "-c", "exit 7"), 7, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_the_same_whichever_client(docker: Runner, case: str) -> None:
    words, code, said = TABLE[case]
    done = docker(*words)
    assert (done.returncode, said in done.stderr.decode()) == (code, True), done.stderr.decode()


def test_input_to_its_end(docker: Runner) -> None:
    data = secrets.token_bytes(1_000_000)
    done = docker("run", "-i", "--rm", HELLO, "sh", "-c", "cat; echo done >&2; exit 7", input=data)
    assert (done.returncode, done.stdout, done.stderr) == (7, data, b"done\n")


def test_only_root_finds_the_sockets(machine: Driver) -> None:
    told = machine.ssh(
        "stat -c '%a %u %n' /run/wherry/engine.sock /run/wherry/engine.keeper; echo $DOCKER_HOST; stat -c %i /run/docker.sock"
    )
    assert told.split()[:6] == ["600", "0", "/run/wherry/engine.sock", "600", "0", "/run/wherry/engine.keeper"]
    assert told.split()[6] == "unix:///run/wherry/engine.sock"
    script = "test $(stat -c %i /x) = " + told.split()[7]
    assert machine.wherry("run", "-v", "/run/wherry/engine.sock:/x", "wherry/hello", "sh", "-c", script).returncode == 0


def test_builds_and_compose_go_that_way_too(machine: Driver, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {HELLO}\nCOPY data /data\nRUN test -s /data\n")
    (tmp_path / "data").write_bytes(secrets.token_bytes(300_000))
    service = {"build": ".", "volumes": [".:/here"], "command": ["sh", "-c", "cmp /data /here/data && echo same"]}
    (tmp_path / "compose.yaml").write_text(json.dumps({"services": {"one": service}}))
    done = machine.wherry("compose", "run", "--rm", "one", cwd=tmp_path)
    # The build's own words come first on stdout.
    assert (done.returncode, done.stdout.split()[-1:]) == (0, [b"same"]), done.stderr.decode()
    service["volumes"] = ["/srv:/here"]
    (tmp_path / "compose.yaml").write_text(json.dumps({"services": {"one": service}}))
    done = machine.wherry("compose", "run", "--rm", "one", cwd=tmp_path)
    assert done.returncode != 0 and b"not shared" in done.stderr
    assert machine.wherry("compose", "down", "--rmi", "local", cwd=tmp_path).returncode == 0


def test_a_burst_of_clients_in_the_guest(machine: Driver) -> None:
    """One shell that starts them all at once: no queue of ours in between."""
    count = 200 if SOAK else 12
    # A client writes the line's end by itself: lines of two of them mix.
    script = f"for i in $(seq {count}); do docker version --format '{{{{.Server.Os}}}}' & done | tr -d '\\n'"
    assert machine.ssh(script, timeout=900) == "linux" * count


def test_a_keeper_that_is_replaced_is_met_again(machine: Driver) -> None:
    [keeper] = [process for process in machine.processes() if "launcher.keeper" in process.cmdline()]
    keeper.kill()
    keeper.wait(30)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: machine.docker("version", "--format", "{{.Server.Os}}"), range(3)))
    assert answers == ["linux\n"] * 3
    assert machine.ssh("docker ps -q --no-trunc; ps -o args | grep -c '[r]elay -a'").split()[-1] == "1"
