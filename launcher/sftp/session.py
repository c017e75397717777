"""One share served over one stream, until it ends."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from launcher.sftp import kinds
from launcher.sftp.crew import Crew
from launcher.sftp.events import Event, Waiting
from launcher.sftp.order import Job, Order
from launcher.sftp.packets import Inbox, Malformed, Reader, Stream, head, string, u32
from launcher.sftp.served import Tree
from launcher.sftp.serving import REPLY, Answer, Serving
from launcher.sftp.watched import Watched

log = logging.getLogger("wherry.sftp")

_INIT: Final = 1
_VERSION: Final = 2
_EXTENDED: Final = 200
_OURS: Final = (b"wherry@wherry", b"1")

# Answers that are ready go out together when so many bytes of them are there, or the first has waited so long (seconds),
# or nothing more is to be read.
_MOST_BYTES: Final = 64 << 10
_MOST_SECONDS: Final = 0.001
_UNSUPPORTED: Final = OSError(errno.ENOSYS, "no such request")


class Session:
    """`serve` is called once. What it holds is bounded whatever the other side sends or does not read."""

    def __init__(self, stream: Stream, tree: Tree, *, watched: Watched | None = None) -> None:
        self._stream = stream
        self._inbox = Inbox(stream)
        self._serving = Serving(tree, watched)
        self._crew = Crew(self._lead, self._carry_out, self._bring, Order(parallel=getattr(tree, "parallel", False)))
        self._sending = threading.Lock()
        self._begun = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._out_since = 0.0
        self._events = Waiting()
        self._asked: int | None = None  # the id of the request for events

    def serve(self) -> None:
        """Until the stream ends, or a packet comes that is none; then closes what is open. Never raises for what comes.

        Returns only when no request is under way any more: nothing of the tree is used after that.
        """
        try:
            self._crew.run()
        finally:
            self._serving.handles.close()

    def push(self, events: Sequence[Event]) -> None:
        """They go to the guest when it has asked, behind every answer that was made before. Does not wait."""
        with self._crew.lock:
            self._events.add(events)
            self._crew.rouse()

    def _lead(self, term: int) -> None:
        """Reads, carries out and answers, until another thread leads or the session has ended."""
        crew = self._crew
        try:
            self._flush()
            while not crew.ended:
                job = crew.waiting() if crew.order.fresh else None
                if job is None:
                    job = self._read()
                if job is not None and not self._do(job, term):
                    return
        except Malformed as error:
            log.warning("a share's connection ends: %s", error)
        except (OSError, EOFError) as error:
            log.info("a share's connection has broken: %s", error)
        except Exception:
            log.exception("a share's connection ends")
        self._crew.end()

    def _read(self) -> Job | None:
        """The next request, when it may be carried out at once; waits when nothing is here. Raises EOFError at the end."""
        reader = self._inbox.next()
        if reader is None:
            self._more()
            return None
        job = self._job(reader)
        if job is None or not (job.kind.slow or self._crew.order.busy) or self._admit(job):
            return job
        return None

    def _more(self) -> None:
        """Waits for what comes next, unless something that waited can be done now."""
        crew = self._crew
        self._flush()
        crew.rest()
        if not crew.idle:
            return
        if self._asked is not None and self._events:
            crew.wake()
        if not self._inbox.more():
            raise EOFError("the stream has ended")
        crew.resume()
        crew.batches += 1

    def _do(self, job: Job, term: int) -> bool:
        """One request; False when this thread leads no more."""
        crew = self._crew
        crew.current = job
        if crew.asleep:
            crew.wake()
        answer = self._run(job)
        if not crew.finish(job, term):
            self._answer(job, answer)
            return False
        self._put(job.ident, answer)
        return True

    def _admit(self, job: Job) -> bool:
        if not self._crew.has_room():
            self._flush()  # it may take long
        return self._crew.admit(job)

    def _job(self, reader: Reader) -> Job | None:
        """What is to be carried out; None when it has been answered. Raises Malformed."""
        size = reader.end - reader.at
        number = reader.byte()
        if number == _INIT or not self._begun:
            self._begin(number, reader)
            return None
        ident = reader.u32()
        kind = kinds.REQUESTS.get(number)
        if kind is None:
            kind = self._other(number, ident, reader)
            if kind is None:
                return None
        try:
            return Job(kind, ident, [field(reader) for field in kind.fields], size)
        except OSError as error:
            self._put(ident, self._serving.failed(error))
            return None

    def _begin(self, number: int, reader: Reader) -> None:
        """INIT, which is the first and comes once."""
        if number != _INIT or self._begun:
            raise Malformed("INIT is missing, or comes again")
        if reader.u32() < 3:
            raise Malformed("the other side knows an older version only")
        while reader.at < reader.end:
            if (reader.string(), reader.string()) == _OURS:
                self._serving.wherry = True
        self._begun = True
        pairs = [*kinds.VERSIONS.items(), *([_OURS] if self._serving.wherry else [])]
        body = b"\0\0\0\3" + b"".join(string(name) + string(value) for name, value in pairs)
        self._send([u32(len(body) + 1), bytes((_VERSION,)), body])

    def _other(self, number: int, ident: int, reader: Reader) -> kinds.Kind | None:
        """A request by name; None when it has been answered, or will be when there are events."""
        name = reader.string() if number == _EXTENDED else b""
        ours = self._serving.wherry
        kind = kinds.EXTENDED.get(name) or (kinds.WHERRY.get(name) if ours else None)
        if kind is not None:
            return kind
        if ours and name == b"ping@wherry":
            self._put(ident, self._serving.done())
        elif ours and name == b"events@wherry":
            self._wait(ident)
        else:
            self._put(ident, self._serving.failed(_UNSUPPORTED))
        return None

    def _wait(self, ident: int) -> None:
        """A request for events, which is answered when there are some."""
        with self._crew.lock:
            busy = self._asked is not None
            if not busy:
                self._asked = ident
        if busy:
            self._put(ident, self._serving.failed(OSError(errno.EBUSY, "another such request is under way")))

    def _run(self, job: Job) -> Answer:
        try:
            return job.kind.run(self._serving, *job.fields)
        except OSError as error:
            return self._serving.failed(error)
        except Exception:
            log.exception("a request has failed in a way that nobody thought of: type %s", job.kind.run.__name__)
            return self._serving.failed(OSError(errno.EIO, "failed"))

    def _put(self, ident: int, answer: Answer) -> None:
        """Of the leading thread: an answer goes out soon, with others that are ready."""
        now = time.monotonic()
        if not self._out:
            self._out_since = now
        size = len(answer[1]) + (len(answer[2]) if len(answer) == 3 else 0)
        self._out.append(head(answer[0], ident, size))
        self._out.extend(answer[1:])
        self._out_bytes += size
        if self._out_bytes >= _MOST_BYTES or now - self._out_since >= _MOST_SECONDS:
            self._flush()

    def _flush(self) -> None:
        """What is ready goes out; and events that wait for the moment, which is now: no answer is being made."""
        if self._out:
            out, self._out, self._out_bytes = self._out, [], 0
            self._serving.tell()
            self._send(out)
        if self._asked is not None and self._events:
            with self._crew.lock:
                brought = self._events_body()
            if brought is not None:
                self._send(brought)

    def _carry_out(self, job: Job) -> None:
        """Of a thread that does not lead."""
        self._answer(job, self._run(job))

    def _answer(self, job: Job, answer: Answer) -> None:
        try:
            self._serving.tell()
            size = sum(len(piece) for piece in answer[1:])
            self._send([head(answer[0], job.ident, size), *answer[1:]])
        except Exception as error:
            log.info("a share's connection has broken: %s", error)
            self._crew.end()
        finally:
            self._crew.leave(job)

    def _send(self, pieces: Sequence[Any]) -> None:
        with self._sending:
            self._stream.sendall(b"".join(pieces))

    def _bring(self) -> Callable[[], None] | None:
        """The attendant's errand; the lock is held."""
        if not self._crew.idle:
            return None
        body = self._events_body()
        return None if body is None else lambda: self._deliver(body)

    def _deliver(self, pieces: list[bytes]) -> None:
        try:
            self._send(pieces)
        except Exception as error:
            log.info("a share's connection has broken: %s", error)
            self._crew.end()

    def _events_body(self) -> list[bytes] | None:
        """An answer with events, when one is asked for and no answer is being made that would come behind it and be older."""
        if self._asked is None or not self._events or self._crew.order.showing:
            return None
        ident, self._asked = self._asked, None
        body = self._events.take()
        return [head(REPLY, ident, len(body)), body]
