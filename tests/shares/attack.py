"""attack.py PLAN: everything that root in the guest can say to the keeper's file server in order to leave a share.

It takes the place of the share's process in the guest, listens at its socket and waits for the keeper, which dials. The plan is
JSON, see `Plan`. What came of it is printed as JSON: for each attack how many requests were tried and refused, what succeeded
that must not, and the leaks: answers that held the marker. Whether anything outside was changed is for the other side to see.
"""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import stat
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import rawsftp as raw
from rawsftp import CREAT, EXCL, TRUNC, Ended, R, Refused, Speaker, W, attrs, string

Dial = Callable[[], socket.socket]
Attack = Callable[["Game"], None]
ATTACKS: dict[str, Attack] = {}


@dataclass(frozen=True)
class Plan:
    """Paths are as the share shows them, but for `outside`: absolute ones of the computer, folders with `secret` in each."""

    marker: str
    outside: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)  # folders, with `secret` in each
    parents: list[str] = field(default_factory=list)  # folders that hold one of these
    startup: list[str] = field(default_factory=list)  # files from which the computer runs code; they may be missing
    special: list[str] = field(default_factory=list)  # a fifo, a socket
    swapped: str = ""  # somebody there exchanges it all the time: a folder, a link out of the share
    socket: str = ""
    share: str = ""
    handles: int = 10_000
    every: int = 1  # of the malformed packets only each so manieth: the keeper takes its time to dial again


class Game:
    """The attacks' view: a connection, made again when it ended, and the count of what was tried."""

    def __init__(self, dial: Dial, plan: Plan) -> None:
        self.plan, self._dial, self._speaker = plan, dial, None
        self.tried = self.refused = self.ended = self.damaged = 0
        self.leaks: list[str] = []
        self.broken: list[str] = []  # what must not succeed and did

    @property
    def on(self) -> Speaker:
        if self._speaker is None:
            self._speaker = Speaker(self._dial(), self.plan.marker.encode())
            self._speaker.leaks = self.leaks
        return self._speaker

    def drop(self) -> None:
        if self._speaker is not None:
            self._speaker.stream.close()
            self._speaker = None

    def attempt(self, call: Callable[..., object], *words: object, must_fail: str = "", **options: object) -> object:
        """What the call gives; None when it was refused, or the connection ended over it."""
        self.tried += 1
        speaker = self.on  # one that cannot be had is no refusal
        try:
            found = call(speaker, *words, **options)
        except Refused:
            self.refused += 1
            return None
        except Ended:
            self.ended += 1
            self.drop()
            return None
        if must_fail:
            self.broken.append(must_fail)
        return found

    def everything(self, path: bytes, *, change: bool = True) -> None:
        """All that can be asked about a path that must not be reached; what it may contain tells the marker."""
        for kind in (raw.STAT, raw.LSTAT, raw.READLINK):
            self.attempt(Speaker.path, kind, path)
        self.attempt(Speaker.content, path)
        self.attempt(Speaker.names, path)
        open_ = string(path) + struct.pack(">I", R) + bytes(4) + struct.pack(">I", 65536)
        self.attempt(Speaker.call, b"open@wherry", open_)
        self.attempt(Speaker.call, b"list@wherry", string(path) + string(b"") + struct.pack(">I", 65536))
        self.attempt(Speaker.call, b"statvfs@openssh.com", string(path))
        if change:
            self.changes(path)

    def changes(self, path: bytes) -> None:
        self.attempt(Speaker.put, path, b"broken in")
        self.attempt(Speaker.put, path, b"broken in", W | CREAT | EXCL)
        self.attempt(Speaker.put, path, b"broken in", W | raw.APPEND)
        self.attempt(Speaker.path, raw.MKDIR, path, bytes(4))
        self.attempt(Speaker.path, raw.SETSTAT, path, attrs(size=0, mode=0o6777, owner=(0, 0)))
        self.attempt(Speaker.call, b"lsetstat@openssh.com", string(path) + attrs(mode=0o777))
        self.attempt(Speaker.put, b"/mine", b"mine")
        self.attempt(Speaker.rename, b"/mine", path)
        self.attempt(Speaker.put, b"/mine", b"mine")
        self.attempt(Speaker.rename, b"/mine", path, replace=True)
        self.attempt(Speaker.put, b"/mine", b"mine")
        self.attempt(Speaker.link, b"/mine", path)
        self.attempt(Speaker.link, path, b"/linked")
        self.attempt(Speaker.content, b"/linked")
        self.attempt(Speaker.put, b"/linked", b"broken in", W | TRUNC)
        self.attempt(Speaker.symlink, b"/mine", path)
        self.attempt(Speaker.rename, path, b"/taken")
        self.attempt(Speaker.rename, path, b"/taken", replace=True)
        self.attempt(Speaker.content, b"/taken")
        self.attempt(Speaker.path, raw.REMOVE, path)
        self.attempt(Speaker.path, raw.RMDIR, path)
        for name in (b"/mine", b"/linked"):
            self.attempt(Speaker.path, raw.REMOVE, name)

    def alive(self) -> None:
        """The share still serves: raises what stands against it."""
        self.on.put(b"/alive", b"yes")
        assert self.on.content(b"/alive") == b"yes"
        assert b"alive" in self.on.names(b"/")
        self.on.path(raw.REMOVE, b"/alive")


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__.replace("_", " ")] = function
    return function


