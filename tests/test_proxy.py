"""launcher.keeper.proxy: a client's socket, through the proxy and a real SSH connection, to an HTTP server on a unix socket.

Everything that goes over it is tried twice: as a client of this computer, and as one in the guest, behind the real relay.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from paramiko import Channel

from launcher import host
from launcher.errors import ConnectionLost, NotRunning, WherryError
from launcher.host import windows
from launcher.keeper import link
from launcher.keeper.link import Link
from launcher.keeper.proxy.create import Rules, rewrite
from launcher.keeper.proxy.folders import Folders
from launcher.keeper.proxy.refusal import Refusal
from launcher.keeper.proxy.server import GUEST_CHANNELS, EngineProxy
from launcher.keeper.relaypool import RelayPool
from launcher.sharing import Share
from launcher.ssh.channels import CLOSED_KNOWN
from launcher.ssh.transport import Connection
from launcher.store import MachineDir
from tests.engineserver import Engine, engine
from tests.guest.helpers import helper
from tests.guestserver import Guest, guest

PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"

LOST = b"HTTP/1.1 503 Unavailable\r\nConnection: close\r\n\r\nthe connection to the machine ended"


class Keeper:
    """As much of a supervisor as the proxy asks for."""

    def __init__(self, directory: MachineDir, connect: Callable[[], Connection]) -> None:
        self.directory = directory
        self.link = Link(connect)
        self.ready = threading.Event()
        self.ready.set()
        self.error: WherryError | None = None

    def wait_ready(self, seconds: float | None = None) -> None:
        assert self.ready.wait(seconds)
        if self.error is not None:
            raise self.error

    def open(self, make: Callable[[Connection], Channel]) -> Channel:
        return self.link.open(make)


class Setup:
    """`path` is where the client connects, `socket` the engine's own on this computer."""

    def __init__(self, server: Engine, machine: Guest, keeper: Keeper, made: EngineProxy) -> None:
        self.made = made
        self.engine, self.guest, self.keeper = server, machine, keeper
        self.path = self.socket = keeper.directory.engine_socket

    @property
    def cut(self) -> bytes:
        """What a client sees of a connection that ends without an answer: the relay cannot know why, and says it in words."""
        return b"" if self.path == self.socket else LOST

    @property
    def dialled(self) -> list[bytes]:
        """Channels to the engine."""
        return [path for path in self.guest.sockets if path == b"/run/docker.sock"]

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        client.connect(str(self.path))
        return client

    def http(self) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection("docker", timeout=30)
        made.sock = self.connect()
        return made

    def says(self, sent: bytes, pieces: int = 0) -> bytes:
        """Everything that comes back until the other side closes."""
        with self.connect() as client:
            for start in range(0, len(sent), pieces or len(sent)):
                client.sendall(sent[start : start + (pieces or len(sent))])
            return everything(client)


def everything(client: socket.socket) -> bytes:
    got = b""
    while data := client.recv(65536):
        got += data
    return got


def until(client: socket.socket, end: bytes) -> bytes:
    got = b""
    while end not in got:
        data = client.recv(65536)
        assert data, got
        got += data
    return got


@contextlib.contextmanager
def host_proxy(tmp_path: Path, short: str) -> Iterator[Setup]:
    with engine(Path(short) / "e") as server, guest(tmp_path) as machine:
        machine.engine = server.path
        keeper = Keeper(machine.machine, machine.connect)
        made = EngineProxy(keeper)
        made.start()
        yield Setup(server, machine, keeper, made)
        made.close()
        keeper.link.drop()


@contextlib.contextmanager
def relayed(setup: Setup, short: str) -> Iterator[None]:
    """The client moves into the guest."""
    clients, channels = Path(short) / "c", Path(short) / "k"
    setup.guest.places[GUEST_CHANNELS.encode()] = channels
    answer = Path(short) / "a"
    answer.write_bytes(LOST)
    process = subprocess.Popen([helper("relay"), "-a", answer, clients, channels])
    _wait(channels.exists)  # the guest here, unlike sshd, opens a channel before it has connected
    pooled = Link(setup.guest.connect)
    pool = RelayPool(pooled, GUEST_CHANNELS, setup.made.serve)
    try:
        pooled.get()
        assert pool.usable(30)
        setup.path = clients
        yield
    finally:
        pooled.drop()
        pool.close()
        process.kill()
        process.wait()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    """With a client on this computer."""
    with tempfile.TemporaryDirectory(prefix="w") as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        with host_proxy(tmp_path, short) as setup:
            yield setup


