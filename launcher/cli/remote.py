"""Small commands in the machine with streams of our own: for copies, not for the terminal (that is launcher.cli.proxied)."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher import control
from launcher.errors import ConnectionLost, WherryError, from_json

Writer = Callable[[bytes], None]


@dataclass(frozen=True)
class Done:
    """A command's end and what it said, stdout only when no sink took it."""

    code: int
    stdout: bytes
    stderr: bytes

    def check(self, what: str) -> Done:
        """Itself; raises WherryError, with the command's own words, when it failed."""
        if self.code != 0:
            words = self.stderr.decode(errors="replace").strip()
            raise WherryError(f"{what} failed in the machine (exit code {self.code}).", detail=words or None)
        return self


def call(path: Path, argv: Sequence[str], *, feed: Callable[[Writer], None] | None = None, sink: Writer | None = None) -> Done:
    """Run argv in the machine. `feed` writes its standard input, as a stream; `sink` takes its standard output as it comes.

    Raises ConnectionLost when its end is unknown, and whatever `feed` and `sink` raise.
    """
    framed = control.request(
        path, "exec", argv=list(argv), env={}, cwd=None, tty=False, rows=24, cols=80, term="dumb", client=False
    )
    source = control.Input(framed)
    reader = _Reader(framed, sink, source)
    try:
        reader.start()
        with contextlib.suppress(BrokenPipeError, ConnectionError):  # the command's end tells why it took no more
            if feed is not None:
                feed(source.send)
            source.end()
        return reader.result()
    finally:
        framed.close()


class _Reader(threading.Thread):
    """Reads the frames beside the writer, so that a command that speaks while it is fed never waits for us."""

    def __init__(self, framed: control.Framed, sink: Writer | None, source: control.Input) -> None:
        super().__init__(daemon=True)
        self._framed = framed
        self._source = source
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._sink: Writer = sink or self._stdout.extend
        self._failure: BaseException | None = None
        self._code: int | None = None

    def run(self) -> None:
        try:
            while self._code is None:
                frame = self._framed.receive()
                if frame is None:
                    raise ConnectionLost("the connection to the machine ended during a copy.", hint="wherry status")
                self._take(*frame)
        except BaseException as error:  # carried over to the caller's thread
            self._failure = error
        finally:
            self._source.close()

    def _take(self, kind: bytes, payload: bytes) -> None:
        if kind == control.STDOUT:
            self._sink(payload)
        elif kind == control.STDERR:
            self._stderr += payload
        elif kind == control.CREDIT:
            self._source.grant(payload)
        elif kind in (control.EXIT, control.JSON):
            value = json.loads(payload)
            if value.get("ok") is False:
                raise from_json(value.get("error") or {})
            if value.get("lost"):
                raise ConnectionLost(value.get("message") or "the connection to the machine ended.", hint="wherry status")
            if kind == control.EXIT:
                self._code = int(value["code"])

    def result(self) -> Done:
        self.join()
        if self._failure is not None:
            raise self._failure
        assert self._code is not None
        return Done(self._code, bytes(self._stdout), bytes(self._stderr))
