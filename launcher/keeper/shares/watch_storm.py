"""Many events at once say no more than that everything is to be looked at anew; and cost the guest more."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from launcher.keeper.shares.watch_tree import within
from launcher.sftp import events
from launcher.sftp.events import Event

IN_FOLDER: Final = 200
AT_ONCE: Final = 500  # a session keeps 1,000 for a guest that is slow to ask
_HALF_LIFE: Final = 0.5  # seconds, after which half of what was told is forgotten: 280 a second for ever are too many, too


class Storm:
    """Of one share. Not locked."""

    def __init__(self) -> None:
        self._told: dict[bytes, float] = {}  # lately, by folder
        self._at = 0.0

    def thin(self, found: list[Event], roots: Collection[bytes], now: float) -> list[Event]:
        """More than IN_FOLDER of one folder become one LOST of it; more than AT_ONCE then, one of each of `roots` that has
        some."""
        self._fade(now)
        for event in found:
            folder = _folder(event.path)
            self._told[folder] = self._told.get(folder, 0.0) + 1
        kept = self._without_crowds(found)
        calm = sum(count for count in self._told.values() if count <= IN_FOLDER)
        if len(kept) <= AT_ONCE and calm <= 2 * AT_ONCE:
            return kept
        hit = {root for event in kept for path in (event.path, event.path2) if path for root in roots if within(path, {root})}
        beyond = [event.path for event in kept if event.kind == events.LOST and not within(event.path, hit)]
        return [Event(events.LOST, True, path) for path in sorted({*hit, *beyond})]

    def _fade(self, now: float) -> None:
        left = 0.5 ** ((now - self._at) / _HALF_LIFE)
        self._told = {folder: count * left for folder, count in self._told.items() if count * left >= 1}
        self._at = now

    def _without_crowds(self, found: list[Event]) -> list[Event]:
        crowded = {folder for folder, count in self._told.items() if count > IN_FOLDER}
        kept: dict[Event, None] = {}
        for event in found:
            if event.kind != events.LOST and _folder(event.path) in crowded:
                # The other name of a rename may be in a folder that is quiet.
                if event.path2 and _folder(event.path2) not in crowded:
                    _put_last(kept, Event(events.CREATED, event.is_dir, event.path2))
                event = Event(events.LOST, True, _folder(event.path))
            _put_last(kept, event)
        return list(kept)


def _put_last(kept: dict[Event, None], event: Event) -> None:
    """One that comes again is a later change; of LOST the first is as good."""
    if event.kind != events.LOST:
        kept.pop(event, None)
    kept[event] = None


def _folder(path: bytes) -> bytes:
    return path[: path.rfind(b"/")] or b"/"
