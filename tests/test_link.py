"""The keeper's connection: doubted, replaced, given up, by a real SSH server behind a wire that can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import ConnectionLost
from launcher.keeper import link, race, rhythm
from launcher.keeper.link import Link
from launcher.ssh.library import broken
from launcher.ssh.transport import Connection, receive
from tests.guestserver import Guest, guest
from tests.loopback import until


class Wire:
    """Carries connections to the guest. What is cut is not told to either side: its bytes just do not come."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = threading.Event()
        self._open.set()
        self._held: set[int] = set()  # connections that stay cut
        self.count = 0
        self._streams: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    def cut_what_is_there(self) -> None:
        self._held.update(range(self.count))

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listening.close()
        self._open.set()
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for stream in self._streams:
            stream.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                number = self.count
                self.count += 1
                self._streams += [near, far]
                for ends in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._carry, args=(number, *ends), daemon=True))
                    self._threads[-1].start()

    def _carry(self, number: int, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while not self._open.wait(0.01) or number in self._held:
                    if number in self._held:
                        return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class Setup:
    def __init__(self, server: Guest) -> None:
        self.server = server
        self.wire = Wire(server.port)
        self.excused = False
        self.states: list[str] = []
        self.up: list[Connection] = []
        self.changed = threading.Condition()
        self.link = Link(self._connect, lambda _: self._connect(0.5), excused=lambda: self.excused, on_state=self._state)
        self.link.subscribe(self._up)
        self._over = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _connect(self, first_word: float = 5) -> Connection:
        port, self.server.port = self.server.port, self.wire.port
        try:
            return self.server.connect(first_word=first_word)
        finally:
            self.server.port = port

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.link.look()

    def _state(self, why: str, seconds: float) -> None:
        assert seconds >= 0
        with self.changed:
            self.states.append(why)
            self.changed.notify_all()

    def _up(self, connection: Connection) -> None:
        with self.changed:
            self.up.append(connection)
            self.changed.notify_all()

    def wait_up(self, times: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.up) >= times, 60)

    def wait_states(self, times: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.states) >= times, 60)

    def close(self) -> None:
        self._over.set()
        self.link.drop()
        self.wire.close()


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    for name, value in (("EVERY", 0.05), ("DOUBT", 1.5), ("WAKING", 0.1), ("DEAD", 8.0), ("CALLS_WAIT", 0.3)):
        monkeypatch.setattr(link, name, value)
    monkeypatch.setattr(link, "_PAUSES", (0.01, 0.05))
    with guest(tmp_path) as server:
        made = Setup(server)
        try:
            yield made
        finally:
            made.close()


