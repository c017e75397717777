"""Which requests may be carried out at the same time, so that nobody can tell it from one after the other."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from launcher.sftp.kinds import Kind


class Job:
    """A request whose fields have been read."""

    __slots__ = ("entered", "fields", "ident", "key", "kind", "size")

    def __init__(self, kind: Kind, ident: int, fields: list[Any], size: int) -> None:
        self.kind = kind
        self.ident = ident
        self.fields = fields
        self.size = size  # bytes of its packet
        self.entered = False  # known to an Order, and below is true
        self.key = b""

    def enter(self) -> None:
        """What only matters beside others, and so seldom: not found out before."""
        self.entered = True
        if self.kind.variant is not None:
            run = self.kind.run
            self.kind = self.kind.variant(self.fields)._replace(run=run)
        if self.kind.handle is not None:
            self.key = self.fields[self.kind.handle]

    def part(self) -> None:
        """From what came with it, which may be far larger: it may wait for long."""
        self.fields = [bytes(field) if isinstance(field, memoryview) else field for field in self.fields]


class _Ahead:
    """What comes before a request: those of them that it may not overtake."""

    __slots__ = ("changes", "keys", "parallel", "strict")

    def __init__(self, parallel: bool) -> None:
        self.parallel = parallel
        self.keys: Counter[bytes] = Counter()
        self.strict = 0  # that may not be overtaken by what has to do with them
        self.changes = 0  # of these: that change something

    def add(self, job: Job, by: int) -> None:
        if job.key:
            self.keys[job.key] += by
            if not self.keys[job.key]:
                del self.keys[job.key]
        if not job.kind.loose:
            self.strict += by
            self.changes += by * job.kind.changes

    def stops(self, job: Job) -> bool:
        if job.key in self.keys or self.changes:
            return True
        return self.strict > 0 and (job.kind.changes or not (self.parallel or job.kind.loose))


class Order:
    """Requests in the order in which they came: being carried out, or waiting for some of those. Not locked.

    `parallel`: two that only look may go on at the same time, since nobody can tell which was first; the tree must know how.
    """

    def __init__(self, *, parallel: bool) -> None:
        self._parallel = parallel
        self.waiting: deque[Job] = deque()
        self.running: set[Job] = set()
        self.bytes = 0  # of the packets of those that wait
        self.showing = 0  # of those that are carried out: that show something
        # One of the waiting may be free, and nobody has looked: of the quick ones, of the slow ones.
        self.fresh = False
        self.fresh_slow = False
        self._all = _Ahead(parallel)

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)

    def begin(self, job: Job) -> None:
        """It is being carried out, and was the first that had not been."""
        job.enter()
        self._all.add(job, 1)
        self._run(job)

    def offer(self, job: Job, *, now: bool) -> bool:
        """True when it may be carried out; else, or when not `now`, it waits."""
        job.enter()
        free = now and not self._all.stops(job)
        self._all.add(job, 1)
        if free:
            self._run(job)
        else:
            job.part()
            self.waiting.append(job)
            self.bytes += job.size
            if not now:
                self._look(slow=job.kind.slow, quick=not job.kind.slow)
        return free

    def take(self, *, quick: bool, slow: bool) -> Job | None:
        """The first of the waiting, of those kinds, that may be carried out; it is, from now on."""
        if not ((self.fresh and quick) or (self.fresh_slow and slow)):
            return None
        ahead = _Ahead(self._parallel)
        for job in self.running:
            ahead.add(job, 1)
        for number, job in enumerate(self.waiting):
            if (slow if job.kind.slow else quick) and not ahead.stops(job):
                del self.waiting[number]
                self.bytes -= job.size
                self._run(job)
                return job
            ahead.add(job, 1)
        self.fresh = self.fresh and not quick
        self.fresh_slow = self.fresh_slow and not slow
        return None

    def drop(self) -> None:
        """Nothing waits any more."""
        self.waiting.clear()
        self.bytes = 0
        self.fresh = self.fresh_slow = False

    def leave(self, job: Job) -> None:
        """It has been carried out."""
        self.running.discard(job)
        self.showing -= job.kind.shows
        self._all.add(job, -1)
        if self.waiting:
            self._look(quick=True, slow=True)

    def _look(self, *, quick: bool, slow: bool) -> None:
        self.fresh = self.fresh or quick
        self.fresh_slow = self.fresh_slow or slow

    def _run(self, job: Job) -> None:
        self.running.add(job)
        self.showing += job.kind.shows
