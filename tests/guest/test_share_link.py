"""The guest's file system for shares: connections that end, that say nothing, that say anything."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from .sharemount import CHECKED, Mount, dial, mounted, share, wait_for

__all__ = ["share"]

LIMIT = 10.0  # seconds that anything may take without a server, as promised


def test_a_lost_connection_and_the_next(share: Mount) -> None:
    (share.path / "d").mkdir()
    file = (share.path / "d" / "f").open("w")
    file.write("before")
    file.flush()
    os.fsync(file.fileno())
    share.lose()
    begun = time.monotonic()
    with pytest.raises(OSError, match="Input/output"):
        os.listdir(share.path)
    assert time.monotonic() - begun < LIMIT
    begun = time.monotonic()
    with pytest.raises(OSError, match="Input/output"):
        (share.path / "d" / "f").read_text()
    assert time.monotonic() - begun < 1  # at once from now on
    share.serve()
    wait_for(lambda: answers(share.path))
    assert (share.path / "d" / "f").read_text() == "before"
    with pytest.raises(OSError, match="Input/output"):
        file.write("x" * 10_000)
        file.flush()
    try:
        file.close()
    except OSError:
        pass
    (share.path / "d" / "f").write_text("after")
    assert (share.host / "d" / "f").read_text() == "after"


def answers(path: Path) -> bool:
    try:
        os.listdir(path)
    except OSError:
        return False
    return True


def test_who_asks_while_there_is_none_gets_the_answer_of_the_next(share: Mount) -> None:
    (share.host / "f").write_text("x")
    share.lose()
    with subprocess.Popen(["cat", share.path / "f"], stdout=subprocess.PIPE) as process:
        share.serve()
        assert process.communicate(timeout=30)[0] == b"x"


def test_who_waits_for_one_can_be_killed(share: Mount) -> None:
    share.lose()
    with subprocess.Popen(["cat", share.path / "f"]) as process:
        wait_for(lambda: "request_wait_answer" in Path(f"/proc/{process.pid}/stack").read_text())
        begun = time.monotonic()
        process.terminate()
        process.wait(30)
        assert time.monotonic() - begun < 3


def test_what_is_mounted_inside_survives(share: Mount) -> None:
    inside = share.path / "d" / "volume"
    inside.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", inside], check=True)
    try:
        (inside / "f").write_text("volume")
        share.lose()
        assert not answers(share.path)
        assert (inside / "f").read_text() == "volume"
        share.serve()
        wait_for(lambda: answers(share.path))
        assert (inside / "f").read_text() == "volume"
        (share.host / "d" / "volume" / "hidden").touch()
        time.sleep(1)
        assert os.listdir(inside) == ["f"] and answers(share.path / "d")
    finally:
        subprocess.run(["umount", "-l", inside], check=True)


def test_a_new_connection_takes_the_place_of_the_old(share: Mount) -> None:
    old = share.server
    assert old is not None
    share.server = None
    (share.host / "f").write_text("x")
    share.serve()
    try:
        while old.end.recv(4096):  # what was asked before
            pass
        wait_for(lambda: answers(share.path))
        assert (share.path / "f").read_text() == "x"
    finally:
        old.close()


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    with mounted(tmp_path, *CHECKED, serve=False) as mount, dial(mount.socket) as end:
        greet(end)
        with pytest.raises(OSError, match="Input/output"):
            os.listdir(mount.path)
        asked = end.makefile("rb").read()
        assert asked.count(b"ping@wherry") == 1
        mount.serve()
        wait_for(lambda: answers(mount.path))


def greet(end: socket.socket) -> None:
    head = end.recv(64)
    assert head[4:9] == b"\x01\0\0\0\3" and b"wherry@wherry" in head
    pair = b"".join(struct.pack(">I", len(text)) + text for text in (b"wherry@wherry", b"1"))
    end.sendall(struct.pack(">IBI", 5 + len(pair), 2, 3) + pair)


def test_no_server_of_ours(tmp_path: Path) -> None:
    with mounted(tmp_path, *CHECKED, serve=False) as mount:
        for said in (b"\0\0\0\5\2\0\0\0\3", b"\0\0\0\5\2\0\0\0\4", b"\0\0\0\0", b"\xff" * 8, b"SSH-2.0-x\r\n"):
            with dial(mount.socket) as end:
                end.recv(64)
                end.sendall(said)
                assert end.recv(1) == b""
        mount.serve()
        assert os.listdir(mount.path) == []


class Liar:
    """Answers everything, with what chance brings."""

    def __init__(self, place: Path, chance: random.Random) -> None:
        self.end = dial(place)
        greet(self.end)
        self.chance = chance
        self.thread = threading.Thread(target=self.lie)
        self.thread.start()

    def lie(self) -> None:
        file = self.end.makefile("rb")
        try:
            while len(head := file.read(9)) == 9:
                size, _, ident = struct.unpack(">IBI", head)
                file.read(size - 5)
                self.end.sendall(self.answer(ident))
        except OSError:
            pass

    def answer(self, ident: int) -> bytes:
        chance = self.chance
        kind = chance.choice((101, 102, 103, 104, 105, 201, 201, 105, 7))
        body = struct.pack(">BI", kind, ident if chance.random() < 0.95 else chance.getrandbits(32))
        if kind == 101:
            body += struct.pack(
                ">IIIII", chance.choice((0, 1, 2, 4, 99)), 0, 0, chance.choice((0, 2, 5, 1 << 31)), chance.getrandbits(2)
            )
        elif kind == 104:
            body += struct.pack(">I", chance.choice((0, 1, 2, 1 << 31))) + self.text() + self.text()
        elif kind == 105:
            body += self.attrs()
        elif kind == 201:
            body += self.text() + (
                struct.pack(">I", chance.choice((0, 1, 2, 3000, 1 << 31))) + self.text() if chance.random() < 0.5 else b""
            )
            body += self.attrs() + bytes([chance.getrandbits(1)]) + self.text()
        else:
            body += self.text()
        size = len(body) if chance.random() < 0.97 else chance.choice((0, 1, len(body) - 1, 1 << 20, (1 << 32) - 1))
        return struct.pack(">I", size) + body

    def text(self) -> bytes:
        text = self.chance.choice((b"", b"a", b"..", b"a/b", b"\0", b"n" * 256, b"x" * 5000, self.chance.randbytes(20)))
        return struct.pack(">I", len(text) if self.chance.random() < 0.97 else 1 << 31) + text

    def attrs(self) -> bytes:
        chance = self.chance
        mode = chance.choice((0o100644, 0o40755, 0o120777, 0o10644, 0, 0o170000, 0xFFFFFFFF))
        size = chance.choice((0, 1, 5, 1 << 40, (1 << 64) - 1))
        stat = struct.pack(
            ">QIIQqIqIqI", chance.getrandbits(2), 1, chance.getrandbits(1), 1, -1, 5, 1, 6, 1, chance.choice((7, 1 << 31))
        )
        pair = struct.pack(">I", 11) + b"stat@wherry" + struct.pack(">I", len(stat)) + stat
        return struct.pack(">IQIIIIII", 0x8000000F, size, 0, 0, mode, 0, 0, 1) + pair

    def close(self) -> None:
        self.end.close()
        self.thread.join()


def test_a_server_that_says_anything(tmp_path: Path) -> None:
    script = """
    p="$1"
    while :; do
        ls -la "$p" "$p/a"; cat "$p/a" "$p/b"; echo x >"$p/a"; echo y >>"$p/c"; mkdir "$p/d"; mv "$p/a" "$p/b"; ln "$p/a" "$p/l"
        ln -s a "$p/s"; readlink "$p/s"; rm "$p/a"; rmdir "$p/d"; df "$p"; chmod 600 "$p/a"; truncate -s 5 "$p/a"; touch "$p/a"
        dd if=/dev/zero of="$p/z" bs=300k count=3; find "$p" -maxdepth 2; cp "$p/a" "$p/q"
    done"""
    with mounted(tmp_path, *CHECKED, serve=False) as mount:
        chance = random.Random(20)
        command = ["sh", "-c", script, "sh"]
        for _ in range(20):
            liar = Liar(mount.socket, chance)
            # Lies that keep a reader busy for ever are no crash: it is ended, and the next server is a good one.
            with subprocess.Popen([*command, mount.path], stdout=-3, stderr=-3, start_new_session=True) as process:
                try:
                    liar.thread.join(1)
                finally:
                    os.killpg(process.pid, 9)
                    liar.end.shutdown(socket.SHUT_RDWR)
                    liar.close()
            assert mount.process.poll() is None
        mount.serve()
        wait_for(lambda: answers(mount.path))
        (mount.path / "f").write_text("x")
        assert (mount.host / "f").read_text() == "x"


def test_errors_are_those_of_the_server(share: Mount) -> None:
    (share.path / "d").mkdir()
    (share.path / "f").touch()
    for number, call in (
        (errno.EEXIST, lambda: os.mkdir(share.path / "d")),
        (errno.ENOTDIR, lambda: os.rmdir(share.path / "f")),
        (errno.EISDIR, lambda: os.open(share.path / "d", os.O_WRONLY)),
        (errno.ENOENT, lambda: os.rename(share.path / "none", share.path / "x")),
        (errno.EOPNOTSUPP, lambda: os.getxattr(share.path / "f", "user.x")),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == number
