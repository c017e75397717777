"""launcher.keeper.agent: containers are joined with a real ssh-agent, whichever is the newest that lives."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher import control
from launcher.config import MachineConfig
from launcher.keeper.agent import Agents
from launcher.keeper.link import Link
from launcher.keeper.proxy.client import SocketClient
from launcher.keeper.proxy.create import AGENT, Rules, rewrite
from launcher.keeper.proxy.refusal import Refusal
from launcher.keeper.relaypool import SPARE, RelayPool
from tests.conftest import Said
from tests.fakes import CONFIG, FakeKeeper, make_machine
from tests.guest.helpers import helper
from tests.guestserver import guest
from tests.test_relaypool import wait

LIST = b"\0\0\0\1\x0b"  # SSH_AGENTC_REQUEST_IDENTITIES (draft-miller-ssh-agent, 3.5)


class Agent:
    """An ssh-agent of its own with one key."""

    def __init__(self, folder: Path, name: str) -> None:
        self.socket = folder / name
        self.process = subprocess.Popen(["ssh-agent", "-D", "-a", self.socket], stdout=subprocess.DEVNULL)
        key = folder / f"{name}.key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key], check=True)
        wait(self._listens)  # it has the file before it listens
        subprocess.run(["ssh-add", "-q", key], check=True, env={**os.environ, "SSH_AUTH_SOCK": str(self.socket)})

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as end, contextlib.suppress(OSError):
            end.connect(str(self.socket))
            return True
        return False

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="w") as short:
        yield Path(short)


@pytest.fixture
def agent(folder: Path) -> Iterator[Callable[[str], Agent]]:
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent here")
    made: list[Agent] = []

    def make(name: str) -> Agent:
        made.append(Agent(folder, name))
        return made[-1]

    yield make
    for one in made:
        one.end()


def ask(stream: socket.socket) -> bytes:
    """The list of keys, as the agent answers it; empty when nobody does."""
    stream.settimeout(30)
    stream.sendall(LIST)
    head = stream.recv(4, socket.MSG_WAITALL)
    return stream.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL) if len(head) == 4 else b""


def served(agents: Agents) -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def serve() -> None:
            agents.serve(SocketClient(theirs))
            theirs.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return ask(ours)
        except ConnectionError:
            return b""
        finally:
            ours.close()
            thread.join(30)
            assert not thread.is_alive()


def test_the_newest_that_lives_is_taken(agent: Callable[[str], Agent]) -> None:
    one, two = agent("one"), agent("two")
    agents = Agents({"SSH_AUTH_SOCK": str(one.socket)})
    assert b"one" in served(agents)
    agents.learn(str(two.socket))
    assert b"two" in served(agents)
    agents.learn(None)
    agents.learn("relative")
    assert agents.addresses() == [str(two.socket), str(one.socket)]
    two.end()
    assert b"one" in served(agents)
    one.end()
    assert served(agents) == b"" == served(Agents({}))


def test_few_are_remembered() -> None:
    agents = Agents({})
    for number in range(20):
        agents.learn(f"/a/{number}")
    assert len(agents.addresses()) == 8 and agents.addresses()[0] == "/a/19"


def test_through_the_guests_relay_and_again_after_a_reconnect(
    agent: Callable[[str], Agent], folder: Path, tmp_path: Path
) -> None:
    one = agent("one")
    clients, channels = folder / "c", folder / "k"
    with guest(tmp_path) as machine:
        machine.places[b"/k"] = channels
        link = Link(machine.connect)
        pool = RelayPool(link, "/k", Agents({"SSH_AUTH_SOCK": str(one.socket)}).serve, pauses=(0.05,) * 100)
        relay = subprocess.Popen([helper("relay"), "-m", "666", clients, channels])
        try:
            wait(channels.exists)
            link.get()
            inode = clients.stat().st_ino
            assert clients.stat().st_mode & 0o777 == 0o666
            for _ in range(3):
                wait(lambda: pool.usable(0) and len(pool._waiting) == SPARE)
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(clients))
                    assert b"one" in ask(client)
                    assert b"one" in ask(client)
                    dialled = len(machine.sockets)
                    machine.drop()
                    assert client.recv(1) == b""
                wait(lambda: len(machine.sockets) >= dialled + SPARE)  # noqa: B023
            assert clients.stat().st_ino == inode  # what containers have bound
        finally:
            link.drop()
            pool.close()
            relay.kill()
            relay.wait()


BODY = b'{"HostConfig": {"Binds": ["%s:/agent"]}}'


def test_the_proxy_lets_it_pass_only_where_it_is_offered() -> None:
    offered = Rules(agents=lambda: ["/tmp/ssh-x/agent.1"])
    assert rewrite(BODY % AGENT.encode(), offered) == BODY % AGENT.encode()
    # What is the agent here is the agent there.
    assert AGENT.encode() in rewrite(BODY % b"/tmp/ssh-x/agent.1", offered)
    with pytest.raises(Refusal, match="ssh_agent true"):
        rewrite(BODY % AGENT.encode(), Rules())
    for rules in (offered, Rules()):
        with pytest.raises(Refusal, match="not shared"):
            rewrite(BODY % b"/tmp/ssh-x/agent.2", rules)


def test_every_command_tells_the_keeper(keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/newest")
    control.status(keeper.directory.control_socket)
    assert keeper.requests[-1]["ssh_agent"] == "/tmp/newest"
    monkeypatch.delenv("SSH_AUTH_SOCK")
    control.status(keeper.directory.control_socket)
    assert keeper.requests[-1]["ssh_agent"] is None


def test_the_setting(home: Path, wherry: Callable[..., Said]) -> None:
    directory = make_machine()
    assert CONFIG.ssh_agent is False and wherry("config", "get", "ssh_agent").out == "false\n"
    assert wherry("config", "set", "ssh_agent", "true").code == 0
    assert directory.read_config().ssh_agent is True and "ssh_agent = true" in directory.config_file.read_text()
    assert wherry("config", "get", "ssh_agent").out == "true\n"
    assert wherry("config", "set", "ssh_agent", "yes").code == 2
    directory.config_file.write_text(directory.config_file.read_text().replace("ssh_agent = true", "ssh_agent = 1"))
    assert wherry("config", "get", "ssh_agent").code != 0
    assert isinstance(MachineConfig.ssh_agent, bool)