@attack
def dots_and_absolute_paths(game: Game) -> None:
    for outside in (os.fsencode(path) for path in game.plan.outside):
        up = b"/.." * 12
        for way in (
            outside, up + outside, b".." + up + outside, b"/./" + up + outside, b"/a/../.." + up + outside,
            b"/" + outside, b"\\..\\..", up.replace(b"/", b"\\") + outside, b"/%2e%2e" * 12 + outside, b"",
        ):  # fmt: skip
            game.everything(way + b"/secret")
            game.everything(way, change=False)
    for odd in (b"..", b"/..", b"/../", b"/.", b"//", b"relative", b"/a\0b", b"/\0", b"/" + b"x" * 300, b"/x" * 3000):
        game.everything(odd, change=False)


@attack
def symbolic_links_that_lead_out(game: Game) -> None:
    for outside in (os.fsencode(path) for path in game.plan.outside):
        for target in (
            outside,
            b"../" * 12 + outside.lstrip(b"/"),
            b"/proc/self/root" + outside,
            b"/proc/self/cwd",
            b"/dev/fd",
        ):
            game.attempt(Speaker.symlink, target, b"/out")
            game.attempt(Speaker.symlink, target + b"/secret", b"/outfile")
            for path in (b"/out/secret", b"/outfile", b"/out/../secret", b"/out/new"):
                game.everything(path, change=path != b"/outfile")
            game.attempt(Speaker.put, b"/outfile", b"broken in", W | TRUNC)
            game.attempt(Speaker.names, b"/out")
            game.attempt(Speaker.link, b"/outfile", b"/hard")
            game.attempt(Speaker.content, b"/hard")
            game.attempt(Speaker.put, b"/hard", b"broken in", W)
            for path in (b"/out", b"/outfile", b"/hard"):
                game.attempt(Speaker.path, raw.REMOVE, path)


@attack
def links_swapped_in_a_loop(game: Game) -> None:
    """Somebody on the computer exchanges a folder and a link out of the share; requests go through it all the while."""
    path = os.fsencode(game.plan.swapped)
    for _ in range(300 if path else 0):
        game.attempt(Speaker.content, path + b"/secret")
        game.attempt(Speaker.names, path)
        game.attempt(Speaker.put, path + b"/written", b"broken in")
        game.attempt(Speaker.path, raw.REMOVE, path + b"/victim")
        game.attempt(Speaker.rename, path + b"/victim", b"/taken")
        game.attempt(Speaker.link, path + b"/secret", b"/hard")
        game.attempt(Speaker.content, b"/hard")
        game.attempt(Speaker.path, raw.REMOVE, b"/hard")
        game.attempt(Speaker.path, raw.SETSTAT, path + b"/secret", attrs(mode=0o777))


