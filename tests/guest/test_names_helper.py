"""names: the guest's resolver. Its two names, everything else passed on, and garbage from both sides."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from .helpers import helper

NAMES = ("host.docker.internal", "host.wherry.internal")
A, AAAA, HTTPS, ANY = 1, 28, 65, 255
OPT = b"\0" + struct.pack(">HHIH", 41, 4096, 0, 0)
Answer = Callable[[bytes], list[bytes]]


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def query(text: str, kind: int = A, number: int = 7, *, edns: bool = False) -> bytes:
    head = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 1 if edns else 0)
    return head + name(text) + struct.pack(">HH", kind, 1) + (OPT if edns else b"")


def answered(question: bytes, rest: bytes = b"", records: int = 1) -> bytes:
    """An upstream's answer, with `rest` behind the question."""
    return question[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, records, 0, 0) + question[12:] + rest


class Upstream:
    """A name server of the test's own on one port, UDP and TCP; `answer` makes messages of a query."""

    def __init__(self) -> None:
        self.answer: Answer = lambda question: [answered(question, b"upstream")]
        self.asked: list[tuple[bytes, tuple[str, int]]] = []
        self.connections = 0
        self.stream = socket.create_server(("127.0.0.1", 0))
        self.port = self.stream.getsockname()[1]
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", self.port))
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self._datagrams, self._accept)]
        for thread in self.threads:
            thread.start()

    def _datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, place = self.datagrams.recvfrom(65535)
                if not data:
                    return
                self.asked.append((data, place))
                for message in self.answer(data):
                    self.datagrams.sendto(message, place)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self.stream.accept()
                self.connections += 1
                threading.Thread(target=self._stream, args=(stream,), daemon=True).start()

    def _stream(self, stream: socket.socket) -> None:
        with stream, contextlib.suppress(OSError):
            while (data := read_frame(stream)) is not None:
                for message in self.answer(data):
                    stream.sendall(frame(message))

    def close(self) -> None:
        # A close alone would leave the sockets to the threads that wait for them.
        for own in (self.stream, self.datagrams):
            with contextlib.suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(20)
        self.stream.close()
        self.datagrams.close()


def frame(message: bytes) -> bytes:
    return struct.pack(">H", len(message)) + message


def exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := stream.recv(count - len(data))):
        data += more
    return data


def read_frame(stream: socket.socket) -> bytes | None:
    head = exactly(stream, 2)
    return exactly(stream, struct.unpack(">H", head)[0]) if len(head) == 2 else None


class Resolver:
    """The helper, running, and a client of it."""

    def __init__(self, upstream_port: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.place = ("127.0.0.1", free.getsockname()[1])
        words = [f"127.0.0.1:{self.place[1]}", f"127.0.0.1:{upstream_port}", "10.0.2.2", *NAMES]
        self.process = subprocess.Popen([helper("names"), *words])
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(20)
        self.socket.connect(self.place)
        # It listens on TCP last: who can connect finds both.
        while self.process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError), self.connect():
                break

    def connect(self) -> socket.socket:
        return socket.create_connection(self.place, timeout=20)

    def ask(self, message: bytes) -> bytes:
        self.socket.send(message)
        return self.socket.recv(65535)

    def close(self) -> None:
        assert self.process.poll() is None, f"names ended with {self.process.returncode}"
        self.process.kill()
        self.process.wait()
        self.socket.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.close()


@pytest.fixture
def resolver(upstream: Upstream) -> Iterator[Resolver]:
    made = Resolver(upstream.port)
    yield made
    made.close()


@pytest.mark.parametrize("host", [*NAMES, "HOST.Docker.InternaL"])
@pytest.mark.parametrize("kind", [A, ANY])
def test_the_host_has_an_address(resolver: Resolver, upstream: Upstream, host: str, kind: int) -> None:
    asked = query(host, kind)
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([10, 0, 2, 2])
    # The question comes back as it was written, letter by letter.
    assert resolver.ask(asked) == asked[:2] + b"\x85\x80" + struct.pack(">HHHH", 1, 1, 0, 0) + asked[12:] + record
    assert upstream.asked == []


@pytest.mark.parametrize("kind", [AAAA, HTTPS, 15])
@pytest.mark.parametrize("edns", [False, True])
def test_the_host_has_nothing_else(resolver: Resolver, kind: int, edns: bool) -> None:
    asked = query(NAMES[0], kind, edns=edns)
    opt = b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0) if edns else b""
    head = asked[:2] + b"\x85\x80" + struct.pack(">HHHH", 1, 0, 0, len(opt) and 1)
    assert resolver.ask(asked) == head + query(NAMES[0], kind)[12:] + opt


OTHERS = ["example.org", "x.host.docker.internal", "docker.internal", "host.docker.internal.corp", "hostxdocker.internal"]


@pytest.mark.parametrize("other", OTHERS)
def test_others_are_passed_on(resolver: Resolver, upstream: Upstream, other: str) -> None:
    asked = query(other, number=513)
    assert resolver.ask(asked) == answered(asked, b"upstream")
    assert upstream.asked[0][0][2:] == asked[2:]


