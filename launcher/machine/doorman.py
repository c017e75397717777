"""`python -m launcher.machine.doorman NAME [--now] [--home FOLDER]`: what `wherry autostart` has started at login.

It holds the engine's socket of a machine that is off, and starts or resumes the machine when the first client asks for
something: the keeper takes the socket over, with the clients that have come, of whom not a byte was read. Until then there is
no keeper, and every other command finds the machine as it is: off. A named pipe cannot be taken over (pipedoor.py). With
--now it starts the machine at once.

From then on it waits for the end of the session, and stops the machine then, whoever started it. On Windows each keeper does so
itself (host.when_session_ends), and the doorman ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from launcher import host, store
from launcher.errors import WherryError, of_system
from launcher.keeper import diary, listener
from launcher.machine import autostart, run
from launcher.machine.create import UpOptions
from launcher.machine.pipedoor import PipeDoor
from launcher.machine.stop import running, stop
from launcher.report import Reporter, SilentReporter
from launcher.store import MachineDir

log = logging.getLogger("wherry.doorman")

_LOOKS_EVERY: Final = 5.0  # seconds: whether somebody else started the machine, or it is gone
_A_WHILE: Final = 3600.0  # seconds; on Windows a wait without an end hears no signal
_SIGNALS: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")


class SessionEnds(BaseException):
    """The user logs out, or the computer is shut down."""


class Session:
    """Its end is raised wherever we are, but within `whole` only at the end of that."""

    door: Door | PipeDoor | None = None  # is closed at the end, wherever that was raised

    def __init__(self) -> None:
        self._held = False
        self._over = False

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        for number in _known_signals():
            signal.signal(number, signal.SIG_IGN)  # one is enough; what follows takes its time
        self._over = True
        self._raise()

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """What would leave a socket of which nobody knows if it were done half. It is short, and waits for nobody."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self._raise()

    def close_door(self, *, passed_on: bool = False, why: str = "") -> None:
        """Again, too: the first time may have been interrupted."""
        if self.door is not None:
            self.door.close(passed_on=passed_on, why=why)

    def _raise(self) -> None:
        if self._over and not self._held:
            raise SessionEnds