@attack
def own_links_swapped_in_bursts(game: Game) -> None:
    """The guest alone: a link that leads out and a folder take turns under one name, all requests sent before any answer."""
    game.attempt(Speaker.path, raw.MKDIR, b"/turn", bytes(4))
    game.attempt(Speaker.symlink, os.fsencode(game.plan.outside[0]), b"/turn-link")
    game.attempt(Speaker.path, raw.MKDIR, b"/turn-dir", bytes(4))
    extended = raw.EXTENDED
    rename = string(b"posix-rename@openssh.com")
    for _ in range(60):
        sent = []
        for _ in range(8):
            sent += [
                game.on.later(raw.RENAME, string(b"/turn") + string(b"/turn-away")),
                game.on.later(extended, rename + string(b"/turn-link") + string(b"/turn")),
                game.on.later(raw.OPEN, string(b"/turn/secret") + struct.pack(">I", R) + bytes(4)),
                game.on.later(raw.OPEN, string(b"/turn/written") + struct.pack(">I", W | CREAT) + bytes(4)),
                game.on.later(raw.OPENDIR, string(b"/turn")),
                game.on.later(raw.RENAME, string(b"/turn") + string(b"/turn-link")),
                game.on.later(raw.RENAME, string(b"/turn-away") + string(b"/turn")),
            ]
        handles = []
        for _ in sent:
            kind, body = game.on.receive("a burst of swaps")
            if kind == raw.HANDLE:
                handles.append(body[8:])
        for handle in handles:
            game.attempt(Speaker.read, handle)
            game.attempt(Speaker.ask, raw.READDIR, string(handle), "readdir in a burst")
            game.attempt(Speaker.close, handle)


@attack
def hidden_folders(game: Game) -> None:
    for hidden in (os.fsencode(path) for path in game.plan.hidden):
        parent, name = os.path.split(hidden)
        parent = parent.rstrip(b"/")
        wide = bytes(byte - 32 if 97 <= byte <= 122 else byte for byte in name)
        ways = [
            hidden, parent + b"/" + wide, parent + b"/" + name.title(), hidden + b"/", hidden + b"/.", parent + b"//" + name,
            parent + b"/./" + name, parent + b"/x/../" + name, hidden + b"\0", hidden + b" ", hidden + b".",
            hidden + b"::$DATA",
            parent + b"/" + name.decode().translate({115: 0x17F}).encode(),  # a long s, which folds to s
            parent + b"/\xe2\x80\x8c" + name,  # a joiner that HFS+ ignores
        ]  # fmt: skip
        for way in ways:
            game.everything(way)
            game.everything(way + b"/secret")
        game.attempt(Speaker.symlink, hidden.lstrip(b"/"), b"/tohidden")
        for path in (b"/tohidden", b"/tohidden/secret"):
            game.everything(path, change=False)
        game.attempt(Speaker.path, raw.REMOVE, b"/tohidden")
        names = game.attempt(Speaker.names, parent or b"/")
        if isinstance(names, list) and name in names:
            game.broken.append(f"{name!r} is listed in {parent!r}")


@attack
def parents_of_hidden_folders(game: Game) -> None:
    for parent in (os.fsencode(path) for path in game.plan.parents):
        for replace in (False, True):
            moved = f"a folder that holds a hidden one was renamed: {parent!r}"
            game.attempt(Speaker.rename, parent, b"/elsewhere", replace=replace, must_fail=moved)
        game.attempt(Speaker.path, raw.MKDIR, b"/empty", bytes(4))
        game.attempt(Speaker.rename, b"/empty", parent, replace=True, must_fail=f"{parent!r} was replaced")
        game.attempt(Speaker.path, raw.RMDIR, parent, must_fail=f"{parent!r} was removed")
        game.attempt(Speaker.link, parent, b"/hard", must_fail=f"{parent!r} was linked")
        game.attempt(Speaker.path, raw.RMDIR, b"/empty")