@pytest.fixture(params=["host", "guest"])
def proxy(here: Setup, request: pytest.FixtureRequest) -> Iterator[Setup]:
    """With a client here, and once more with one in the guest."""
    with relayed(here, str(here.engine.path.parent)) if request.param == "guest" else contextlib.nullcontext():
        yield here


def test_the_socket_is_its_owners_alone(here: Setup) -> None:
    found = here.path.lstat()
    assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE(here.path.parent.stat().st_mode) == 0o700
    assert here.guest.sockets == []  # a client that says nothing costs the machine nothing
    here.says(PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert here.guest.sockets == [b"/run/docker.sock"]


def test_one_connection_serves_many_requests(proxy: Setup) -> None:
    client = proxy.http()
    for path in ("/_ping", "/v1.41/info?a=%20b", "/chunked?n=100000", "/empty", "/last"):
        client.request("GET", path)
        with client.getresponse() as answer:
            body = answer.read()
        assert len(body) == 100_000 if "chunked" in path else body in (b"", b"OK " + path.encode())
    client.request("HEAD", "/x")
    assert client.getresponse().read() == b""
    client.request("POST", "/auth", b"x" * 70_000)
    assert client.getresponse().read() == b"70000"
    client.close()
    assert proxy.engine.accepted == 1
    assert [seen.target for seen in proxy.engine.seen][1] == "/v1.41/info?a=%20b"


def test_bytes_go_on_as_they_came(proxy: Setup) -> None:
    """Case, order and blanks of headers, chunk extensions, trailers."""
    sent = (
        b"POST /x/%2e%2e/y HTTP/1.1\r\nhOST:docker\r\nX-One:  1 \r\nx-one: 2\r\n"
        b"Transfer-Encoding: chunked\r\nTrailer: T\r\n\r\n"
        b"5;a=b\r\nhello\r\n0\r\nT: v\r\n\r\n"
    )
    with tempfile.TemporaryDirectory(prefix="w") as short, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{short}/e")
        listening.listen()
        proxy.guest.engine = Path(short) / "e"
        with proxy.connect() as client:
            client.sendall(sent)
            stream, _ = listening.accept()
            with stream:
                assert until(stream, b"T: v\r\n\r\n") == sent
                answer = b"HTTP/1.1 299 Very  odd\r\nx-A:  1\r\nContent-Length: 2\r\n\r\nok"
                stream.sendall(answer)
                assert until(client, b"ok") == answer


@pytest.mark.parametrize("pieces", [1, 7, 100_000])
def test_pipelined_requests_are_answered_in_order(proxy: Setup, pieces: int) -> None:
    many = b"".join(b"GET /%d HTTP/1.1\r\nHost: d\r\n\r\n" % number for number in range(20))
    posted = b"POST /p HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n\r\nabc"
    chunked = b"POST /c HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n"
    last = b"GET /last HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    got = proxy.says(many + posted + chunked + last, pieces)
    bodies = [part.split(b"\r\n\r\n")[1] for part in got.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [b"OK /%d" % number for number in range(20)] + [b"3", b"4", b"OK /last"]
    assert [seen.body for seen in proxy.engine.seen][20:22] == [b"abc", b"abcd"]


@pytest.mark.parametrize(
    "upgrade", [b"Connection: Upgrade\r\nUpgrade: tcp\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b""]
)
@pytest.mark.parametrize("together", [False, True], ids=["asks-first", "at-once"])
def test_a_stream_is_opaque_and_half_closes(proxy: Setup, upgrade: bytes, together: bool) -> None:
    """What looks like a request in it is none; the good-bye after the end of the input arrives."""
    head = b"POST /v1.41/containers/x/attach?stdin=1 HTTP/1.1\r\nHost: d\r\n%sContent-Length: 0\r\n\r\n" % upgrade
    stream = b"POST /containers/create HTTP/1.1\r\n\r\n\0\xff" + bytes(range(256)) * 2000
    assert proxy.made.working() == 0
    with proxy.connect() as client:
        client.sendall(head + (stream if together else b""))
        got = b"" if together else until(client, b"\r\n\r\n")
        assert together or proxy.made.working() == 1
        echoed: list[bytes] = []
        reader = threading.Thread(target=lambda: echoed.append(everything(client)))
        reader.start()
        if not together:
            client.sendall(stream)
        client.shutdown(socket.SHUT_WR)
        reader.join(30)
    got += echoed[0]
    answer, _, rest = got.partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101" if upgrade else b"HTTP/1.1 200")
    assert rest == stream + b"bye"


def test_a_client_that_ends_ends_its_request(proxy: Setup) -> None:
    """logs -f and Ctrl-C; with the output alone closed as well, as a server sees it."""
    for number, half in enumerate([False, True], 1):
        with proxy.connect() as client:
            client.sendall(b"GET /silent HTTP/1.1\r\nHost: d\r\n\r\n")
            until(client, b"\r\n\r\n")
            assert proxy.made.working() == 0
            if half:
                client.shutdown(socket.SHUT_WR)
                assert everything(client) == b""
        proxy.engine.wait(lambda wanted=number: proxy.engine.gone == wanted)  # type: ignore[misc]


def test_a_client_that_dies_on_a_silent_stream_leaves_nothing(here: Setup) -> None:
    others = set(_relay_threads())  # of tests before
    with here.connect() as client:
        client.sendall(b"POST /containers/deaf/attach HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        until(client, b"\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.2)
        assert len(set(_relay_threads()) - others) == 2  # it may still read
    _wait(lambda: not set(_relay_threads()) - others)
    assert here.engine.gone == 0
    here.engine.reading.set()


def test_a_server_that_closes_is_seen(proxy: Setup) -> None:
    assert proxy.says(b"GET /dropped HTTP/1.1\r\nHost: d\r\n\r\n") == proxy.cut
    assert b"OK /old" in proxy.says(b"GET /old HTTP/1.0\r\n\r\n")


# What is rewritten and refused.


def create(body: Any, target: bytes = b"/v1.41/containers/create?name=x", extra: bytes = b"") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\nHost: d\r\nConnection: close\r\n%sContent-Length: %d\r\n\r\n%s" % (
        target,
        extra,
        len(data),
        data,
    )


def test_a_create_without_binds_arrives_as_it_was(proxy: Setup) -> None:
    body = b'{ "Image": "x\\u00e9",  "HostConfig": {"Binds": ["volume:/v", "/dev/shm:/s"], "Memory": 12345678901234567890}}'
    assert proxy.says(create(body, extra=b"X-Registry-Auth: abc\r\n")).startswith(b"HTTP/1.1 201")
    assert proxy.engine.seen[0].body == body
    assert proxy.engine.seen[0].headers["X-Registry-Auth"] == "abc"
    assert proxy.engine.seen[0].target == "/v1.41/containers/create?name=x"


def test_our_own_socket_becomes_the_engines(proxy: Setup) -> None:
    for config in ({"Binds": [f"{proxy.socket}:/var/run/docker.sock:ro"]},
                   {"Mounts": [{"Type": "bind", "Source": str(proxy.socket), "Target": "/d"}]}):  # fmt: skip
        assert proxy.says(create({"Image": "x", "HostConfig": config})).startswith(b"HTTP/1.1 201")
    first, second = (json.loads(seen.body)["HostConfig"] for seen in proxy.engine.seen)
    assert first["Binds"] == ["/run/docker.sock:/var/run/docker.sock:ro"]
    assert second["Mounts"][0]["Source"] == "/run/docker.sock"


@pytest.mark.parametrize(
    "target",
    [
        b"/containers/create", b"/v1.41/containers/create", b"//v1.41/containers/create", b"/v1.41//containers/create?name=a",
        b"/v1.41/containers/cre%61te", b"/v1.41/x/../containers/create", b"/v1.41/containers/./create",
        b"/v1.41/containers/create/", b"/v1.41/%63ontainers%2Fcreate", b"http://docker/v1.41/containers/create",
        b"/v1.41/..//v1.52/containers/create",
        b"/v1.41/containers/create?x=/../..",
        b"x:/v1.41/containers/create",
        b"http:/containers/create",
    ],
)  # fmt: skip
def test_no_spelling_of_the_path_gets_past_the_check(proxy: Setup, target: bytes) -> None:
    got = proxy.says(create({"HostConfig": {"Binds": ["/home/me:/x"]}}, target))
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"application/json" in head
    assert "not shared" in json.loads(body)["message"]
    assert proxy.engine.seen == [] and proxy.dialled == []


@pytest.mark.parametrize("target", [b"/services/create", b"/v1.44/services/abc/update?version=3"])
def test_a_services_mounts_are_checked(proxy: Setup, target: bytes) -> None:
    def service(source: str) -> bytes:
        mounts = [{"Type": "bind", "Source": source, "Target": "/x"}]
        return create({"Name": "s", "TaskTemplate": {"ContainerSpec": {"Image": "x", "Mounts": mounts}}}, target)

    assert proxy.says(service("/home/me")).startswith(b"HTTP/1.1 400")
    assert proxy.engine.seen == []
    assert proxy.says(service(str(proxy.socket))).startswith(b"HTTP/1.1 2")
    spec = json.loads(proxy.engine.seen[0].body)["TaskTemplate"]["ContainerSpec"]
    assert spec["Mounts"][0]["Source"] == "/run/docker.sock"


@pytest.mark.parametrize("target", [b"/volumes/create", b"/v1.44//volumes/cre%61te?x"])
def test_a_volume_that_is_a_folder_is_checked(proxy: Setup, target: bytes) -> None:
    def volume(device: str) -> bytes:
        return create({"Name": "v", "DriverOpts": {"type": "none", "o": "bind", "device": device}}, target)

    got = proxy.says(volume("/home/me"))
    assert got.startswith(b"HTTP/1.1 400") and b"not shared" in got and proxy.engine.seen == []
    assert proxy.says(volume("/dev/shm")).startswith(b"HTTP/1.1 2")
    assert json.loads(proxy.engine.seen[0].body)["DriverOpts"]["device"] == "/dev/shm"


def test_a_link_to_our_socket_is_our_socket(proxy: Setup, tmp_path: Path) -> None:
    """What `wherry link socket` makes, and where a library that found it there mounts it from."""
    link_to_it = tmp_path / "docker.sock"
    link_to_it.symlink_to(proxy.socket)
    for source in (str(link_to_it), "/var/run/docker.sock", "/var/run/wherry/engine.sock"):
        assert proxy.says(create({"HostConfig": {"Binds": [f"{source}:/d"]}})).startswith(b"HTTP/1.1 201")
    binds = [json.loads(seen.body)["HostConfig"]["Binds"] for seen in proxy.engine.seen]
    assert binds == [["/run/docker.sock:/d"], ["/var/run/docker.sock:/d"], ["/run/docker.sock:/d"]]


def test_windows_paths_become_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "current", lambda: windows)
    share = Share("home", r"C:\Users\me", "/c/Users/me", ("/mnt/c/Users/me",), False)
    rules = Rules(folders=Folders(lambda: [share]))
    mounts = [
        {"Type": "bind", "Source": "C:/Users/me/b", "Target": "/y"}, {"Type": "volume", "Source": "v", "Target": "/z"},
        {"Type": "bind", "Source": "/mnt/c/Users/me/c", "Target": "/z"},
        {"Type": "bind", "Source": "/c/Users/me", "Target": "/z"},
    ]  # fmt: skip
    body = {"HostConfig": {"Binds": ["C:\\Users\\me\\a:/x:ro", "name:/v"], "Mounts": mounts}}
    got = json.loads(rewrite(json.dumps(body).encode(), rules))["HostConfig"]
    assert got["Binds"] == ["/c/Users/me/a:/x:ro", "name:/v"]
    assert [mount["Source"] for mount in got["Mounts"]] == ["/c/Users/me/b", "v", "/c/Users/me/c", "/c/Users/me"]
    for config in ({"Binds": ["C:\\Users\\you:/x"]}, {"Mounts": [{"Type": "Bind", "Source": "D:/x"}]}):
        with pytest.raises(Refusal, match="not shared"):
            rewrite(json.dumps({"HostConfig": config}).encode(), rules)


def test_a_refusal_leaves_the_connection_usable(proxy: Setup) -> None:
    client = proxy.http()
    for _ in range(3):
        client.request("POST", "/containers/create", json.dumps({"HostConfig": {"Binds": ["/etc:/x"]}}))
        refused = client.getresponse()
        assert (refused.status, "not shared" in json.load(refused)["message"]) == (400, True)
        client.request("POST", "/containers/create", b'{"Image":"x"}')
        assert client.getresponse().read() == b'{"Id":"abc"}'
    client.close()


@pytest.mark.parametrize("pieces", [1, 0])
def test_a_chunked_create_is_checked_and_gets_a_length(proxy: Setup, pieces: int) -> None:
    body = json.dumps({"HostConfig": {"Binds": [f"{proxy.socket}:/d"]}}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 10]), body[at : at + 10]) for at in range(0, len(body), 10))
    head = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert proxy.says(head + chunks + b"0\r\n\r\n", pieces).startswith(b"HTTP/1.1 201")
    seen = proxy.engine.seen[0]
    assert seen.headers["Content-Length"] == str(len(seen.body)) and "Transfer-Encoding" not in seen.headers
    assert json.loads(seen.body)["HostConfig"]["Binds"] == ["/run/docker.sock:/d"]


