"""A machine from the network: `up` fetches the ISO that the release is pinned to, is killed, goes on, and starts it."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from launcher import host
from tests.isoserver import ETAG, Behaviour, Connection, IsoServer, Request, first
from tests.vm.driver import START_SECONDS, Driver

BUILD = Path(__file__).parent.parent.parent / "build"
NAME = f"wherry-{host.native_arch()}"


def part_of(file: Path) -> Behaviour:
    """The file, or the rest of it, in pieces: it is large."""

    def behave(connection: Connection, request: Request) -> None:
        size, start = file.stat().st_size, request.start or 0
        described = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
        connection.head(206 if start else 200, Content_Length=size - start, ETag=ETAG, **described)
        with file.open("rb") as source:
            source.seek(start)
            while data := source.read(1 << 20):
                connection.send(data)

    return behave


@pytest.fixture
def stalled() -> threading.Event:
    return threading.Event()


@pytest.fixture
def server(driver: Driver, stalled: threading.Event) -> Iterator[IsoServer]:
    """An HTTPS server that the driver's commands trust, with the ISO that was built; its first answer never comes to an end."""
    iso = BUILD / f"{NAME}.iso"

    def half(connection: Connection, request: Request) -> None:
        connection.head(200, Content_Length=iso.stat().st_size, ETag=ETAG)
        with iso.open("rb") as source:
            connection.send(source.read(iso.stat().st_size // 2))
        stalled.set()
        connection.stall()

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    made = IsoServer(context)
    made.paths = {f"/{NAME}.iso": first(1, half, part_of(iso)), f"/{NAME}.json": part_of(iso.with_suffix(".json"))}
    authority.cert_pem.write_to_path(str(driver.path / "ca.pem"))
    manifest = json.loads(iso.with_suffix(".json").read_text())
    pins = f'[iso.{host.native_arch()}]\nfile = "{NAME}.iso"\nsha256 = "{manifest["sha256"]}"\nsize = {manifest["size"]}\n'
    (driver.path / "release.toml").write_text(pins)
    driver.environment |= {
        "WHERRY_RELEASE": str(driver.path / "release.toml"),
        "WHERRY_MIRRORS": made.url(),
        "SSL_CERT_FILE": str(driver.path / "ca.pem"),
        "NO_PROXY": "localhost",
    }
    yield made
    made.close()


def test_up_fetches_what_the_release_is_pinned_to_and_survives_a_kill(
    driver: Driver, server: IsoServer, stalled: threading.Event
) -> None:
    cache = driver.path / "home" / "cache" / "iso"
    with driver.popen("up") as command:
        assert stalled.wait(300)
        command.kill()
    [part] = [file for file in cache.iterdir() if file.suffix != ".json"]
    kept = part.stat().st_size
    assert kept > 1 << 20
    assert driver.wherry("status").returncode == 3
    assert driver.wherry("iso", "list", "-q").stdout == b""

    done = driver.wherry("up", timeout=START_SECONDS)
    assert done.returncode == 0, done.stderr.decode()
    assert [request.start for request in server.asked(f"/{NAME}.iso")] == [None, kept]
    assert driver.docker("run", "--rm", "wherry.internal/hello", "echo", "here") == "here\n"
    [iso] = json.loads(driver.wherry("iso", "list", "--json").stdout)["data"]
    assert (iso["machines"], iso["pinned"], iso["origin"]) == (["default"], True, "release")
    assert [file.name for file in cache.iterdir()] == [iso["sha256"]]
    assert driver.wherry("iso", "verify").returncode == 0
    assert driver.wherry("iso", "prune", "--yes").stderr == b"There is nothing to remove.\n"
    assert driver.status()["status"] == "running"


def test_ctrl_c_before_the_first_byte(driver: Driver, server: IsoServer) -> None:
    asked = threading.Event()

    def silent(connection: Connection, request: Request) -> None:
        asked.set()
        connection.stall()

    server.paths[f"/{NAME}.iso"] = silent
    with driver.popen("up", stderr=subprocess.PIPE) as command:
        assert asked.wait(300)
        command.send_signal(signal.SIGINT)
        said = command.communicate(timeout=60)[1].decode()
    assert (command.returncode, said) == (130, "wherry: interrupted before there was a machine.\n        wherry up\n")
    assert list((driver.path / "home" / "cache" / "iso").iterdir()) == []
    assert driver.wherry("status").returncode == 3