@attack
def places_that_run_code(game: Game) -> None:
    for place in (os.fsencode(path) for path in game.plan.startup):
        game.changes(place)
        game.attempt(Speaker.put, place, b"broken in", W | CREAT, must_fail=f"{place!r} was written")
        above = os.path.dirname(place)
        while len(above) > 1:
            for replace in (False, True):
                game.attempt(
                    Speaker.rename,
                    above,
                    b"/away",
                    replace=replace,
                    must_fail=f"{above!r}, which holds {place!r}, was renamed",
                )
            above = os.path.dirname(above)
        upper = os.path.join(os.path.dirname(place), os.path.basename(place).upper())
        if upper != place:
            game.attempt(Speaker.put, upper, b"other")  # another name here, the same one where case is nothing


@attack
def special_files(game: Game) -> None:
    for path in (os.fsencode(name) for name in game.plan.special):
        for flags in (R, W, R | W, W | CREAT | TRUNC):
            game.attempt(Speaker.touch, path, flags, must_fail=f"{path!r} was opened")
        open_ = string(path) + struct.pack(">I", R) + bytes(4) + struct.pack(">I", 65536)
        game.attempt(Speaker.call, b"open@wherry", open_, must_fail=f"{path!r} was opened")
    for number, kind in enumerate((stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFLNK, stat.S_IFDIR)):
        name = b"/kind%d" % number
        game.attempt(Speaker.touch, name, W | CREAT | EXCL, attrs(mode=kind | 0o6777))
        game.attempt(Speaker.path, raw.SETSTAT, name, attrs(mode=kind | 0o7777))
        game.attempt(Speaker.path, raw.MKDIR, name + b"d", attrs(mode=kind | 0o7777))
        game.attempt(Speaker.path, raw.REMOVE, name)
        game.attempt(Speaker.path, raw.RMDIR, name + b"d")


@attack
def open_handles(game: Game) -> None:
    """As many as asked for; where the server has enough it says so, and goes on when they are closed."""
    game.on.put(b"/many", b"x")
    held, asked = list[bytes](), string(b"/many") + struct.pack(">I", R) + bytes(4)
    for _ in range(0, game.plan.handles, 500):  # in bursts: each on its own would wait for the way there and back
        game.tried += 500
        for _ in [game.on.later(raw.OPEN, asked) for _ in range(500)]:
            kind, body = game.on.receive("open handles")
            if kind == raw.HANDLE:
                held.append(body[8:])
            else:
                game.refused += 1
    for at in range(0, len(held), 500):
        for _ in [game.on.later(raw.CLOSE, string(handle)) for handle in held[at : at + 500]]:
            game.on.receive("closing handles")
    folders = [game.attempt(Speaker.ask, raw.OPENDIR, string(b"/")) for _ in range(2000)]
    del folders
    game.drop()  # not closed: that is for the server
    game.on.path(raw.REMOVE, b"/many")


