"""Downloads from a real server that misbehaves: the right error or the right file, every time, and nothing half-written."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme

from launcher import __version__, guestfiles, images
from launcher.errors import IsoProblem
from launcher.images import Iso, Transport, parse_source
from launcher.images.partial import PREFIX
from launcher.report import SilentReporter
from tests.isoserver import ETAG, Behaviour, Connection, IsoServer, Request, first, well
from tests.tinyiso import ROOT, iso_bytes

ISO = iso_bytes(root=ROOT + os.urandom(200_000))
SHA = hashlib.sha256(ISO).hexdigest()
SIZE = len(ISO)
MANIFEST = json.dumps(
    {"format": 1, "version": __version__, "architecture": "amd64", "sha256": SHA, "size": SIZE, "kernel": "6.12"}
).encode()
OTHER = bytes(len(ISO))  # of the same size
GOOD = well(ISO)
PATH = "/r/wherry-amd64.iso"
HALF = SIZE // 2


class Told(SilentReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.progressed: list[tuple[str, int, int]] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def progress(self, name: str, done: int, total: int) -> None:
        self.progressed.append((name, done, total))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    made = trustme.CA(organization_name="Wherry Tests")
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    made.cert_pem.write_to_path(str(file))
    return made, file


def tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@dataclass
class Bench:
    """A release that is pinned to ISO, one server, and an empty cache."""

    server: IsoServer
    authority: trustme.CA
    transport: Transport
    cache: Path
    release: Path
    told: Told
    more: list[IsoServer]

    def up(self) -> Iso:
        return images.resolve("amd64", None, self.told, self.transport)

    def impatient(self, really: bool = True) -> None:
        """For servers that stall; others must not be taken for one on a busy computer."""
        self.transport = replace(self.transport, stall=3.0 if really else 20)

    def from_url(self, path: str = PATH, sha: str = SHA, arch: str = "amd64") -> Iso:
        return images.resolve(arch, parse_source(f"{self.server.url(path)}#sha256={sha}"), self.told, self.transport)

    def serve(self, behave: Behaviour, path: str = PATH) -> None:
        self.server.paths[path] = behave

    def another(self, context: ssl.SSLContext | None) -> IsoServer:
        server = IsoServer(context)
        self.more.append(server)
        return server

    def left(self) -> set[str]:
        """What is in the cache, by the beginning of its name."""
        names = os.listdir(self.cache) if self.cache.exists() else []
        return {"iso" if name == SHA else PREFIX if name.startswith(PREFIX) else name for name in names}

    def kept(self) -> int:
        return (self.cache / f"{PREFIX}{SHA}").stat().st_size

    def asked(self, path: str = PATH) -> list[Request]:
        return self.server.asked(path)


@pytest.fixture
def bench(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: tuple[trustme.CA, Path]
) -> Iterator[Bench]:  # fmt: skip
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(guestfiles, "checkout", lambda: None)
    ca, file = authority
    monkeypatch.setenv("SSL_CERT_FILE", str(file))  # the system's store: small, so that each connection is quick
    server = IsoServer(tls(ca.issue_cert("localhost")))
    server.paths["/r/wherry-amd64.json"] = well(MANIFEST)
    release = tmp_path / "release.toml"
    release.write_text(f'[iso.amd64]\nfile = "wherry-amd64.iso"\nsha256 = "{SHA}"\nsize = {SIZE}\n')
    monkeypatch.setenv("WHERRY_RELEASE", str(release))
    monkeypatch.setenv("WHERRY_MIRRORS", server.url("/r"))
    told = Told()
    server.arrived = lambda: told.progressed[-1][1] if told.progressed else 0
    transport = Transport(stall=20, attempts=3, first_wait=0.01, longest_wait=0.02)
    made = Bench(server, ca, transport, home / "cache" / "iso", release, told, [])
    yield made
    for one in [server, *made.more]:
        one.close()


def status(code: int, **headers: str | int) -> Behaviour:
    return lambda connection, request: connection.answer(code, b"no", **headers)


def cut(at: Callable[[Request], int], *, reset: bool = True, then: Behaviour = GOOD) -> Behaviour:
    """The first answer breaks off after that many bytes; what is asked then is answered well."""

    def behave(connection: Connection, request: Request) -> None:
        connection.head(200, Content_Length=SIZE, ETag=ETAG)
        connection.send(ISO[: at(request)])
        if reset:
            connection.reset(at(request))

    return first(1, behave, then)


def always_breaks_off(connection: Connection, request: Request) -> None:
    """A tenth with every answer, from wherever it is asked."""
    start = request.start or 0
    connection.head(206 if start else 200, Content_Length=SIZE - start, ETag=ETAG,
                    **{"Content-Range": f"bytes {start}-{SIZE - 1}/{SIZE}"} if start else {})  # fmt: skip
    connection.send(ISO[start : start + SIZE // 10])
    connection.reset(start + SIZE // 10)


def ignores_ranges(connection: Connection, request: Request) -> None:
    connection.answer(200, ISO)


def part(first_byte: int | None = None, total: int | str = SIZE, etag: str = ETAG, raw: str | None = None) -> Behaviour:
    """Answers a request for the rest with a part that is described, or is, wrong."""

    def behave(connection: Connection, request: Request) -> None:
        if request.start is None:
            connection.answer(200, ISO, ETag=etag)
            return
        start = request.start if first_byte is None else first_byte
        said = raw if raw is not None else f"bytes {start}-{SIZE - 1}/{total}"
        connection.answer(206, ISO[start:], Content_Range=said, ETag=etag)

    return behave


def chunked(data: bytes, *, ends: bool = True) -> Behaviour:
    def behave(connection: Connection, request: Request) -> None:
        connection.head(200, Transfer_Encoding="chunked")
        for at in range(0, len(data), 50_000):
            piece = data[at : at + 50_000]
            connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.send(b"0\r\n\r\n" if ends else b"")

    return behave


def no_length(data: bytes) -> Behaviour:
    def behave(connection: Connection, request: Request) -> None:
        connection.head(200)
        connection.send(data)

    return behave


def endless(connection: Connection, request: Request) -> None:
    connection.head(200, Content_Type="application/octet-stream")
    while True:
        connection.send(ISO)


def stalls(after: int) -> Behaviour:
    def behave(connection: Connection, request: Request) -> None:
        if after >= 0:
            connection.head(200, Content_Length=SIZE, ETag=ETAG)
            connection.send(ISO[:after])
        connection.stall()

    return behave


def garbage(connection: Connection, request: Request) -> None:
    connection.send(b"\x00\x01 this is not HTTP \xff\r\n\r\n" * 50)


def redirect(code: int, location: str | None) -> Behaviour:
    def behave(connection: Connection, request: Request) -> None:
        connection.answer(code, **({"Location": location} if location is not None else {}))

    return behave


# Named behaviours after which the right file is there.
RIGHT: dict[str, Behaviour] = {
    "200": GOOD,
    "200 by chunks": chunked(ISO),
    "200 without a length": no_length(ISO),
    "301": redirect(301, "/moved.iso"),
    "302": redirect(302, "/moved.iso"),
    "303": redirect(303, "/moved.iso"),
    "307": redirect(307, "/moved.iso"),
    "308": redirect(308, "/moved.iso"),
    "408 once": first(1, status(408), GOOD),
    "429 once": first(1, status(429, Retry_After=0), GOOD),
    "429 once, to be asked in a year": first(1, status(429, Retry_After=31536000), GOOD),
    "429 once, until a date": first(1, status(429, Retry_After="Wed, 21 Oct 2099 07:28:00 GMT"), GOOD),
    "500 twice": first(2, status(500), GOOD),
    "502 once": first(1, status(502), GOOD),
    "503 twice": first(2, status(503, Retry_After="soon"), GOOD),
    "504 once": first(1, status(504), GOOD),
    **{f"a reset after {tenth} tenths": cut(lambda _, tenth=tenth: SIZE * tenth // 10) for tenth in range(11)},  # type: ignore[misc]
    "a reset at every tenth": always_breaks_off,
    "a reset instead of an answer": first(1, lambda connection, _: connection.reset(), GOOD),
    "a short body": cut(lambda _: HALF, reset=False),
    "a short body by chunks": first(1, chunked(ISO[:HALF], ends=False), GOOD),
    "a short body without a length": first(1, no_length(ISO[:HALF]), GOOD),
    "ranges ignored": cut(lambda _: HALF, then=ignores_ranges),
    "another part than asked": cut(lambda _: HALF, then=part(first_byte=HALF + 1)),
    "a part before the one asked": cut(lambda _: HALF, then=part(first_byte=0)),
    "a part with a wrong description": cut(lambda _: HALF, then=part(raw="bytes all/everything")),
    "a part without a description": cut(lambda _: HALF, then=part(raw="")),
    "a part of a total unknown": cut(lambda _: HALF, then=part(total="*")),
    "a part of a file that has changed": cut(lambda _: HALF, then=part(etag='"two"')),
    "the rest of a file that has changed": cut(lambda _: HALF, then=well(ISO, '"two"')),
    "416 for the rest": cut(lambda _: HALF, then=first(2, status(416, Content_Range=f"bytes */{SIZE}"), GOOD)),
    "a stall before the answer": first(1, stalls(-1), GOOD),
    "a stall in the middle": first(1, stalls(HALF), GOOD),
    "wrong bytes, then the right rest": first(
        1, lambda connection, _: (connection.head(200, Content_Length=SIZE), connection.send(OTHER[:HALF]))[0], GOOD
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_file(bench: Bench, name: str) -> None:
    bench.impatient("stall" in name)
    bench.serve(RIGHT[name])
    bench.serve(GOOD, "/moved.iso")
    bench.serve(well(MANIFEST), "/moved.json")
    iso = bench.up()
    assert iso.path.read_bytes() == ISO and iso.manifest["kernel"] == "6.12"
    assert bench.left() == {"iso"}
    assert bench.told.progressed[-1] == ("download", SIZE, SIZE)
    assert not bench.told.warnings


GONE_ON = {"a short body", "a reset after 5 tenths", "a stall in the middle"}


@pytest.mark.parametrize("name", sorted(GONE_ON))
def test_the_rest_only_is_fetched(bench: Bench, name: str) -> None:
    bench.impatient("stall" in name)
    bench.serve(RIGHT[name])
    bench.up()
    one, two = bench.asked()
    assert one.start is None and two.start is not None and HALF - 1 <= two.start <= HALF
    assert two.headers["if-range"] == ETAG and two.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "name", ["another part than asked", "a part before the one asked", "a part of a file that has changed"]
)
def test_a_wrong_part_is_not_read(bench: Bench, name: str) -> None:
    bench.serve(RIGHT[name])
    bench.up()
    assert [request.start is None for request in bench.asked()] == [True, False, True]


@dataclass(frozen=True)
class Wrong:
    """A behaviour, what is said of it, and what is left in the cache."""

    behave: Behaviour
    says: str
    keeps: bool = False
    times: int = 1  # how often it was asked


WRONG: dict[str, Wrong] = {
    "204": Wrong(status(204), "answered 204"),
    "206 unasked": Wrong(lambda c, r: c.answer(206, ISO, Content_Range=f"bytes 0-{SIZE - 1}/{SIZE}"), "a part of the file"),
    "304": Wrong(status(304), "answered 304"),
    "400": Wrong(status(400), "answered 400"),
    "401": Wrong(status(401), "answered 401"),
    "403": Wrong(status(403), "answered 403"),
    "404": Wrong(status(404), r"answered 404 Not Found for https://localhost:\d+/r/wherry-amd64\.iso\."),
    "407": Wrong(status(407), "answered 407"),
    "408 always": Wrong(status(408), r"answered 408 .*also at attempt 3", times=3),
    "410": Wrong(status(410), "answered 410"),
    "416 unasked": Wrong(status(416), "answered 416"),
    "429 always": Wrong(status(429), "answered 429 .*also at attempt 3", times=3),
    "500 always": Wrong(status(500), "answered 500 .*also at attempt 3", times=3),
    "501": Wrong(status(501), "answered 501"),
    "502 always": Wrong(status(502), "answered 502", times=3),
    "503 always": Wrong(status(503, Retry_After=99), "answered 503", times=3),
    "504 always": Wrong(status(504), "answered 504", times=3),
    "a short body always": Wrong(
        lambda c, r: (c.head(200, Content_Length=SIZE), c.send(ISO[:HALF]))[0], "ended the transfer early", True, 3
    ),
    "a reset always": Wrong(lambda c, r: c.reset(), "reset the connection|ended the transfer early", times=3),
    "a stall always": Wrong(stalls(HALF), "sent nothing for 3 s", True, 3),
    "a stall before the answer always": Wrong(stalls(-1), "does not answer, also at attempt 3", times=3),
    "another file": Wrong(well(OTHER), f"another file: its SHA-256 is {hashlib.sha256(OTHER).hexdigest()}, wanted is {SHA}"),
    "a longer file": Wrong(well(ISO + b"x"), f"has another file: {SIZE + 1} bytes, wanted are {SIZE}"),
    "a shorter file": Wrong(well(ISO[:-1]), f"has another file: {SIZE - 1} bytes"),
    "a length that is too long": Wrong(lambda c, r: c.answer(200, ISO, Content_Length=SIZE + 5), f"{SIZE + 5} bytes, wanted"),
    "a length that is too short": Wrong(lambda c, r: c.answer(200, ISO, Content_Length=5), "5 bytes, wanted"),
    "a file that is longer, by chunks": Wrong(chunked(ISO + b"x"), f"more than the {SIZE} bytes"),
    "a file that is shorter, by chunks": Wrong(chunked(ISO[:-1]), "ended the transfer early", True, 3),
    "an endless body": Wrong(endless, f"more than the {SIZE} bytes"),
    "a packed body": Wrong(lambda c, r: c.answer(200, ISO, Content_Encoding="gzip"), "packed by gzip"),
    "another total with the rest": Wrong(cut(lambda _: HALF, then=part(total=SIZE + 1)), f"{SIZE + 1} bytes, wanted", True, 2),
    "garbage": Wrong(garbage, "no HTTP|ended the transfer early", times=3),
    "a redirect to http": Wrong(redirect(302, "http://localhost:1/x.iso"), "redirects from https to http://localhost:1/x.iso"),
    "a redirect to a file": Wrong(redirect(302, "file:///etc/passwd"), "redirects to file:///etc/passwd, which"),
    "a redirect to nowhere": Wrong(redirect(301, None), "redirects to nowhere"),
    "a redirect in a circle": Wrong(redirect(307, PATH), "redirects in circles", times=11),
    "a redirect to a 404": Wrong(redirect(301, "/none"), "answered 404"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_the_right_error(bench: Bench, name: str) -> None:
    case = WRONG[name]
    bench.impatient("stall" in name)
    bench.serve(case.behave)
    with pytest.raises(IsoProblem, match=case.says) as caught:
        bench.up()
    assert caught.value.exit_code == 7 and caught.value.hint
    assert f"wherry iso import wherry-amd64.iso, the one with SHA-256 {SHA[:12]}" in caught.value.hint
    assert bench.left() == ({PREFIX, f"{PREFIX}{SHA}.json"} - {f"{PREFIX}{SHA}.json"} if case.keeps else set())
    assert ("kept and the next try" in caught.value.message) == case.keeps
    assert len(bench.asked()) == case.times
    # Whatever it was: it does not stand in the way.
    bench.serve(GOOD)
    assert bench.up().path.read_bytes() == ISO
    assert bench.left() == {"iso"}


def shows(bench: Bench, certificate: trustme.LeafCert | ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> IsoProblem:
    context = certificate if isinstance(certificate, ssl.SSLContext) else tls(certificate)
    server = bench.another(context)
    server.paths[PATH] = GOOD
    monkeypatch.setenv("WHERRY_MIRRORS", server.url("/r"))
    with pytest.raises(IsoProblem) as caught:
        bench.up()
    assert caught.value.hint and bench.left() == set()
    assert server.requests == []  # not even to look at the certificate
    return caught.value


def test_an_unknown_authority_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    company = trustme.CA(organization_name="Corp Inc.", organization_unit_name="Proxy")
    error = shows(bench, company.issue_cert("localhost"), monkeypatch)
    assert "is not trusted: it was issued by" in error.message and "Corp Inc." in error.message
    assert "your company's proxy" in (error.hint or "")


def test_a_certificate_that_signed_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    both = tmp_path / "self.pem"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*words, "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True)
    both.write_text((tmp_path / "key").read_text() + (tmp_path / "cert").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    assert "it was issued by itself" in shows(bench, context, monkeypatch).message


def day(offset: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=offset)


def test_an_expired_certificate(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    old = bench.authority.issue_cert("localhost", not_before=day(-20), not_after=day(-3))
    error = shows(bench, old, monkeypatch)
    assert f"is valid from {day(-20):%Y-%m-%d} to {day(-3):%Y-%m-%d}, and today is {day(0):%Y-%m-%d}" in error.message
    assert "clock" in (error.hint or "")


def test_a_certificate_of_tomorrow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    early = bench.authority.issue_cert("localhost", not_before=day(2), not_after=day(3))
    assert "is valid from" in shows(bench, early, monkeypatch).message


def test_the_certificate_of_another_host(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    error = shows(bench, bench.authority.issue_cert("login.example", "wifi.example"), monkeypatch)
    assert "is for login.example, wifi.example: this is another server" in error.message


def test_a_server_without_tls(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = bench.another(None)
    monkeypatch.setenv("WHERRY_MIRRORS", f"https://localhost:{plain.port}/r")
    with pytest.raises(IsoProblem, match="do not agree on TLS"):
        bench.up()
    assert bench.left() == set()


def test_a_redirect_to_another_host(bench: Bench) -> None:
    store = bench.another(tls(bench.authority.issue_cert("127.0.0.1")))
    store.paths["/deep/file"] = GOOD
    bench.serve(redirect(302, f"https://127.0.0.1:{store.port}/deep/file"))
    assert bench.up().path.read_bytes() == ISO


def test_a_redirect_to_a_host_that_is_not_trusted(bench: Bench) -> None:
    store = bench.another(tls(trustme.CA(organization_name="Strange").issue_cert("localhost")))
    bench.serve(redirect(302, store.url("/x")))
    with pytest.raises(IsoProblem, match="Strange"):
        bench.up()
    assert store.requests == []


def test_a_name_that_nobody_knows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERRY_MIRRORS", "https://no-such-host.invalid/r")
    with pytest.raises(IsoProblem, match=r"the name no-such-host\.invalid is not known here"):
        bench.up()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_a_server_that_is_not_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERRY_MIRRORS", f"https://localhost:{closed_port()}/r")
    with pytest.raises(IsoProblem, match="refuses the connection, also at attempt 3"):
        bench.up()


@pytest.mark.parametrize("set_by", ["environment", "argument"])
def test_a_proxy_that_is_not_there(bench: Bench, monkeypatch: pytest.MonkeyPatch, set_by: str) -> None:
    port = closed_port()
    proxy = f"http://someone:secret@localhost:{port}"
    if set_by == "environment":
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    else:
        bench.transport = replace(bench.transport, proxy=proxy)
    bench.serve(GOOD)
    with pytest.raises(IsoProblem, match=f"the proxy http://localhost:{port} does not connect to localhost") as caught:
        bench.up()
    assert "secret" not in f"{caught.value.message}{caught.value.hint}{caught.value.detail}"
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert bench.up().sha256 == SHA


def test_a_proxy_that_wants_a_login(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = bench.another(None)
    proxy.paths[f"localhost:{bench.server.port}"] = status(407)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url())
    with pytest.raises(IsoProblem, match="the proxy http://localhost.* 407") as caught:
        bench.up()
    assert "wants a login" in (caught.value.hint or "")


def test_the_next_mirror_is_asked_and_goes_on_with_what_is_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.impatient()
    bench.server.paths |= {"/a/wherry-amd64.iso": stalls(HALF), "/b/wherry-amd64.iso": status(404), PATH: GOOD}
    monkeypatch.setenv("WHERRY_MIRRORS", ", ".join(bench.server.url(f"/{name}") for name in "abr"))
    assert bench.up().path.read_bytes() == ISO
    assert [request.start for request in bench.asked()] == [HALF]
    assert "if-range" not in bench.asked()[0].headers


def test_every_mirror_is_told_of(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.serve(status(403), "/a/wherry-amd64.iso")
    monkeypatch.setenv("WHERRY_MIRRORS", f"{bench.server.url('/a')} {bench.server.url('/b')}")
    with pytest.raises(IsoProblem, match="none of 2 addresses gives the ISO") as caught:
        bench.up()
    one, two = (caught.value.detail or "").splitlines()
    assert "answered 403" in one and "answered 404" in two


def test_an_address_with_its_hash(bench: Bench) -> None:
    bench.impatient()
    bench.serve(first(1, stalls(HALF), GOOD))
    iso = bench.from_url()
    assert iso.path.read_bytes() == ISO and iso.version == __version__
    assert len(bench.asked()) == 2
    assert bench.from_url() == iso
    assert len(bench.asked()) == 2  # it is in the cache


@pytest.mark.parametrize(
    ("behave", "says"),
    [
        (well(OTHER), "has another file: its SHA-256"),
        (lambda c, r: c.answer(200, ISO, Content_Length=SIZE - 5), "has another file: its SHA-256"),
        (no_length(ISO[:HALF]), "has another file: its SHA-256"),
        (lambda c, r: c.answer(200, Content_Length=1 << 40), "more than any ISO of wherry"),
    ],
    ids=["other", "length too short", "cut without a length", "length of a terabyte"],
)  # fmt: skip
def test_an_address_that_has_something_else(bench: Bench, behave: Behaviour, says: str) -> None:
    bench.serve(behave)
    with pytest.raises(IsoProblem, match=says):
        bench.from_url()
    assert bench.left() == set()


def test_a_length_that_is_too_long_when_only_the_hash_is_known(bench: Bench) -> None:
    """The end is known when the server has nothing more."""

    def lies(connection: Connection, request: Request) -> None:
        if request.start == SIZE:
            connection.answer(416, Content_Range=f"bytes */{SIZE}")
        else:
            connection.answer(200, ISO, Content_Length=SIZE + 100)

    bench.serve(lies)
    assert bench.from_url().path.read_bytes() == ISO


def test_an_iso_of_another_architecture(bench: Bench) -> None:
    arm = iso_bytes(volume="WHERRY_ARM64")
    sha = hashlib.sha256(arm).hexdigest()
    bench.serve(well(arm))
    with pytest.raises(IsoProblem, match="is for arm64, not for amd64") as caught:
        bench.from_url(sha=sha)
    assert caught.value.hint == "--arch arm64" and bench.left() == set()
    bench.from_url(sha=sha, arch="arm64")
    with pytest.raises(IsoProblem, match="is for arm64, not for amd64"):
        bench.from_url(sha=sha)


@pytest.mark.parametrize("data", [b"x" * 50_000, iso_bytes(kernel=None)], ids=["no iso", "no kernel"])
def test_the_right_hash_of_something_else(bench: Bench, data: bytes) -> None:
    bench.serve(well(data))
    with pytest.raises(IsoProblem, match="is no ISO of wherry"):
        bench.from_url(sha=hashlib.sha256(data).hexdigest())
    assert bench.left() == set()


@pytest.mark.parametrize(
    "answer",
    [well(MANIFEST.replace(b"amd64", b"arm64")), well(b"{"), well(MANIFEST.replace(SHA.encode(), b"0" * 64))],
    ids=["architecture", "damaged", "hash"],
)
def test_a_manifest_that_does_not_fit_is_not_kept(bench: Bench, answer: Behaviour) -> None:
    bench.serve(GOOD)
    bench.serve(answer, "/r/wherry-amd64.json")
    iso = bench.up()
    assert "kernel" not in iso.manifest and iso.version == __version__
    assert len(bench.told.warnings) == 1 and "the manifest beside" in bench.told.warnings[0]


def test_without_a_manifest(bench: Bench) -> None:
    bench.serve(GOOD)
    del bench.server.paths["/r/wherry-amd64.json"]
    assert bench.up().manifest == {
        "format": 1, "version": __version__, "architecture": "amd64", "sha256": SHA, "size": SIZE,
    }  # fmt: skip
    assert not bench.told.warnings


def test_a_pinned_manifest_is_the_only_one(bench: Bench) -> None:
    bench.serve(GOOD)
    pin = bench.release.read_text()
    bench.release.write_text(f'{pin}manifest = "{hashlib.sha256(b"other").hexdigest()}"\n')
    assert "kernel" not in bench.up().manifest
    assert "that of another file" in bench.told.warnings[0]


def test_the_list_of_contents_comes_along(bench: Bench) -> None:
    sbom = b'{"bomFormat": "CycloneDX"}'
    named = {**json.loads(MANIFEST), "sbom": {"file": "wherry-amd64.cdx.json", "sha256": hashlib.sha256(sbom).hexdigest()}}
    bench.serve(GOOD)
    bench.serve(well(json.dumps(named).encode()), "/r/wherry-amd64.json")
    bench.serve(well(sbom), "/r/wherry-amd64.cdx.json")
    assert bench.up().path.with_name("sbom.cdx.json").read_bytes() == sbom


def test_no_space(bench: Bench) -> None:
    bench.serve(GOOD)
    bench.release.write_text(bench.release.read_text().replace(str(SIZE), str(1 << 60)))
    with pytest.raises(IsoProblem, match=r"no space for the ISO: \d+ MB are needed in .*, \d+ MB are free") as caught:
        bench.up()
    assert caught.value.exit_code == 7 and bench.asked() == [] and bench.left() == set()


def test_two_commands_at_once_fetch_it_once(bench: Bench) -> None:
    bench.serve(GOOD)
    found: list[Iso] = []
    threads = [threading.Thread(target=lambda: found.append(bench.up())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and {iso.sha256 for iso in found} == {SHA}
    assert len(bench.asked()) == 1


SCRIPT = """
import sys
from launcher import images
from launcher.errors import WherryError
from launcher.report import SilentReporter
transport = images.Transport(stall=20)
wanted = images.parse_source(sys.argv[1]) if sys.argv[1:] else None
try:
    print(images.resolve("amd64", wanted, SilentReporter(), transport).sha256)
