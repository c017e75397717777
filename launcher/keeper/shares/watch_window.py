"""What is heard within a short while, as few events as tell it; without what the guest has done itself.

An echo is known by its result: `made` says how a name was left by the guest, and when that is how it is now, whatever was
heard of the name is the guest's. The call comes a little after what is heard: so something young waits for it, but not for
long; and what the guest changes again and again, a file that is written or replaced, waits for a moment at which the last
call has come. A change of somebody else that leaves the same inode, size, mtime and ctime as the guest has just made passes
as its own; kernels before 6.13 have one ctime for a whole tick (4 ms mostly).
"""

from __future__ import annotations

import stat as modes
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from launcher.keeper.shares.watch_items import ATTRIB, CLOSED, CREATED, DELETED, HALF, LOST, MODIFIED, RENAMED, Item
from launcher.sftp import events
from launcher.sftp.events import Event
from launcher.sftp.stat import Stat

YOUNG: Final = 0.03  # seconds in which `made` may still come
LONGEST: Final = 0.15  # seconds that anything waits, if it is written all the time
USING: Final = 0.1  # seconds after a change by the guest in which the next one is expected
LONGEST_USED: Final = 1.0  # as LONGEST, of a file that the guest changes: as old as an answer may be that is not watched
_FORGET: Final = 2.0  # seconds after which nothing is heard any more of what was made
_LATE: Final = 20.0  # the same while there is more to hear than has been read
_MADE: Final = 20_000  # what was made and is not looked at yet
_SENT: Final = 4_096  # names
_MMAP_NS: Final = 60 * 10**9  # a file that is closed and was not written for so long was not written through a mapping either


class Mark(NamedTuple):
    """How a name is. Of a folder only which one it is: the rest changes with its content."""

    ino: int
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0


GONE: Final = Mark(0)


class _Made(NamedTuple):
    mark: Mark
    ctime_ns: int
    at: float
    gone: int  # how often the name was taken away


