"""Many events at once say no more than that everything is to be looked at anew; and cost the guest more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final

from launcher.keeper.shares.watch_tree import within
from launcher.sftp import events
from launcher.sftp.events import Event

IN_FOLDER: Final = 200
AT_ONCE: Final = 500  # a session keeps 1,000 for a guest that is slow to ask


def thin(found: list[Event], roots: Collection[bytes]) -> list[Event]:
    """More than IN_FOLDER of one folder become one LOST of it; more than AT_ONCE then, one of each of `roots` that has some."""
    many = Counter(_folder(event.path) for event in found)
    crowded = {folder for folder, count in many.items() if count > IN_FOLDER}
    kept: dict[Event, None] = {}
    for event in found:
        if event.kind != events.LOST and _folder(event.path) in crowded:
            # The other name of a rename may be in a folder that is quiet.
            if event.path2 and _folder(event.path2) not in crowded:
                kept[Event(events.CREATED, event.is_dir, event.path2)] = None
            event = Event(events.LOST, True, _folder(event.path))
        _put_last(kept, event)
    if len(kept) <= AT_ONCE:
        return list(kept)
    hit = {root for event in kept for path in (event.path, event.path2) if path for root in roots if within(path, {root})}
    beyond = [event.path for event in kept if event.kind == events.LOST and not within(event.path, hit)]
    return [Event(events.LOST, True, path) for path in sorted({*hit, *beyond})]


def _put_last(kept: dict[Event, None], event: Event) -> None:
    """One that comes again is a later change; of LOST the first is as good."""
    if event.kind != events.LOST:
        kept.pop(event, None)
    kept[event] = None


def _folder(path: bytes) -> bytes:
    return path[: path.rfind(b"/")] or b"/"