except WherryError as error:
    print(error.exit_code, error.message)
"""


@pytest.mark.parametrize("signal", ["kill", "interrupt"])
def test_a_command_that_was_ended_is_gone_on_with(bench: Bench, signal: str) -> None:
    arrived = threading.Event()

    def stall(connection: Connection, request: Request) -> None:
        connection.head(200, Content_Length=SIZE, ETag=ETAG)
        connection.send(ISO[:HALF])
        arrived.set()
        connection.stall()

    bench.serve(first(1, stall, GOOD))
    words = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as command:
        assert arrived.wait(60)
        while not bench.left() or bench.kept() < HALF - 70_000:
            assert command.poll() is None
        if signal == "kill":
            command.kill()
        else:
            command.send_signal(2)
        said = command.communicate(timeout=60)[0]
    if signal == "interrupt":
        assert said.startswith("130 the download stopped. 0 of 0 MB are kept and the next try goes on from there")
    kept = bench.kept()
    assert bench.up().path.read_bytes() == ISO
    assert [request.start for request in bench.asked()] == [None, kept]
    assert bench.left() == {"iso"}


def test_a_command_that_was_ended_at_the_last_byte(bench: Bench) -> None:
    bench.cache.mkdir(parents=True)
    (bench.cache / f"{PREFIX}{SHA}").write_bytes(ISO)
    bench.serve(status(500))
    assert bench.up().path.read_bytes() == ISO
    assert bench.asked() == [] and bench.left() == {"iso"}


@pytest.mark.parametrize("data", [OTHER, ISO + b"more", b"x" * 100], ids=["all wrong", "too long", "begins wrong"])
def test_what_lies_there_is_not_believed(bench: Bench, data: bytes) -> None:
    bench.cache.mkdir(parents=True)
    (bench.cache / f"{PREFIX}{SHA}").write_bytes(data)
    bench.serve(GOOD)
    assert bench.up().path.read_bytes() == ISO
    assert bench.left() == {"iso"}


def test_a_disk_that_fills_up_is_given_its_space_back(bench: Bench, tmp_path: Path) -> None:
    """On a file system of 256 KB, in a mount namespace of its own."""
    bench.serve(GOOD)
    small = tmp_path / "home"
    small.mkdir(exist_ok=True)
    mount = 'mount -t tmpfs -o size=256k none "$0" && "$@"; code=$?; ls -A "$0/cache/iso"; exit $code'
    words = ["unshare", "-rm", "sh", "-c", mount, small, sys.executable, "-c", SCRIPT]
    url = f"{bench.server.url(PATH)}#sha256={SHA}"
    done = subprocess.run([*words, url], capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.stdout.startswith("7 the disk is full:"), done.stdout + done.stderr
    assert done.stdout.splitlines()[1:] == []


def test_a_password_in_an_address_is_not_shown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    address = bench.server.url("/r").replace("https://", "https://someone:secret@")
    monkeypatch.setenv("WHERRY_MIRRORS", f"{address} {address}")
    with pytest.raises(IsoProblem) as caught:
        bench.up()
    assert "secret" not in json.dumps(caught.value.to_json())
    bench.serve(GOOD)
    iso = bench.up()
    assert bench.asked()[-1].headers["authorization"].startswith("Basic ")
    assert "secret" not in iso.path.with_name("origin.json").read_text()