class Door:
    """The engine's socket of a machine that is off, and who has come."""

    def __init__(self, path: Path) -> None:
        """Raises WherryError when there can be no socket. The caller holds the lock for starting a keeper."""
        self._path = path
        self._listening = listener.bound(path)
        self._listening.setblocking(False)
        self._made = path.stat()
        self._clients: list[socket.socket] = []

    @property
    def sockets(self) -> list[socket.socket]:
        """The one that listens, then the clients."""
        return [self._listening, *self._clients]

    def wait(self, directory: MachineDir) -> bool:
        """Until a client asks for something; False when that is no concern of ours any more."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            while self._is_ours() and directory.exists():
                for key, _ in selector.select(_LOOKS_EVERY):
                    if key.fileobj is self._listening:
                        self._accept(selector)
                    elif self._asks(key.fileobj, selector):
                        return self._is_ours()
        return False

    def _accept(self, selector: selectors.BaseSelector) -> None:
        with contextlib.suppress(OSError):  # it has gone again
            client, _ = self._listening.accept()
            client.setblocking(False)
            self._clients.append(client)
            selector.register(client, selectors.EVENT_READ)

    def _asks(self, client: Any, selector: selectors.BaseSelector) -> bool:
        """Whether it has sent anything. Who only looks whether somebody listens needs no machine."""
        with contextlib.suppress(OSError):
            if client.recv(1, socket.MSG_PEEK):
                return True
        selector.unregister(client)
        self._clients.remove(client)
        client.close()
        return False

    def close(self, *, passed_on: bool, why: str = "") -> None:  # noqa: ARG002  the keeper says itself why
        """A socket that was not handed on is taken away: who hands it on closes ours (run.start_keeper)."""
        if self._listening.fileno() >= 0 and self._is_ours():
            self._path.unlink(missing_ok=True)  # the machine may have been deleted since
            with contextlib.suppress(OSError):
                self._path.parent.rmdir()
        for one in self.sockets:
            one.close()

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), self._made)
        except OSError:
            return False


def attend(directory: MachineDir, session: Session, report: Reporter, *, now: bool) -> None:
    """Until the machine was started, by us or by another command. Raises WherryError, SessionEnds."""
    if now:
        run.up(directory.name, UpOptions(), report)
        return
    passed_on, why = False, ""
    try:
        with run.starting(directory):  # nobody starts a keeper meanwhile, which would lose its socket to us
            if running(directory):
                return
            with session.whole():
                door = session.door = _door(directory)
                log.info("waiting at %s", directory.engine_socket)
        if door.wait(directory):
            log.info("a client calls: starting %s", directory.name)
            passed_on = True
            run.up(directory.name, UpOptions(), report, door=door.sockets)
    except WherryError as error:
        why = f"the machine {directory.name} did not start: {error.message}"
        raise
    finally:
        session.close_door(passed_on=passed_on, why=why)


def _door(directory: MachineDir) -> Door | PipeDoor:
    return (Door if host.current().ENDPOINT == "unix" else PipeDoor)(directory.engine_socket)


def stay() -> NoReturn:
    """Until SessionEnds. Not even without a machine it ends: systemd would kill what it started, in the middle of stopping."""
    never = threading.Event()
    while True:
        never.wait(_A_WHILE)


def leave(directory: MachineDir, report: Reporter) -> None:
    """Stop the machine as `wherry stop` does. One that sleeps by itself stays suspended. Raises WherryError."""
    if directory.exists() and running(directory):
        log.info("the session ends: stopping %s", directory.name)
        stop(directory.name, False, report)


class _Log(SilentReporter):
    """What must be acted on, for whoever keeps the words of programs that start at login."""

    def warn(self, text: str) -> None:
        log.warning("%s", text)


def _known_signals() -> list[int]:
    return [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]


def main(words: list[str]) -> int:
    """1 when the machine did not start, or did not stop."""
    import argparse

    parser = argparse.ArgumentParser(prog="launcher.machine.doorman")
    parser.add_argument("name")
    parser.add_argument("--now", action="store_true")
    parser.add_argument("--home", default="")
    given = parser.parse_args(words)
    if given.home:
        os.environ["WHERRY_HOME"] = given.home
    os.umask(0o077)
    directory = store.machine(given.name)
    _log_to(directory)
    session = Session()
    for number in _known_signals():
        signal.signal(number, session.on_signal)
    return _guard(directory, session, now=given.now)


def _log_to(directory: MachineDir) -> None:
    """Where systemd and launchd keep it; under pythonw, which has no streams, in the machine's folder, if there is one."""
    if sys.stderr is not None:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    elif directory.exists():
        diary.keep(directory.path / autostart.LOG, released=True)


def _guard(directory: MachineDir, session: Session, *, now: bool) -> int:
    report, code = _Log(), 0
    try:
        if not directory.exists():
            log.warning("there is no machine %s any more; wherry autostart disable %s", directory.name, directory.name)
            return 0
        try:
            attend(directory, session, report, now=now)
        except (WherryError, OSError) as error:
            code = 1  # before it is said: the session may end while it is
            _tell(error)
        except Exception:  # the machine may run all the same, and is to be stopped when the session ends
            code = 1
            log.exception("the doorman failed")
        # Elsewhere the keeper hears itself that the session ends, which no signal tells.
        if directory.exists() and host.current().SIGNALS_END:
            stay()
    except SessionEnds:
        session.close_door()
        try:
            leave(directory, report)
        except (WherryError, OSError) as error:
            _tell(error)
            code = 1
    return code


def _tell(error: WherryError | OSError) -> None:
    known = error if isinstance(error, WherryError) else of_system(error)
    log.error("%s   %s", known.message, known.hint or "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
