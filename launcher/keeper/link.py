"""The keeper's one warm SSH connection: made when it is first asked for, and from then on looked after.

Every 5 s sshd is asked for an answer, less often while nobody uses the connection. Two that do not come are a sign that it is
dead; but a computer under load, or a QEMU that was stopped for a while, looks just the same from here, and what is under way
would be lost for nothing. So another connection is tried beside the old one, and whichever answers first is the one. Where
neither does, the old one is ended after 30 s. A connection that ends by itself is replaced at once. There are as many tries as
it takes, as long as the machine is wanted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from launcher.errors import ConnectionLost, WherryError
from launcher.keeper import race
from launcher.keeper.rhythm import Rhythm
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.link")

EVERY: Final = 5.0  # seconds between questions
DOUBT: Final = 10.0  # without an answer: two questions' worth
DEAD: Final = 30.0  # without an answer from anybody
WAKING: Final = 2.0  # in place of DOUBT after this computer has slept
CALLS_WAIT: Final = 10.0
_PATIENCE: Final = 15.0  # seconds for sshd's first word: a busy guest needs long
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0)  # between tries; the last one again and again
_OLD_ONES_CHANCE: Final = 1.0

OnUp = Callable[[Connection], object]
T = TypeVar("T")


class Link:
    """Safe to use from many threads."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        reconnect: Callable[[float], Connection] | None = None,
        *,
        probe: Callable[[], None] = lambda: None,
        excused: Callable[[], bool] = lambda: False,
        on_state: Callable[[str, float], None] = lambda _text, _seconds: None,
    ) -> None:
        """`connect` and `reconnect` raise WherryError when the machine cannot be reached; the latter gets how many seconds to
        wait for sshd's first word. `probe` returns when QEMU itself answers. `excused`: whether nobody can answer now, and
        that is known. `on_state` hears why the connection is missed, and when it is there again an empty text with the seconds
        that it was missed."""
        self._connect = connect
        self._reconnect = reconnect or (lambda _patience: connect())
        self._probe = probe
        self._excused = excused
        self._on_state = on_state
        self._making = threading.Lock()
        self._changed = threading.Condition()  # for all below
        self._subscribers: list[OnUp] = []
        self._beats: list[OnUp] = []
        self._connection: Connection | None = None
        self._wanted = False  # it was there once, or was asked for by want(), and is to be there again
        self._drops = 0  # so that what was begun before one does not undo it
        self._missed: float | None = None  # since when, while there is none or it is in doubt
        self._asked: float | None = None  # when the question was asked that has no answer yet
        self._doubt = DOUBT
        self._kick: Rhythm | None = None  # wakes the thread that asks

    def subscribe(self, on_up: OnUp) -> None:
        """Have `on_up` called, in a thread of its own, with each new connection: the first one and every one after."""
        self._subscribers.append(on_up)

    def beat(self, on_beat: OnUp) -> None:
        """Have `on_beat` called with the connection after an answer, every few seconds: all of them in one thread, in turn.
        While one of them takes its time no other is called, but sshd is asked on."""
        self._beats.append(on_beat)

    def get(self) -> Connection:
        """The connection. While it is missed, waits up to 10 s for it to be there again. Raises WherryError."""
        with self._changed:
            if self._wanted:
                self._changed.wait_for(lambda: self._usable or not self._wanted, CALLS_WAIT)
                if self._usable and self._connection is not None and self._kick is not None:
                    self._kick.use()
                    return self._connection
                raise self._gone()
        with self._making:
            with self._changed:
                if self._usable and self._connection is not None:
                    return self._connection
                drops = self._drops
            connection = self._connect()
            if self._take(connection, lambda: drops == self._drops) is None:
                raise self._gone()
            return connection

    def open(self, make: Callable[[Connection], T]) -> T:
        """What `make` makes of the connection, or of the next one when that ended meanwhile: it does no harm by failing."""
        connection = self.get()
        try:
            return make(connection)
        except ConnectionLost:
            if connection.alive:
                raise
            return make(self.get())

    def fresh(self) -> Connection:
        """A connection of the caller's own, of which nobody is told and which nobody looks after. Raises WherryError."""
        return self._reconnect(_PATIENCE)

    def want(self, why: str) -> None:
        """Have it tried for as one that was lost: of a machine that runs, and whose first connection could not be made."""
        with self._changed:
            if not self._wanted:
                self._wanted = True
                self._miss(time.monotonic(), why)

    def drop(self) -> None:
        """End the connection; the next `get` makes another one."""
        with self._changed:
            connection, self._connection = self._connection, None
            self._wanted, self._missed, self._asked = False, None, None
            self._drops += 1
            self._changed.notify_all()
        if connection is not None:
            connection.close()

    def look(self) -> None:
        """Called every second or so: is an answer late?"""
        now = time.monotonic()
        with self._changed:
            connection, asked = self._connection, self._asked
            if connection is not None and not connection.alive:
                self._ended(connection)
            if connection is not self._connection or connection is None or asked is None:
                return
            if self._excused():
                self._asked = now
                return
            silent = now - asked
            if silent > self._doubt and self._missed is None:
                self._miss(asked, f"no answer for {silent:.0f} s")
        if silent > DEAD and connection is self._connection:
            log.warning("no answer for %.0f s from anybody; the connection is ended", silent)
            connection.close()

    def woke(self) -> None:
        """This computer has slept, or this process stood still: what was asked before does not count, and is asked anew."""
        with self._changed:
            self._asked = time.monotonic() if self._asked is not None else None
            self._doubt = WAKING
            if self._kick is not None:
                self._kick.set()

    # One connection

    @property
    def _usable(self) -> bool:
        return self._connection is not None and self._missed is None and self._connection.alive

    def _gone(self) -> ConnectionLost:
        if not self._wanted:  # dropped meanwhile
            return ConnectionLost("the connection to the machine ended.", hint="wherry status")
        since = self._missed
        silent = f" for {time.monotonic() - since:.0f} s" if since is not None else ""
        return ConnectionLost(
            f"the machine has not answered{silent}; wherry goes on trying to reach it.", hint="Try again soon. wherry status"
        )

    def _take(self, connection: Connection, needed: Callable[[], bool]) -> float | None:
        """Have this connection from now on, and end the one before: for how many seconds it was missed. None when it is not
        `needed` any more, and then it is ended; as it is when it cannot be looked after."""
        kick, answered = Rhythm(), threading.Event()
        threads = [
            threading.Thread(target=self._watch, args=(connection, kick, answered), name="link", daemon=True),
            threading.Thread(target=self._beat, args=(connection, answered), name="link-beat", daemon=True),
            *(threading.Thread(target=_tell, args=(up, connection), name="link-up", daemon=True) for up in self._subscribers),
        ]
        try:
            with self._changed:
                taken, old, missed = needed(), self._connection, self._missed
                if taken:
                    for thread in threads:
                        thread.start()  # may fail: before anything is changed
                    self._connection, self._wanted, self._kick = connection, True, kick
                    self._missed, self._asked, self._doubt = None, None, DOUBT
                    self._changed.notify_all()
        except BaseException:
            connection.close()
            kick.set()
            answered.set()
            raise
        if not taken:
            connection.close()
            return None
        connection.when_ended(kick.set)
        connection.when_ended(answered.set)
        if old is not None:
            old.close()
        return 0.0 if missed is None else time.monotonic() - missed

    def _watch(self, connection: Connection, kick: Rhythm, answered: threading.Event) -> None:
        """Ask for answers until the connection ends."""
        while True:
            kick.wait(EVERY)
            with self._changed:
                if not connection.alive or self._connection is not connection:
                    break
                self._asked = time.monotonic()
            if connection.ping(None):
                self._answered(connection)
                answered.set()
        with self._changed:
            self._ended(connection)

    def _beat(self, connection: Connection, answered: threading.Event) -> None:
        """A thread of its own: what waits here for the guest must not keep us from asking whether it answers."""
        while connection.alive and answered.wait():  # whose end wakes us too
            for on_beat in self._beats if connection.alive else []:
                _tell(on_beat, connection)
            answered.clear()  # only now: what came meanwhile is not made up for

    def _ended(self, connection: Connection) -> None:
        """Called with the lock held."""
        if self._connection is connection:
            self._miss(self._asked or time.monotonic(), "the connection to the machine ended")
            self._connection = None

    def _answered(self, connection: Connection) -> None:
        with self._changed:
            if self._connection is not connection:
                return
            missed, self._missed, self._asked, self._doubt = self._missed, None, None, DOUBT
            self._changed.notify_all()
        if missed is not None:
            log.info("the old connection answers again")
            self._say("", time.monotonic() - missed)

    # Another one

    def _miss(self, since: float, why: str) -> None:
        """Called with the lock held."""
        if not self._wanted or self._missed is not None:
            return
        # May fail, and is tried again with the next look: so nothing is noted before.
        threading.Thread(target=self._replace, args=(why,), name="link-again", daemon=True).start()
        self._missed = since
        log.warning("%s; connecting again", why)

    def _replace(self, why: str) -> None:
        self._say(why, 0.0)
        tries = 0
        while self._missing():
            try:
                connection = self._another()
                missed = self._take(connection, self._missing) if connection is not None else None
                if missed is not None:
                    self._say("", missed)
                return
            except WherryError as error:
                log.log(logging.INFO if tries < 2 else logging.DEBUG, "connecting again: %s", error)
            except Exception as error:  # whatever it is: nobody else would try again
                log.log(logging.ERROR if tries < 2 else logging.DEBUG, "connecting again: %r", error, exc_info=True)
            with self._changed:
                self._changed.wait_for(lambda: not self._missing(), _PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1

    def _say(self, why: str, seconds: float) -> None:
        try:
            self._on_state(why, seconds)
        except Exception:
            log.exception("after a change of the connection")

    def _missing(self) -> bool:
        with self._changed:
            return self._wanted and self._missed is not None

    def _another(self) -> Connection | None:
        """A new connection; None when it is not needed any more."""
        if self._excused():
            raise ConnectionLost("nobody can answer now.")
        self._probe()
        with self._changed:
            if self._connection is not None:
                # QEMU stood still, and goes on: so may the connection.
                self._changed.wait_for(lambda: not self._missing() or self._connection is None, _OLD_ONES_CHANCE)
            if not self._missing():
                return None
        return race.first(lambda: self._reconnect(_PATIENCE), self._missing)


def _tell(function: OnUp, connection: Connection) -> None:
    try:
        function(connection)
    except WherryError as error:
        log.info("after connecting: %s", error.message)
    except Exception:  # what failed for one part must not keep the connection from the others
        log.exception("after connecting")