def test_ids_and_ports_cannot_be_guessed(resolver: Resolver, upstream: Upstream) -> None:
    for number in range(64):
        assert resolver.ask(query(f"n{number}.org", number=number))[:2] == struct.pack(">H", number)
    assert len({message[:2] for message, _ in upstream.asked}) > 60
    assert len({place[1] for _, place in upstream.asked}) > 55


def test_an_answer_that_was_not_asked_for_is_dropped(resolver: Resolver, upstream: Upstream) -> None:
    def forged(question: bytes) -> list[bytes]:
        other = question[:2] + query("forged.org")[2:]
        wrong_id = bytes([question[0] ^ 1]) + question[1:]
        return [b"", question, question[:5], answered(other), answered(wrong_id), answered(question)[:20],
                question[:2] + b"\x81\x80" + bytes(8), answered(question, b"right")]  # fmt: skip

    upstream.answer = forged
    asked = query("example.org")
    assert resolver.ask(asked) == answered(asked, b"right")


def test_an_answer_from_elsewhere_is_dropped(resolver: Resolver, upstream: Upstream) -> None:
    def from_elsewhere(question: bytes) -> list[bytes]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(answered(question, b"forged"), upstream.asked[-1][1])
        return [answered(question, b"right")]

    upstream.answer = from_elsewhere
    assert resolver.ask(query("example.org")).endswith(b"right")


def test_a_slow_answer_holds_nobody_up(resolver: Resolver, upstream: Upstream) -> None:
    kept: list[bytes] = []

    def one_is_slow(question: bytes) -> list[bytes]:
        if b"slow" in question:
            kept.append(question)
            return []
        return [answered(question)]

    upstream.answer = one_is_slow
    resolver.socket.send(query("slow.org", number=1))
    assert resolver.ask(query("fast.org", number=2))[:2] == b"\0\2"
    upstream.datagrams.sendto(answered(kept[0]), upstream.asked[0][1])
    assert resolver.socket.recv(65535)[:2] == b"\0\1"


def test_a_question_asked_again_is_the_same_question(resolver: Resolver, upstream: Upstream) -> None:
    upstream.answer = lambda _: []
    for _ in range(3):
        resolver.socket.send(query("slow.org"))
    assert resolver.ask(query(NAMES[0]))[:2] == b"\0\7"  # after it, all three have been read
    upstream.answer = lambda question: [answered(question)]
    assert resolver.ask(query("slow.org"))[:2] == b"\0\7"
    assert len({place for _, place in upstream.asked}) == 1