class Window:
    """Of one share. Not locked: whoever has one does that."""

    def __init__(self, look: Callable[[bytes], Stat | None]) -> None:
        """`look`: how a name is now, on this computer; None when it is not there."""
        self._look = look
        self._items: list[Item] = []
        self._open: dict[bytes, Item] = {}
        self._halves: dict[int, Item] = {}
        self._new: deque[tuple[bytes, Stat | None, float]] = deque(maxlen=_MADE)
        self._made: dict[bytes, _Made] = {}  # the oldest first
        self._gone: dict[bytes, int] = {}  # how often that was heard
        self._sent: dict[bytes, Mark] = {}
        self._late = False  # there was more to hear at the last look

    def __len__(self) -> int:
        return len(self._items)

    # What comes in

    def made(self, path: bytes, stat: Stat | None, now: float) -> None:
        """May be called by any thread at any time: whoever has to wait here is told too late."""
        self._new.append((path, stat, now))

    def _take_made(self, oldest: float) -> None:
        while self._made and next(iter(self._made.values())).at < oldest:
            del self._made[next(iter(self._made))]
        while self._new:
            path, stat, at = self._new.popleft()
            if at >= oldest:
                self._note_made(path, stat, at)

    def _note_made(self, path: bytes, stat: Stat | None, at: float) -> None:
        mark, ctime_ns = _mark(stat)
        before = self._made.pop(path, None)
        if before is not None and before.mark.ino == mark.ino and 0 < before.ctime_ns - ctime_ns < 10**9:
            mark, ctime_ns = before.mark, before.ctime_ns  # two writes at once, told the other way round
        gone = (before.gone if before is not None else 0) + (stat is None)
        self._made[path] = _Made(mark, ctime_ns, at, gone)

    def note(self, path: bytes, bits: int, now: float, *, is_dir: bool = False, cookie: int = 0) -> None:
        """`bits`: those of watch_items but for RENAMED; HALF with a cookie: it has moved away, or has come."""
        if bits & DELETED:
            self._gone[path] = self._gone.get(path, 0) + 1
        if bits & HALF:
            self._half(path, bits, now, is_dir=is_dir, cookie=cookie)
        elif bits & LOST:
            self._append(Item(path, LOST, now, is_dir=True))
        elif (item := self._open.get(path)) is not None:
            item.add(bits, now, is_dir=is_dir)
        else:
            self._open[path] = self._append(Item(path, bits, now, is_dir=is_dir))

    def everything(self, roots: list[bytes], now: float) -> None:
        """Nobody knows what has changed."""
        self._items, self._open, self._halves, self._gone = [], {}, {}, {}
        for root in roots:
            self.note(root, LOST, now)

    def _half(self, path: bytes, bits: int, now: float, *, is_dir: bool, cookie: int) -> None:
        self._open.pop(path, None)
        if bits & DELETED:
            self._halves[cookie] = self._append(Item(path, bits, now, is_dir=is_dir))
            return
        item = self._halves.pop(cookie, None)
        if item is None:
            self._open[path] = self._append(Item(path, CREATED, now, is_dir=is_dir))
            return
        # Between the halves something else may have come: the whole stands where its second half does.
        self._items.remove(item) if self._items[-1] is not item else self._items.pop()
        self._append(Item(item.path, RENAMED, now, is_dir=is_dir, path2=path, first=item.first))

    def _append(self, item: Item) -> Item:
        self._items.append(item)
        return item

    # What goes out

    def settle(self, now: float, heard_until: float) -> list[Event]:
        """The events that are due, in the order of the changes; what remains is too young. All that happened before
        `heard_until` has been noted; 0: there is more, and nobody knows from when on."""
        late, self._late = self._late or not heard_until, not heard_until
        self._take_made(now - (_LATE if late else _FORGET))
        told: list[Event] = []
        done: list[Item] = []
        rest: list[Item] = []
        marks: dict[bytes, Mark] = {}
        held: set[bytes] = set()
        for number, item in enumerate(self._items):
            found = self._judge(item, marks)
            if found and (self._is_used(item, now) or item.path in held or item.path2 in held):
                rest.append(item)
                held.update(item.paths())
            elif found and item.last > now - YOUNG and item.first > now - LONGEST:
                rest += self._items[number:]
                break
            else:
                told += found
                done.append(item)
        self._items = rest
        kept = {id(item) for item in rest}
        self._open = {path: item for path, item in self._open.items() if id(item) in kept}
        self._halves = {cookie: item for cookie, item in self._halves.items() if id(item) in kept}
        self._forget(done, rest, heard_until)
        return told

    def _forget(self, done: list[Item], rest: list[Item], heard_until: float) -> None:
        """What was made is the explanation of what was heard until now, and of nothing later."""
        waiting = {path for item in rest for path in item.paths()}
        for path in {path for item in done for path in item.paths()} - waiting:
            gone = self._gone.pop(path, 0)
            if (made := self._made.get(path)) is None:
                continue
            if made.at < heard_until:
                self._note_sent(path, made.mark)
                del self._made[path]
            else:
                self._made[path] = made._replace(gone=max(made.gone - gone, 0))

    def _is_used(self, item: Item, now: float) -> bool:
        """Whether the guest is changing that file just now: of its last change nothing may have been told yet, as a moment
        ago. Others may be told before it then."""
        if item.is_dir or item.bits & LOST or item.first <= now - LONGEST_USED:
            return False
        return any((made := self._made.get(path)) is not None and made.at > now - USING for path in item.paths())

    def _judge(self, item: Item, marks: dict[bytes, Mark]) -> list[Event]:
        if item.bits & LOST:
            return [Event(events.LOST, True, item.path)]
        if item.bits & RENAMED:
            return self._judge_rename(item, marks)
        if self._is_echo(item.path, marks) and not self._is_other_attributes(item):
            # The guest has moved it to where nobody looks, with all in it that it believes to be watched.
            return [Event(events.LOST, True, b"/")] if item.is_dir and item.bits & HALF else []
        found = item.names()
        if not found and self._is_modified(item):
            found.append(Event(events.MODIFIED, item.is_dir, item.path))
        if not (item.bits & (CREATED | DELETED)) and item.bits & ATTRIB:
            found.append(Event(events.ATTRIBUTES, item.is_dir, item.path))
        return found

    def _judge_rename(self, item: Item, marks: dict[bytes, Mark]) -> list[Event]:
        old, new = self._is_echo(item.path, marks), self._is_echo(item.path2, marks)
        if old and new:
            # The guest has moved all in it along, and changes of that which are on their way to it have old names.
            return [Event(events.LOST, True, item.path2)] if item.is_dir else []
        if old:
            return [Event(events.CREATED, item.is_dir, item.path2)]
        if new:
            return [Event(events.DELETED, item.is_dir, item.path)]
        return [Event(events.RENAMED, item.is_dir, item.path, item.path2)]

    def _is_echo(self, path: bytes, marks: dict[bytes, Mark]) -> bool:
        """As the guest left it; and it was not away meanwhile, seen by the guest, without the guest's doing."""
        made = self._made.get(path)
        if made is None or self._gone.get(path, 0) > made.gone:
            return False
        if path not in marks:
            marks[path] = _mark(self._look(path))[0]
        return marks[path] == made.mark

    def _is_other_attributes(self, item: Item) -> bool:
        """A mark of a folder says nothing of its attributes."""
        if not (item.is_dir and item.bits & ATTRIB):
            return False
        made, now = self._made.get(item.path), self._look(item.path)
        return made is not None and now is not None and made.ctime_ns != now.ctime_ns

    def _is_modified(self, item: Item) -> bool:
        """Nothing is heard of writes through a mapping (inotify(7)), but of the close: it counts where there is no other."""
        if item.bits & MODIFIED:
            self._note_sent(item.path, _mark(self._look(item.path))[0])
            return True
        if not item.bits & CLOSED or item.bits & ATTRIB:
            return False
        now = self._look(item.path)
        mark, ctime_ns = _mark(now)
        if now is None or self._sent.get(item.path) == mark or ctime_ns < time.time_ns() - _MMAP_NS:
            return False
        self._note_sent(item.path, mark)
        return True

    def _note_sent(self, path: bytes, mark: Mark) -> None:
        self._sent.pop(path, None)
        self._sent[path] = mark
        if len(self._sent) > _SENT:
            del self._sent[next(iter(self._sent))]


def _mark(stat: Stat | None) -> tuple[Mark, int]:
    if stat is None:
        return GONE, 0
    if modes.S_ISDIR(stat.mode):
        return Mark(stat.ino), stat.ctime_ns
    return Mark(stat.ino, stat.size, stat.mtime_ns, stat.ctime_ns), stat.ctime_ns
