"""The threads of one session: one leads, and does by itself what it reads; another takes over when that takes long.

Handing every request to another thread would cost more than most requests do. So the leading thread carries each one out as
soon as it has read it, and answers many at once. A third party, the attendant, looks every TICK: when the same request is still
under way, that thread is left alone with it, and a spare one leads from there, with `Order` to say what may overtake what.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from launcher.sftp.order import Job, Order

# Seconds after which something takes long. 2 to 4 of them pass before another thread leads.
TICK: Final = 0.004
# Requests that are under way at once, and so threads, but for the leading one.
MOST_RUNNING: Final = 8
# Of what waits for others: beyond, nothing is read.
MOST_WAITING: Final = 1_024
MOST_WAITING_BYTES: Final = 32 << 20
# Without a request for so many ticks the attendant sleeps until there is one: an idle share costs nothing.
_QUIET_TICKS: Final = 12


class Crew:
    """`lead` is called by one thread at a time, with the number of its term; `carry_out` by others, for one request each.

    `errand` is called by the attendant, every TICK and when `call` asks for it, with the lock held; it gives what is to be
    done without it.
    """

    def __init__(
        self,
        lead: Callable[[int], None],
        carry_out: Callable[[Job], None],
        errand: Callable[[], Callable[[], None] | None],
        order: Order,
    ) -> None:
        self.lock = threading.Lock()
        self.order = order
        self.ended = False
        self.term = 0
        self.current: Job | None = None  # what the leading thread is doing
        self.idle = False  # the leading thread waits for what comes, and all of its answers have gone
        self.asleep = False  # the attendant
        self.batches = 0  # counts what the leading thread has read, to see that it reads
        self._lead = lead
        self._carry_out = carry_out
        self._errand = errand
        self._attention = threading.Condition(self.lock)
        self._spare = threading.Condition(self.lock)
        self._room = threading.Condition(self.lock)
        self._spares = 0
        self._wanted = False  # somebody to lead
        self._threads: list[threading.Thread] = []
        self._seen: Job | None = None  # under way when the attendant looked last
        self._since = 0.0

    def run(self) -> None:
        """Leads, in this thread, and returns when the session has ended and all of its threads have."""
        attendant = threading.Thread(target=self._attend, name="wherry-sftp-attendant", daemon=True)
        attendant.start()
        try:
            self._lead(self.term)
            self._work()
        finally:
            self.end()
            attendant.join()
            for thread in self._threads:
                thread.join()

    def end(self) -> None:
        """No more is read, and what waits is not begun."""
        with self.lock:
            self.ended = True
            self.order.drop()
            for condition in (self._attention, self._spare, self._room):
                condition.notify_all()

    def wake(self) -> None:
        """The attendant looks again, when it sleeps."""
        with self.lock:
            self.rouse()

    def rouse(self) -> None:
        """As `wake`, by one who has the lock."""
        self._attention.notify()

    def admit(self, job: Job) -> bool:
        """Of the leading thread: True when it may carry out the job; else another does, later. Waits while too many wait."""
        with self.lock:
            if not self.has_room():
                self._rest()
                self._room.wait_for(self.has_room)
                self.idle = False
            if self.ended:
                return False
            now = not job.kind.slow and self._has_place()
            if self.order.offer(job, now=now):
                return True
            if not now:
                self._hand_out()
            return False

    def rest(self) -> None:
        """Of the leading thread, before it waits for what comes; others do what waits then."""
        with self.lock:
            if self.order.waiting and not self.order.fresh:
                # What is under way will be done in a moment, most likely, and then this thread goes on with what waits for it:
                # two threads that work on one line of requests are three times slower than one.
                self._room.wait_for(lambda: self.order.fresh or self.ended, TICK)
            if not (self.order.fresh and self._has_place()):
                self._rest()

    def _rest(self) -> None:
        self.idle = True
        self._hand_out()

    def resume(self) -> None:
        """Of the leading thread, when something has come. Not while the attendant takes events."""
        with self.lock:
            self.idle = False

    def waiting(self) -> Job | None:
        """Of the leading thread: what has waited and may be carried out now. It does that before it reads on."""
        with self.lock:
            return self.order.take(quick=True, slow=False) if self._has_place() else None

    def _has_place(self) -> bool:
        """The last place is not for the leading thread: nobody could take over."""
        return len(self.order.running) < MOST_RUNNING - 1

    def has_room(self) -> bool:
        """Whether a request that cannot be carried out yet can wait."""
        order = self.order
        return self.ended or (len(order.waiting) < MOST_WAITING and order.bytes < MOST_WAITING_BYTES)

    def finish(self, job: Job, term: int) -> bool:
        """Of the leading thread, when a job is done: False when it leads no more; it answers by itself then, and `leave`s."""
        with self.lock:
            if self.term != term:
                return False
            self.current = None
            if job.entered:
                self.order.leave(job)
                self._hand_out()
            return True

    def leave(self, job: Job) -> None:
        """Of another thread, when the answer has gone. It looks for more to do, or the leading thread does."""
        with self.lock:
            self.order.leave(job)
            self._room.notify()
            if job.kind.shows:  # events may have waited for it
                self._attention.notify()

    def _hand_out(self) -> None:
        """Somebody comes for the waiting that may be carried out now, one after the other; the one who comes looks which."""
        if ((self.order.fresh and self.idle) or self.order.fresh_slow) and len(self.order.running) < MOST_RUNNING:
            self._call()

    def _call(self) -> None:
        if self._spares:
            self._spares -= 1
            self._spare.notify()
        elif len(self._threads) <= MOST_RUNNING and not self.ended:
            thread = threading.Thread(target=self._work, name=f"wherry-sftp-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more: who gets done with something does it
                return
            self._threads.append(thread)

    def _work(self) -> None:
        while True:
            with self.lock:
                while not (self.ended or self._wanted or (job := self._next())):
                    self._spares += 1
                    self._spare.wait()
                if self.ended:
                    return
                leads, self._wanted = self._wanted, False
                term = self.term
                # There may be more that can be done now.
                self._hand_out()
            if leads:
                self._lead(term)
            elif job is not None:
                self._carry_out(job)

    def _next(self) -> Job | None:
        return self.order.take(quick=self.idle, slow=True) if len(self.order.running) < MOST_RUNNING else None

    def _attend(self) -> None:
        batches, quiet = 0, 0
        while True:
            with self.lock:
                if self.ended:
                    return
                self._supersede()
                quiet = quiet + 1 if self.batches == batches and self.current is None else 0
                batches = self.batches
                errand = self._errand()
                if errand is None:
                    self.asleep = quiet > _QUIET_TICKS
                    # The leading thread begins first and looks then, without the lock: one of the two sees the other.
                    self.asleep = self.asleep and self.current is None
                    self._attention.wait(None if self.asleep else TICK)
                    self.asleep = False
            if errand is not None:
                errand()

    def _supersede(self) -> None:
        """Another thread leads when what was under way a TICK ago still is."""
        job, now = self.current, time.monotonic()
        if job is None or job is not self._seen:
            self._seen, self._since = job, now
            return
        if now - self._since < TICK * 0.9:
            return
        if not job.entered:
            self.order.begin(job)
        self.current = None
        self.term += 1
        self._wanted = True
        self._seen = None
        self._call()
