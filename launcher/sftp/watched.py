"""What a session asks and tells the one who watches this computer's folders."""

from __future__ import annotations

from typing import Protocol

from launcher.sftp.stat import Stat


class Watched(Protocol):
    """Called by the threads of a session, several at a time; quick, and raises nothing. Paths are those of the tree.

    `folder` is asked before a name in a folder is looked up and before a folder is listed, so that a change after the look is
    an event. True promises an event for each later change of a name in it and of what is shown of these names; the guest then
    keeps what it was shown until then. `Session.push` brings events to the guest behind every answer that was made before them.

    `made` tells of what the guest has done, before the guest itself knows: the echo of that is no event. `stat` is how the name
    is after it, None when it is gone. A rename is two calls: the old name with None, then the new one. A hard link tells of the
    old name too, whose count and ctime change. OPEN tells when it may have made or emptied the file. WRITE tells when its
    answer goes out: writes that are answered together are told once, with what is true after the last. The calls come after the
    change: a watcher that hears of one at once does well to wait some milliseconds before it takes it for somebody else's.
    """

    def folder(self, path: bytes) -> bool: ...
    def made(self, path: bytes, stat: Stat | None) -> None: ...