def test_one_connection_for_all(setup: Setup) -> None:
    threads = [threading.Thread(target=setup.link.get) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert setup.wire.count == 1
    setup.wait_up(1)
    assert setup.up == [setup.link.get()]


def test_one_that_ends_is_replaced_without_anyone_asking(setup: Setup) -> None:
    first = setup.link.get()
    channel = first.open_session()
    setup.server.drop()
    setup.wait_up(2)
    assert receive(channel.recv) == b""
    setup.wait_states(2)
    assert setup.states == ["the connection to the machine ended", ""]
    assert setup.link.get() is setup.up[1] is not first
    assert setup.link.get().run(["echo", "hi"], timeout=20)[1] == b"hi\n"


def test_one_that_gives_no_answer_is_replaced(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "DEAD", 600.0)
    channel = setup.link.get().open_session()
    setup.wire.cut_what_is_there()
    setup.wait_up(2)
    assert receive(channel.recv) == b""  # its call ends, not 600 s later
    assert setup.link.get().run(["echo", "hi"], timeout=20)[1] == b"hi\n"


def test_nothing_is_lost_when_the_old_one_answers_again(setup: Setup) -> None:
    first = setup.link.get()
    channel = first.start(["cat"])
    setup.wire.cut()
    setup.wait_states(1)
    setup.wire.mend()
    setup.wait_states(2)
    assert setup.link.get() is first
    channel.sendall(b"still here")
    channel.shutdown_write()
    assert receive(channel.recv) == b"still here"
    assert setup.states[0].startswith("no answer for") and setup.states[1] == ""


def test_calls_wait_and_then_say_it(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    first = setup.link.get()
    channel = first.open_session()
    setup.wire.cut()
    setup.wait_states(1)
    with pytest.raises(ConnectionLost, match="has not answered for"):
        setup.link.get()
    assert receive(channel.recv) == b""  # nobody answers for long: what is under way ends with an error
    until(lambda: not first.alive)
    monkeypatch.setattr(link, "CALLS_WAIT", 20.0)
    threading.Timer(0.2, setup.wire.mend).start()
    assert setup.link.get() is not first


def test_opening_is_tried_once_more_on_the_next_connection(setup: Setup) -> None:
    first = setup.link.get()
    tried: list[Connection] = []

    def make(connection: Connection) -> str:
        tried.append(connection)
        if connection is first:
            setup.server.drop()
            setup.wait_up(2)
            raise ConnectionLost("it ended")
        return "made"

    assert setup.link.open(make) == "made"
    assert len(tried) == 2


def test_no_answer_is_no_news_while_it_is_excused(setup: Setup) -> None:
    first = setup.link.get()
    setup.wire.cut()
    setup.excused = True
    until(lambda: setup.link._asked is not None)
    asked = setup.link._asked or 0.0
    until(lambda: (setup.link._asked or 0.0) > asked + link.DOUBT)  # each look counts from now on
    assert setup.states == []
    setup.wire.mend()
    setup.excused = False
    assert setup.link.get() is first


def test_after_a_sleep_an_old_question_does_not_count(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "DOUBT", 1000.0)
    setup.link.get()
    setup.wire.cut()
    setup.link.woke()
    setup.wait_states(1)  # with WAKING's patience, not DOUBT's
    setup.wire.mend()
    setup.wait_states(2)


def test_what_is_dropped_is_not_made_again(setup: Setup) -> None:
    setup.link.get()
    setup.wire.cut()
    setup.wait_states(1)
    setup.link.drop()
    setup.wire.mend()
    tries = setup.wire.count
    time.sleep(0.3)
    assert setup.wire.count <= tries + 1  # one may have been under way
    assert len(setup.up) == 1
    assert setup.link.get().alive


def test_beats_come_after_answers(setup: Setup) -> None:
    beaten = threading.Event()
    setup.link.beat(lambda _: beaten.set())
    setup.link.get()
    assert beaten.wait(10)


def test_who_comes_after_a_rest_does_not_wait_for_the_next_question(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rhythm, "QUIET", 0.2)
    monkeypatch.setattr(rhythm, "CALM", 600.0)
    beaten = threading.Event()
    setup.link.beat(lambda _: beaten.set())
    first = setup.link.get()
    kick = setup.link._kick
    assert kick is not None
    until(lambda: kick._calm)
    beaten.clear()
    setup.wire.cut_what_is_there()
    assert setup.link.get() is first  # it looks well
    setup.wait_up(2)
    assert setup.link.get() is not first and beaten.wait(10)


def test_silence_that_begins_in_a_beat_is_noticed(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "DEAD", 600.0)
    ended = threading.Event()

    def beat(connection: Connection) -> None:
        if setup.states or ended.is_set():
            return
        with contextlib.suppress(ConnectionLost):
            channel = connection.open_session()
            setup.wire.cut_what_is_there()
            with contextlib.suppress(*broken()):
                channel.exec_command("true")  # which waits for its answer without end
        ended.set()

    setup.link.beat(beat)
    setup.link.get()
    setup.wait_up(2)
    assert ended.wait(20)
    assert setup.states[0].startswith("no answer for")


def test_a_beat_that_takes_long_is_not_begun_again_beside_itself(setup: Setup) -> None:
    running, go_on, again = threading.Semaphore(1), threading.Event(), threading.Event()
    beside: list[bool] = []

    def beat(_connection: Connection) -> None:
        beside.append(not running.acquire(blocking=False))
        if len(beside) > 1:
            again.set()
        go_on.wait(20)
        running.release()

    setup.link.beat(beat)
    connection = setup.link.get()
    answers = []
    answered = setup.link._answered
    setup.link._answered = lambda connection: (answers.append(1), answered(connection))  # type: ignore[assignment,method-assign]
    until(lambda: len(answers) > 5)
    assert beside == [False]
    go_on.set()
    assert again.wait(20) and beside[:2] == [False, False]
    connection.close()


def test_nothing_that_looks_after_a_connection_outlives_it(setup: Setup) -> None:
    others = set(threading.enumerate())  # of tests before

    def watching() -> list[str]:
        return [thread.name for thread in set(threading.enumerate()) - others if thread.name.startswith("link")]

    setup.link.get()
    for times in range(1, 4):
        setup.wait_up(times)
        setup.server.drop()
    setup.wait_up(4)
    until(lambda: sorted(watching()) == ["link", "link-beat"])
    setup.link.drop()
    until(lambda: watching() == [])


@pytest.mark.parametrize("error", [ValueError("an answer that is none"), RuntimeError("can't start new thread")])
def test_whatever_keeps_a_try_from_succeeding_there_is_another_one(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tries = iter(range(100))

    def reconnect(_patience: float) -> Connection:
        if next(tries) < 5:
            raise error
        return setup.server.connect()

    monkeypatch.setattr(setup.link, "_reconnect", reconnect)
    setup.link.get()
    setup.server.drop()
    setup.wait_up(2)
    setup.wait_states(2)
    assert setup.states[1] == ""


def test_no_thread_to_connect_again_now_is_no_end_of_it(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = threading.Event()
    start = threading.Thread.start

    def no_more(thread: threading.Thread) -> None:
        if thread.name == "link-again" and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(threading.Thread, "start", no_more)
    setup.link.get()
    setup.server.drop()
    setup.wait_up(2)
    assert refused.is_set() and setup.link.get() is setup.up[1]


def test_a_race_in_which_every_try_fails_ends() -> None:
    def attempt() -> Connection:
        raise ValueError("an answer that is none")

    deadline = time.monotonic() + 20
    with pytest.raises(ValueError, match="none"):
        race.first(attempt, lambda: time.monotonic() < deadline)


def test_a_drop_while_the_first_one_is_made_is_not_undone(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Connection] = []

    def connect() -> Connection:
        made.append(setup.server.connect())
        if len(made) == 1:
            setup.link.drop()
        return made[-1]

    monkeypatch.setattr(setup.link, "_connect", connect)
    with pytest.raises(ConnectionLost):
        setup.link.get()
    assert not made[0].alive and setup.up == []
    assert setup.link.get() is made[1]


def test_a_drop_while_another_one_is_made_is_not_undone(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    old = setup.link.get()
    made: list[Connection] = []
    close = old.close

    def reconnect(_patience: float) -> Connection:
        made.append(setup.server.connect())
        return made[-1]

    def dropped_meanwhile() -> None:
        close()
        setup.link.drop()

    monkeypatch.setattr(setup.link, "_reconnect", reconnect)
    monkeypatch.setattr(old, "close", dropped_meanwhile)
    setup.wire.cut_what_is_there()
    until(lambda: made != [] and not made[0].alive)
    assert setup.link.get().alive


def test_a_try_without_an_answer_keeps_no_other_one_waiting(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "EVERY", 0.2)
    setup.link.get()
    tries = iter(range(100))
    late = threading.Event()
    made: list[Connection] = []

    def reconnect(_patience: float) -> Connection:
        if next(tries) < 2:
            assert late.wait(20)
        made.append(setup.server.connect())
        return made[-1]

    monkeypatch.setattr(setup.link, "_reconnect", reconnect)
    setup.server.drop()
    setup.wait_up(2)
    assert setup.link.get() is made[0]
    late.set()
    deadline = time.monotonic() + 20
    while len(made) < 3 or any(one.alive for one in made[1:]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert setup.link.get() is made[0]