def test_a_create_that_waits_for_100_gets_it_once(proxy: Setup) -> None:
    with proxy.connect() as client:
        client.sendall(b"POST /containers/create HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.sendall(b"{}")
        assert until(client, b'{"Id":"abc"}').startswith(b"HTTP/1.1 201")
    assert "Expect" not in proxy.engine.seen[0].headers


def test_another_request_that_waits_for_100_gets_the_engines(proxy: Setup) -> None:
    with proxy.connect() as client:
        client.sendall(b"POST /other HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.sendall(b"{}")
        assert until(client, b"\r\n\r\n2").startswith(b"HTTP/1.1 200")


def test_the_largest_body_passes_and_one_byte_more_does_not(proxy: Setup) -> None:
    largest = b'{"a":"' + b"x" * ((16 << 20) - 8) + b'"}'
    assert proxy.says(create(largest)).startswith(b"HTTP/1.1 201")
    assert len(proxy.engine.seen[0].body) == 16 << 20
    head = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % ((16 << 20) + 1)
    assert proxy.says(head).startswith(b"HTTP/1.1 413")
    unknown = (
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"100000\r\n%s\r\n" % bytes(1 << 20) * 17
    )
    assert proxy.says(unknown).startswith(b"HTTP/1.1 413")
    assert len(proxy.engine.seen) == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),  # TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (b"POST /x HTTP/1.0\r\nHost: d\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: d\r\nX: " + b"x" * (2 << 20) + b"\r\n\r\n", 431),
        (create(b"not json"), 400),
        (create(b"[" * 100_000), 400),
        (create(b'{"HostConfig":{"Binds":["/etc:/x"]},"HostConfig":{}}'), 400),
    ],
)
def test_what_cannot_be_read_is_not_passed_on(proxy: Setup, sent: bytes, status: int) -> None:
    got = proxy.says(sent)
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), got
    assert json.loads(body)["message"]
    assert proxy.engine.seen == []