def test_more_questions_than_there_is_room_for(resolver: Resolver, upstream: Upstream) -> None:
    upstream.answer = lambda _: []
    for number in range(1000):
        resolver.socket.send(query(f"n{number}.org", number=number))
        if number % 50 == 49:  # no more at once than the kernel keeps for it
            assert resolver.ask(query(NAMES[1], number=9999))[:2] == struct.pack(">H", 9999)
    upstream.answer = lambda question: [answered(question)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.settimeout(20)
        other.sendto(query("other.org", number=4), resolver.place)
        assert other.recv(65535)[:2] == b"\0\4"


def test_one_asker_with_many_questions_leaves_room_for_others(resolver: Resolver, upstream: Upstream) -> None:
    upstream.answer = lambda _: []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.settimeout(20)
        other.bind(("127.0.0.2", 0))
        other.sendto(query("slow.org", number=4), resolver.place)
        other.sendto(query(NAMES[0], number=5), resolver.place)
        assert other.recv(65535)[:2] == b"\0\5"  # the first one has been passed on
        for number in range(1000):
            resolver.socket.send(query(f"n{number}.org", number=number))
            if number % 50 == 49:
                assert resolver.ask(query(NAMES[1], number=9999))[:2] == struct.pack(">H", 9999)
        asked, place = next(entry for entry in upstream.asked if b"slow" in entry[0])
        upstream.datagrams.sendto(answered(asked), place)
        assert other.recv(65535)[:2] == b"\0\4"


def test_no_upstream_is_a_failure_at_once(upstream: Upstream) -> None:
    upstream.close()
    resolver = Resolver(upstream.port)
    try:
        asked = query("example.org")
        assert resolver.ask(asked) == asked[:2] + b"\x81\x82" + struct.pack(">HHHH", 1, 0, 0, 0) + asked[12:]
        assert resolver.ask(query(NAMES[0]))[3] == 0x80
    finally:
        resolver.close()


def test_a_large_answer_over_both(resolver: Resolver, upstream: Upstream) -> None:
    upstream.answer = lambda question: [answered(question, bytes(60000))]
    asked = query("large.org", edns=True)
    assert resolver.ask(asked) == answered(asked, bytes(60000))
    with resolver.connect() as stream:
        stream.sendall(frame(asked))
        assert read_frame(stream) == answered(asked, bytes(60000))


def test_many_questions_in_one_connection(resolver: Resolver, upstream: Upstream) -> None:
    names = [NAMES[number % 2] if number % 3 == 0 else f"n{number}.org" for number in range(60)]
    sent = b"".join(frame(query(text, number=number)) for number, text in enumerate(names))
    with resolver.connect() as stream:
        for byte in sent[:100]:  # however it is cut
            stream.sendall(bytes([byte]))
        stream.sendall(sent[100:])
        stream.shutdown(socket.SHUT_WR)
        answers = [read_frame(stream) for _ in names]
        assert stream.recv(1) == b""  # all are given before the end
    by_id = {struct.unpack(">H", message[:2])[0]: message for message in answers if message}
    for number, text in enumerate(names):
        ours = text in NAMES
        assert by_id[number].endswith(bytes([10, 0, 2, 2]) if ours else b"upstream"), text
    assert upstream.connections == 1


def test_answers_do_not_run_into_each_other_when_the_client_reads_late(resolver: Resolver, upstream: Upstream) -> None:
    upstream.answer = lambda question: [answered(question, bytes(60000))]
    with resolver.connect() as stream:
        pairs = 200  # 12 MB: more than the kernel keeps between the two
        for _ in range(pairs):
            stream.sendall(frame(query("large.org")) + frame(query(NAMES[0])))
        sizes = sorted(len(read_frame(stream) or b"") for _ in range(2 * pairs))
    ours = len(query(NAMES[0])) + 16
    assert sizes == [ours] * pairs + [len(query("large.org")) + 60000] * pairs


def test_more_connections_than_there_is_room_for(resolver: Resolver) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(resolver.connect())
        last = stack.enter_context(resolver.connect())
        last.sendall(frame(query(NAMES[0])))
        assert (read_frame(last) or b"").endswith(bytes([10, 0, 2, 2]))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (query("example.org")[:-1], 1),
        (query("example.org")[:14], 1),
        (query("example.org")[:12], 1),
        (query("")[:4] + b"\0\0" + query("")[6:], 1),
        (query("")[:4] + b"\0\2" + query("")[6:], 1),
        (query("a")[:12] + b"\xc0\x0c" + b"\0\1\0\1", 1),
        (query("a")[:12] + b"\x40a\0" + b"\0\1\0\1", 1),
        (query("a")[:12] + b"\x40" + b"a" * 64 + b"\0" + b"\0\1\0\1", 1),
        (query("a")[:12] + b"\xc0" + b"a" * 192 + b"\0" + b"\0\1\0\1", 1),
        (query("a")[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0" + b"\0\1\0\1", 1),
        (b"\0\1\x28\0" + query("example.org")[4:], 4),
    ],
)  # fmt: skip
def test_what_is_no_question_is_said(resolver: Resolver, upstream: Upstream, message: bytes, code: int) -> None:
    answer = resolver.ask(message)
    assert answer[:2] == message[:2] and answer[2] & 0x80 and answer[3] == 0x80 | code and answer[4:] == bytes(8)
    assert upstream.asked == []


def mutated(generator: random.Random, seeds: list[bytes]) -> bytes:
    data = bytearray(generator.choice(seeds))
    for _ in range(generator.randrange(6)):
        place = generator.randrange(len(data) + 1)
        match generator.randrange(4):
            case 0:
                data[place:place] = generator.randbytes(generator.randrange(1, 80))
            case 1:
                del data[place : place + generator.randrange(20)]
            case 2 if place < len(data):
                data[place] = generator.choice((0, 1, 63, 64, 0xC0, 0xFF, generator.randrange(256)))
            case _:
                data = data[:place]
    return bytes(data)


def test_garbage_from_both_sides(resolver: Resolver, upstream: Upstream) -> None:
    """It goes on answering, whatever comes; the fixture sees whether it ended."""
    generator = random.Random(4)
    seeds = [query(text, kind, edns=edns) for text in (*NAMES, "example.org") for kind in (A, ANY) for edns in (False, True)]
    upstream.answer = lambda question: [mutated(generator, [question, answered(question, bytes(20))]) for _ in range(3)]
    resolver.socket.setblocking(False)
    for turn in range(4000):
        resolver.socket.send(mutated(generator, seeds))
        if turn % 20 == 0:
            with resolver.connect() as stream, contextlib.suppress(OSError):
                stream.sendall(mutated(generator, [frame(seed) for seed in seeds]))
            with resolver.connect() as stream:  # it has read all that came before
                stream.sendall(frame(query(NAMES[0])))
                assert (read_frame(stream) or b"").endswith(bytes([10, 0, 2, 2]))
            with contextlib.suppress(BlockingIOError):
                while resolver.socket.recv(65535):
                    pass
    upstream.answer = lambda question: [answered(question)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        for text in (NAMES[0], "example.org"):
            client.sendto(query(text), resolver.place)
            assert client.recv(65535)[:4][3] == 0x80
    with resolver.connect() as stream:
        stream.sendall(frame(query(NAMES[0])))
        assert (read_frame(stream) or b"").endswith(bytes([10, 0, 2, 2]))