@attack
def handles_that_are_not_mine(game: Game) -> None:
    game.on.put(b"/many", b"x" * 10)
    mine = game.on.open(b"/many", R | W)
    for handle in (b"", b"\0", b"0", b"1", b"../x", b"x" * 256, b"x" * 100_000, mine + b"\0", mine[:-1], b"\xff" * len(mine)):
        for kind, more in ((raw.READ, bytes(12)), (raw.WRITE, bytes(8) + string(b"x")), (raw.CLOSE, b""), (raw.FSTAT, b"")):
            if handle != mine:
                game.attempt(Speaker.ask, kind, string(handle) + more)
        game.attempt(Speaker.ask, raw.READDIR, string(handle))
    for offset in (1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        game.attempt(Speaker.read, mine, offset)
        game.attempt(Speaker.write, mine, b"x", offset)
        game.attempt(Speaker.ask, raw.FSETSTAT, string(mine) + attrs(size=offset))
    for count in (0, 1 << 20, (1 << 32) - 1):
        game.attempt(Speaker.read, mine, 0, count)
    game.drop()
    game.on.path(raw.REMOVE, b"/many")


@attack
def names_of_a_gigabyte(game: Game) -> None:
    for claimed in (1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 20, 262_145):
        body = struct.pack(">BIII", raw.OPEN, 7, claimed, 0) + b"x" * 100
        _damage(game, string(body))  # the string is longer than its packet
        _damage(game, struct.pack(">I", claimed) + body)  # so is the packet
        _damage(game, string(struct.pack(">BII", raw.INIT, 3, claimed)))
    _damage(game, struct.pack(">I", 64 << 20) + bytes(8 << 20))
    for length in (256, 4096, 4097, 65_536, 200_000):
        game.attempt(Speaker.put, b"/" + b"n" * length, b"x", must_fail=f"a name of {length} bytes")


@attack
def malformed_packets(game: Game) -> None:
    head = struct.pack(">BI", raw.OPEN, 1)
    for packet in (
        b"", b"\1", b"\3", b"\3\0\0", head, head + b"\0\0", head + struct.pack(">I", 4) + b"/a", head + string(b"/a"),
        head + string(b"/a") + struct.pack(">II", R, 0xFFFFFFFF),
        struct.pack(">BI", 0, 1), struct.pack(">BI", 99, 1) + bytes(50),
        struct.pack(">BI", 255, 1),
        struct.pack(">BI", raw.EXTENDED, 1), struct.pack(">BI", raw.EXTENDED, 1) + string(b"no@such"),
        struct.pack(">BI", raw.EXTENDED, 1) + string(b"list@wherry"), struct.pack(">BI", raw.HANDLE, 1) + string(b"0"),
        struct.pack(">BI", raw.STATUS, 1), struct.pack(">BI", raw.INIT, 3),
        head + string(b"/a") + struct.pack(">I", R) + bytes(4) + b"more",
    ):  # fmt: skip
        _damage(game, string(packet))
    _damage(game, bytes(1000))
    _damage(game, b"GET / HTTP/1.0\r\n\r\n" * 100)
    chance = random.Random(5)
    for _ in range(20):
        _damage(game, b"".join(string(_garbled(chance)) for _ in range(50)))


def _garbled(chance: random.Random) -> bytes:
    """A request with some bytes changed or lacking; paths stay below one name, so that it harms what it may harm."""
    kind = chance.choice([3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 200])
    body = bytearray(string(b"/garbled") + string(b"/garbled/x") + bytes(16))
    for _ in range(chance.randrange(4)):
        body[chance.randrange(len(body))] = chance.choice([0, 1, 46, 47, 127, 255])
    return struct.pack(">BI", kind, chance.randrange(1 << 32)) + bytes(body[: chance.randrange(len(body) + 1)])


def _damage(game: Game, data: bytes) -> None:
    """Bytes as they are. The server may answer or end the connection; a word after it shows that it does not wait for ever."""
    game.damaged += 1
    if game.damaged % game.plan.every:
        return
    game.tried += 1
    try:
        game.on.raw(data)
        game.on.stream.shutdown(socket.SHUT_WR)
        while True:
            game.on.receive("malformed packets")
    except Ended:
        game.ended += 1
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EPIPE, errno.ECONNRESET):
            game.broken.append(f"after {data[:40]!r}: {error}")
    game.drop()


def run(dial: Dial, plan: Plan) -> dict[str, dict[str, object]]:
    """Each attack, and after each whether the share still serves."""
    told = {}
    for name, play in ATTACKS.items():
        game = Game(dial, plan)
        try:
            play(game)
            game.alive()
        except (Refused, Ended, OSError, AssertionError) as error:
            game.broken.append(f"{type(error).__name__}: {error}")
        game.drop()
        told[name] = {"tried": game.tried, "refused": game.refused, "leaks": game.leaks, "broken": game.broken}
    return told


class Listening:
    """In the place of the share's own process, which is ended: the keeper dials us."""

    def __init__(self, plan: Plan) -> None:
        self._end_share(plan.share)
        Path(plan.socket).unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(plan.socket)
        self._socket.listen(8)
        self._socket.settimeout(60)

    @staticmethod
    def _end_share(share: str) -> None:
        """Whoever starts it anew gives it the socket: so it is ended by its name, and the socket taken after that."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if len(words) > 2 and words[0].rsplit(b"/")[-1] == b"share" and words[1] == share.encode():
                os.kill(int(folder.name), 9)

    def dial(self) -> socket.socket:
        return self._socket.accept()[0]


def main() -> int:
    plan = Plan(**json.loads(sys.argv[1]))
    print(json.dumps(run(Listening(plan).dial, plan)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