def test_a_chunk_that_cannot_be_read_cuts_the_connection(proxy: Setup) -> None:
    """Nobody knows what the engine would make of what follows."""
    head, good, bad = b"POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n", b"zz\r\n"
    assert proxy.says(head + good + bad).startswith(b"HTTP/1.1 400")
    with proxy.connect() as client:
        client.sendall(head + good)
        proxy.engine.wait(lambda: proxy.engine.accepted == 1)
        client.sendall(bad + b"0\r\n\r\n" + PING)
        assert everything(client) == proxy.cut
    assert proxy.engine.seen == []


# The way there.


def test_clients_wait_for_the_start(proxy: Setup) -> None:
    proxy.keeper.ready.clear()
    with proxy.connect() as client:
        client.sendall(PING)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(30)
        proxy.keeper.ready.set()
        assert until(client, b"OK /_ping").startswith(b"HTTP/1.1 200")


def test_a_machine_that_does_not_run_is_said(proxy: Setup) -> None:
    proxy.keeper.error = NotRunning("machine 'default' is stopping.", hint="wherry up")
    client = proxy.http()
    client.request("GET", "/_ping")
    answer = client.getresponse()
    assert answer.status == 503
    assert json.load(answer) == {"message": "machine 'default' is stopping. (wherry up)"}
    client.request("HEAD", "/_ping")  # docker's own first word
    answer = client.getresponse()
    assert (answer.status, answer.read()) == (503, b"")
    client.request("GET", "/_ping")
    assert client.getresponse().status == 503
    client.close()


def test_a_connection_that_breaks_before_the_answer_is_said(proxy: Setup) -> None:
    with proxy.connect() as client:
        client.sendall(b"POST /slow HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        proxy.engine.wait(lambda: proxy.engine.accepted == 1)
        _wait(lambda: proxy.made.working() == 1)  # the engine has the connection a moment before the request is on its way
        proxy.guest.drop()
        got = everything(client)
    assert got.startswith(b"HTTP/1.1 503") and b"connection to the machine ended" in got
    proxy.engine.reading.set()


class StrangePorts:
    """Ports of a keeper with a mistake in it; a start is told to `told`."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def before_create(
        self, _settings: dict[str, Any], _image: str, _exposed: list[str]
    ) -> tuple[bool, Callable[[int, bytes], None]]:
        return False, lambda _status, _body: None

    def before_start(
        self, reference: str, *, restart: bool = False, check: Callable[[dict[str, Any]], None]
    ) -> Callable[[int], None]:
        assert not restart and check
        if reference == "strange":
            raise ValueError(reference)
        return self.told.append

    def shown(self, _body: bytes) -> bytes:
        raise KeyError("Ports")


@pytest.fixture
def strange(here: Setup) -> StrangePorts:
    here.made._ports = made = StrangePorts()
    return made


@pytest.mark.usefixtures("strange")
def test_a_mistake_of_ours_about_ports_is_not_the_clients(here: Setup) -> None:
    client = here.http()
    for method, target in (("POST", "/containers/strange/start"), ("GET", "/containers/json")):
        client.request(method, target)
        assert client.getresponse().read()
    client.close()
    assert [seen.target for seen in here.engine.seen] == ["/containers/strange/start", "/containers/json"]


def test_a_start_that_gets_no_further_is_told_as_none(here: Setup, strange: StrangePorts) -> None:
    """And not by the answer to what the connection is used for next."""
    here.keeper.error = NotRunning("the machine stops.")
    client = here.http()
    client.request("POST", "/containers/abc/start")
    assert client.getresponse().read()
    assert strange.told == [0]
    here.keeper.error = None
    client.request("GET", "/_ping")
    assert client.getresponse().read() == b"OK /_ping"
    client.close()
    assert strange.told == [0]


def test_a_connection_that_breaks_before_an_answer_without_body(here: Setup) -> None:
    with here.connect() as client:
        client.sendall(b"HEAD /silent HTTP/1.1\r\nHost: d\r\n\r\n")
        assert until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    with here.connect() as client:
        client.sendall(b"HEAD /late HTTP/1.1\r\nHost: d\r\n\r\n")
        here.engine.wait(lambda: any(seen.target == "/late" for seen in here.engine.seen))
        here.guest.drop()
        got = everything(client)
    here.engine.reading.set()
    assert got.startswith(b"HTTP/1.1 503") and got.endswith(b"\r\n\r\n")


def test_listening_goes_on_when_there_was_no_room(
    here: Setup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the end of all descriptors nor that of all threads is the end of the socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    start = threading.Thread.start
    refused = threading.Event()

    def no_thread(thread: threading.Thread) -> None:
        if thread.name == "engine-up" and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.settimeout(30)
        taken = [os.dup(0) for _ in range(3)]  # the lowest that are free: none is left below the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
        try:
            waiting.connect(str(here.path))
            _wait(lambda: "Too many open files" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for one in taken:
                os.close(one)
        waiting.sendall(PING)
        assert until(waiting, b"OK /_ping")
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with here.connect() as client:
        assert client.recv(1) == b""
    assert refused.is_set()
    with here.connect() as client:
        client.sendall(PING)
        assert until(client, b"OK /_ping")


def test_a_connection_that_breaks_while_the_engine_is_dialled_is_replaced(here: Setup) -> None:
    here.guest.drops = 1
    with here.connect() as client:
        client.sendall(PING)
        assert until(client, b"OK /_ping").startswith(b"HTTP/1.1 200")
    assert len(here.guest.sockets) == 2


def test_a_connection_that_does_not_come_back_is_said(here: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CALLS_WAIT", 0.3)
    here.keeper.link.get()

    def nobody(_patience: float) -> Connection:
        raise ConnectionLost("nobody is there")

    monkeypatch.setattr(here.keeper.link, "_reconnect", nobody)
    here.guest.drops = 1
    got = here.says(PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert got.startswith(b"HTTP/1.1 503") and b"has not answered for" in got


def test_a_connection_that_is_refused_is_said(proxy: Setup) -> None:
    proxy.guest.refused.add("direct-streamlocal@openssh.com")
    got = proxy.says(PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert got.startswith(b"HTTP/1.1 503") and b"cannot be reached" in got


# What it costs.


def _relay_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("engine-")]


def _wait(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_many_calls_leave_nothing(here: Setup) -> None:
    def call(_: int) -> bool:
        return b"OK /_ping" in here.says(PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    call(0)
    process = psutil.Process()
    _wait(lambda: not _relay_threads())
    before = process.num_fds()
    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(call, range(300)))
    _wait(lambda: not _relay_threads())
    _wait(lambda: process.num_fds() <= before)
    transport = here.keeper.link.get()._transport
    _wait(lambda: not transport._held)
    assert len(transport.channels_seen) == CLOSED_KNOWN


def test_two_hundred_at_once(proxy: Setup) -> None:
    clients = [proxy.connect() for _ in range(200)]
    for client in clients:
        client.sendall(PING)
    for client in clients:
        assert until(client, b"OK /_ping").startswith(b"HTTP/1.1 200")
        client.close()


def test_nothing_is_said_about_a_channel_after_its_close(proxy: Setup) -> None:
    """Clients that end at once, in the middle of an answer, and with the input still coming."""

    def call(number: int) -> None:
        with proxy.connect() as client:
            if number % 3 == 0:
                client.sendall(b"GET /dropped HTTP/1.1\r\nHost: d\r\n\r\n")
                assert everything(client) == proxy.cut
            elif number % 3 == 1:
                client.sendall(b"GET /chunked?n=3000000 HTTP/1.1\r\nHost: d\r\n\r\n")
                client.recv(1000)
            else:
                client.sendall(b"POST /containers/x/attach HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n" + bytes(50_000))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(call, range(300)))
    _wait(lambda: not _relay_threads())
    assert proxy.guest.strays == []


def test_new_keys_while_channels_come_and_go(proxy: Setup) -> None:
    """Keys are exchanged anew each 512 MB; nothing may wait for the thread that reads them."""
    packetizer = proxy.keeper.link.get()._transport.packetizer
    packetizer.REKEY_BYTES = 1 << 20

    def call(_: int) -> int:
        with proxy.connect() as client:
            client.sendall(b"GET /chunked?n=500000 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
            return len(everything(client))

    with ThreadPoolExecutor(10) as pool:
        assert min(pool.map(call, range(60))) > 500_000
    assert proxy.keeper.link.get().alive and proxy.guest.strays == []


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_memory_is_flat_for_large_bodies(proxy: Setup) -> None:
    size = 64 << 20
    client = proxy.http()
    client.request("GET", f"/chunked?n={1 << 20}")
    client.getresponse().read()
    before, got = _peak(), 0
    client.request("GET", f"/chunked?n={size}")
    answer = client.getresponse()
    while data := answer.read(1 << 16):
        got += len(data)
    client.request(
        "POST",
        "/count",
        (bytes(1 << 16) for _ in range(size >> 16)),
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    assert (got, client.getresponse().read()) == (size, b"%d" % size)
    client.close()
    assert _peak() - before < 32 << 20


def test_a_client_that_does_not_read_holds_up_the_engine(proxy: Setup) -> None:
    """And nobody else."""
    with proxy.connect() as lazy:
        lazy.sendall(b"GET /chunked?n=%d HTTP/1.1\r\nHost: d\r\n\r\n" % (256 << 20))
        until(lazy, b"\r\n\r\n")
        before = _peak()
        for _ in range(20):
            assert b"OK /_ping" in proxy.says(PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert _peak() - before < 32 << 20


def test_an_engine_that_does_not_read_holds_up_the_client(proxy: Setup) -> None:
    with proxy.connect() as eager:
        eager.sendall(b"POST /slow HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        eager.settimeout(1)
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                sent += eager.send(bytes(1 << 16))
        assert sent < 32 << 20
        assert b"OK /_ping" in proxy.says(PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    proxy.engine.reading.set()


def test_a_path_that_is_too_long_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    keeper = Keeper(MachineDir("m", tmp_path / "m"), None)  # type: ignore[arg-type]
    with pytest.raises(WherryError, match="too long"):
        EngineProxy(keeper).start()
    assert os.listdir(long) == []
