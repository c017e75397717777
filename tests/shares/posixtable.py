"""posixtable.py [--json] [--only WORD] FOLDER: what a folder can do of what POSIX and Linux say, a line for each case.

Needs nothing but Python 3.9 and runs as it is in a container. A case ends as `supported`; as `not supported`, with its errno;
or as `WRONG`, when calls succeed and the outcome is another than it should be. Exit code 1: one was WRONG.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable

Case = Callable[[str], str | None]
CASES: dict[str, Case] = {}
NS = 1_000_000_000


def case(name: str) -> Callable[[Case], Case]:
    def keep(function: Case) -> Case:
        assert name not in CASES
        CASES[name] = function
        return function

    return keep


def write(path: str, data: bytes = b"x", flags: int = os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode: int = 0o644) -> None:
    fd = os.open(path, flags, mode)
    try:
        assert os.write(fd, data) == len(data)
    finally:
        os.close(fd)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def fails(number: int, call: Callable[..., object], *words: object) -> None:
    """The call has to fail with this very errno."""
    try:
        call(*words)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        assert error.errno == number, f"{name} instead of {errno.errorcode[number]}"
        return
    raise AssertionError(f"succeeded instead of {errno.errorcode[number]}")


def same(found: object, wanted: object, what: str = "") -> None:
    assert found == wanted, f"{what} {found!r} instead of {wanted!r}".strip()


def child(code: str, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


# Files


@case("create, write, read")
def _(at: str) -> None:
    for size in (0, 1, 4095, 4096, 4097, 300_000):
        data = os.urandom(size)
        write(f"{at}/f", data)
        assert read(f"{at}/f") == data, f"{size} bytes read back otherwise"
        same(os.stat(f"{at}/f").st_size, size, "size")


@case("mode of a new file is as asked, less umask")
def _(at: str) -> None:
    old = os.umask(0o027)
    try:
        write(f"{at}/f", mode=0o666)
        os.mkdir(f"{at}/d", 0o777)
    finally:
        os.umask(old)
    same(oct(stat.S_IMODE(os.stat(f"{at}/f").st_mode)), oct(0o640))
    same(oct(stat.S_IMODE(os.stat(f"{at}/d").st_mode)), oct(0o750))


@case("a file made read-only is writable by its maker")
def _(at: str) -> None:
    write(f"{at}/f", b"data", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    same(read(f"{at}/f"), b"data")


@case("append")
def _(at: str) -> None:
    for piece in (b"one", b"two"):
        write(f"{at}/f", piece, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    same(read(f"{at}/f"), b"onetwo")


@case("O_APPEND by two processes loses no line")
def _(at: str) -> None:
    lines = 300
    code = (
        "import os, sys\nfd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\nsys.stdin.read(1)\n"
        f"for n in range({lines}): os.write(fd, f'{{sys.argv[2]}} {{n}}\\n'.encode())"
    )
    write(f"{at}/log", b"")
    both = [child(code, f"{at}/log", name) for name in "ab"]
    for process in both:
        process.communicate(b"x", timeout=120)
        same(process.returncode, 0, "exit code")
    found = read(f"{at}/log").decode().splitlines()
    same(sorted(found), sorted(f"{name} {n}" for name in "ab" for n in range(lines)), f"{len(found)} lines:")


@case("truncate and extend, by name and by descriptor")
def _(at: str) -> None:
    write(f"{at}/f", b"0123456789")
    os.truncate(f"{at}/f", 4)
    same(read(f"{at}/f"), b"0123")
    os.truncate(f"{at}/f", 8)
    same(read(f"{at}/f"), b"0123\0\0\0\0")
    with open(f"{at}/f", "r+b") as file:
        os.ftruncate(file.fileno(), 2)
        same(os.fstat(file.fileno()).st_size, 2, "size")
    write(f"{at}/f", b"")
    same(read(f"{at}/f"), b"")


@case("O_EXCL")
def _(at: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    write(f"{at}/f", b"first", flags)
    fails(errno.EEXIST, os.open, f"{at}/f", flags)
    os.symlink("nowhere", f"{at}/link")
    fails(errno.EEXIST, os.open, f"{at}/link", flags)


@case("O_EXCL: of 8 processes one wins")
def _(at: str) -> None:
    code = (
        "import os, sys\nsys.stdin.read(1)\n"
        "try: os.open(sys.argv[1], os.O_CREAT | os.O_EXCL)\nexcept FileExistsError: sys.exit(3)"
    )
    all8 = [child(code, f"{at}/lock") for _ in range(8)]
    for process in all8:
        assert process.stdin is not None
        process.stdin.write(b"x")
        process.stdin.flush()
    for process in all8:
        process.communicate(timeout=120)
    same(sorted(process.returncode for process in all8), [0] + [3] * 7, "exit codes")


@case("pread, pwrite, a hole reads as zeros")
def _(at: str) -> None:
    fd = os.open(f"{at}/f", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, b"end", 100_000)
        same(os.pread(fd, 4, 50_000), b"\0" * 4)
        same(os.pread(fd, 10, 99_998), b"\0\0end")
        same(os.pread(fd, 10, 200_000), b"")
    finally:
        os.close(fd)


@case("sparse file of more than 4 GB")
def _(at: str) -> str:
    size = (5 << 30) + 7
    fd = os.open(f"{at}/f", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, b"deep", size - 4)
        same(os.fstat(fd).st_size, size, "size")
        same(os.pread(fd, 8, size - 4), b"deep")
        same(os.pread(fd, 4, (4 << 30) - 2), b"\0" * 4)
        os.ftruncate(fd, size + (1 << 30))
        used = os.fstat(fd).st_blocks * 512
    finally:
        os.close(fd)
    same(os.stat(f"{at}/f").st_size, size + (1 << 30), "size")
    assert used < 64 << 20, f"takes {used} bytes"
    return f"{used >> 10} KB used"


@case("SEEK_DATA and SEEK_HOLE tell nothing false")
def _(at: str) -> str:
    fd = os.open(f"{at}/f", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, b"data", 1 << 20)
        found, hole = os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE)
        assert found <= 1 << 20, f"data are said to begin at {found}"
        assert hole == 0 or hole >= (1 << 20) + 4 or found > hole, f"a hole is said to be at {hole}"
        fails(errno.ENXIO, os.lseek, fd, 2 << 20, os.SEEK_DATA)
    finally:
        os.close(fd)
    return "exact" if found else "all is data"


@case("fallocate: room, and the size")
def _(at: str) -> None:
    fd = os.open(f"{at}/f", os.O_RDWR | os.O_CREAT)
    try:
        _fallocate(fd, 0, 0, 300_000)
        same(os.fstat(fd).st_size, 300_000, "size")
    finally:
        os.close(fd)


@case("fallocate: punch a hole")
def _(at: str) -> None:
    fd = os.open(f"{at}/f", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, b"x" * 40_000, 0)
        _fallocate(fd, 3, 4096, 8192)  # KEEP_SIZE, PUNCH_HOLE
        same(os.pread(fd, 40_000, 0), b"x" * 4096 + b"\0" * 8192 + b"x" * (40_000 - 12288), "content")
    finally:
        os.close(fd)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """The call itself: what the C library does where it is missing writes zeros."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@case("copy_file_range")
def _(at: str) -> None:
    data = os.urandom(200_000)
    write(f"{at}/a", data)
    with open(f"{at}/a", "rb") as source, open(f"{at}/b", "wb") as target:
        done = 0
        while done < len(data):
            count = os.copy_file_range(source.fileno(), target.fileno(), len(data) - done)
            assert count, "ended early"
            done += count
    assert read(f"{at}/b") == data, "the copy differs"


@case("fsync, fdatasync, O_SYNC, fsync of a folder, syncfs")
def _(at: str) -> None:
    fd = os.open(f"{at}/f", os.O_WRONLY | os.O_CREAT | os.O_SYNC)
    folder = os.open(at, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.write(fd, b"x")
        os.fsync(fd)
        os.fdatasync(fd)
        os.fsync(folder)
        same(ctypes.CDLL(None).syncfs(fd), 0, "syncfs")
    finally:
        os.close(fd)
        os.close(folder)


@case("O_DIRECT")
def _(at: str) -> None:
    write(f"{at}/f", b"x" * 8192)
    fd = os.open(f"{at}/f", os.O_RDWR | os.O_DIRECT)
    try:
        page = mmap.mmap(-1, 4096)
        page.write(b"y" * 4096)
        same(os.pwritev(fd, [page], 4096), 4096)
        same(os.preadv(fd, [page], 0), 4096)
        same(page[:4], b"xxxx")
    finally:
        os.close(fd)
    same(read(f"{at}/f")[4094:4098], b"xxyy")


@case("what one process wrote the other reads at once")
def _(at: str) -> None:
    code = "import sys\nfor line in sys.stdin:\n    print(open(sys.argv[1]).read(), flush=True)"
    reader = child(code, f"{at}/f")
    assert reader.stdin is not None and reader.stdout is not None
    with reader:
        for number in range(50):
            write(f"{at}/f", str(number).encode())
            reader.stdin.write(b"\n")
            reader.stdin.flush()
            same(reader.stdout.readline().strip(), str(number).encode())
        reader.stdin.close()


# Names


@case("rename")
def _(at: str) -> None:
    write(f"{at}/a", b"data")
    os.rename(f"{at}/a", f"{at}/b")
    fails(errno.ENOENT, os.stat, f"{at}/a")
    same(read(f"{at}/b"), b"data")
    os.mkdir(f"{at}/d")
    os.rename(f"{at}/b", f"{at}/d/c")
    same((os.listdir(at), os.listdir(f"{at}/d")), (["d"], ["c"]))


@case("rename over an existing file")
def _(at: str) -> None:
    write(f"{at}/old", b"old")
    write(f"{at}/new", b"new")
    with open(f"{at}/old", "rb") as opened:
        os.rename(f"{at}/new", f"{at}/old")
        same(read(f"{at}/old"), b"new")
        same(opened.read(), b"old", "the open file")
    same(os.listdir(at), ["old"])


@case("rename over a file never shows nothing or a half")
def _(at: str) -> None:
    one, two = b"1" * 50_000, b"2" * 60_000
    write(f"{at}/f", one)
    code = (
        "import os, sys\nat = sys.argv[1]\ntry:\n    for n in range(200):\n"
        "        open(at + '/t', 'wb').write((b'1' * 50_000, b'2' * 60_000)[n % 2]); os.rename(at + '/t', at + '/f')\n"
        "except OSError as error: print(n, repr(error)); sys.exit(1)"
    )
    writer = child(code, at)
    with writer:
        while writer.poll() is None:
            found = read(f"{at}/f")
            assert found in (one, two), f"{len(found)} bytes were seen"
        assert writer.stdout is not None
        told = writer.stdout.read()
    same((writer.returncode, told), (0, b""), "exit code, error:")


@case("RENAME_NOREPLACE")
def _(at: str) -> None:
    write(f"{at}/a", b"a")
    write(f"{at}/b", b"b")
    fails(errno.EEXIST, _renameat2, f"{at}/a", f"{at}/b", 1)
    _renameat2(f"{at}/a", f"{at}/c", 1)
    same((read(f"{at}/b"), read(f"{at}/c")), (b"b", b"a"))


@case("RENAME_EXCHANGE")
def _(at: str) -> None:
    write(f"{at}/a", b"a")
    write(f"{at}/b", b"b")
    _renameat2(f"{at}/a", f"{at}/b", 2)
    same((read(f"{at}/a"), read(f"{at}/b")), (b"b", b"a"))


def _renameat2(old: str, new: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@case("rename of a folder with open files in it")
def _(at: str) -> None:
    os.makedirs(f"{at}/d/e")
    write(f"{at}/d/e/f", b"data")
    with open(f"{at}/d/e/f", "r+b") as file:
        os.rename(f"{at}/d", f"{at}/moved")
        file.write(b"DATA")
        file.flush()
        same(read(f"{at}/moved/e/f"), b"DATA")
        same(os.fstat(file.fileno()).st_size, 4)
    fails(errno.ENOENT, os.stat, f"{at}/d/e/f")


@case("rename of a folder: over an empty one, not over a full one, not into itself")
def _(at: str) -> None:
    for name in ("a", "empty", "full"):
        os.mkdir(f"{at}/{name}")
    write(f"{at}/a/in")
    write(f"{at}/full/f")
    write(f"{at}/file")
    try:
        os.rename(f"{at}/a", f"{at}/full")
        raise AssertionError("a full folder was replaced")
    except OSError as error:
        assert error.errno in (errno.ENOTEMPTY, errno.EEXIST), f"over a full one: {error}"
    fails(errno.EINVAL, os.rename, f"{at}/a", f"{at}/a/below")
    fails(errno.ENOTDIR, os.rename, f"{at}/a", f"{at}/file")
    fails(errno.EISDIR, os.rename, f"{at}/file", f"{at}/a")
    os.rename(f"{at}/a", f"{at}/empty")
    same(sorted(os.listdir(at)), ["empty", "file", "full"])


@case("unlink of an open file")
def _(at: str) -> None:
    with open(f"{at}/f", "w+b") as file:
        file.write(b"data")
        file.flush()
        os.unlink(f"{at}/f")
        same(os.listdir(at), [], "names")
        fails(errno.ENOENT, os.stat, f"{at}/f")
        file.write(b"more")
        file.flush()
        file.seek(0)
        same(file.read(), b"datamore")
        same(os.fstat(file.fileno()).st_size, 8, "size")
    os.rmdir(at)
    os.mkdir(at)


@case("nlink of an unlinked open file is 0")
def _(at: str) -> None:
    with open(f"{at}/f", "w+b") as file:
        os.unlink(f"{at}/f")
        same(os.fstat(file.fileno()).st_nlink, 0)


@case("symbolic links: made, read, followed, dangling, absolute")
def _(at: str) -> None:
    write(f"{at}/f", b"data")
    os.mkdir(f"{at}/d")
    os.symlink("f", f"{at}/link")
    os.symlink("../f", f"{at}/d/up")
    os.symlink(f"{at}/f", f"{at}/absolute")
    os.symlink("nowhere", f"{at}/dangling")
    os.symlink("loop", f"{at}/loop")
    for link in ("link", "d/up", "absolute"):
        same(read(f"{at}/{link}"), b"data", link)
    same(os.readlink(f"{at}/link"), "f")
    assert stat.S_ISLNK(os.lstat(f"{at}/link").st_mode)
    same(os.lstat(f"{at}/link").st_size, 1, "size of the link")
    fails(errno.ENOENT, os.stat, f"{at}/dangling")
    fails(errno.ELOOP, os.stat, f"{at}/loop")
    fails(errno.ELOOP, os.open, f"{at}/link", os.O_RDONLY | os.O_NOFOLLOW)
    os.unlink(f"{at}/link")
    same(read(f"{at}/f"), b"data")


@case("a link's target of any text, 4,000 bytes")
def _(at: str) -> None:
    for target in (b"x" * 4000, b"\xff\n'\"/../..//", "../\u00e4/\U0001f600".encode()):
        os.symlink(target, os.fsencode(f"{at}/link"))
        same(os.readlink(os.fsencode(f"{at}/link")), target)
        os.unlink(f"{at}/link")


@case("hard links: one file, one inode")
def _(at: str) -> None:
    write(f"{at}/a", b"data")
    os.link(f"{at}/a", f"{at}/b")
    same(os.stat(f"{at}/a").st_ino, os.stat(f"{at}/b").st_ino, "inode")
    with open(f"{at}/b", "ab") as file:
        file.write(b"more")
    same(read(f"{at}/a"), b"datamore")
    os.unlink(f"{at}/a")
    same(read(f"{at}/b"), b"datamore")


@case("hard links: nlink is counted")
def _(at: str) -> None:
    write(f"{at}/a")
    for number in range(2, 5):
        os.link(f"{at}/a", f"{at}/{number}")
        same([os.stat(f"{at}/{name}").st_nlink for name in ("a", "2")], [number] * 2)
    os.unlink(f"{at}/2")
    same(os.stat(f"{at}/a").st_nlink, 3)


@case("hard links: onto a name that exists, of a folder")
def _(at: str) -> None:
    write(f"{at}/a")
    write(f"{at}/b")
    os.mkdir(f"{at}/d")
    fails(errno.EEXIST, os.link, f"{at}/a", f"{at}/b")
    fails(errno.EPERM, os.link, f"{at}/d", f"{at}/e")


@case("names with any bytes but / and NUL")
def _(at: str) -> None:
    names = [bytes([byte]) for byte in range(1, 256) if bytes([byte]) not in (b"/", b".")]
    names += [b"a\nb", b"\xff\xfe", b" lead", b"trail ", b"dot.", b"...", b"-rf", "\u00e9".encode(), "e\u0301".encode()]
    names += [b"\xed\xa0\x80", b"CON", b"a:b", b"*?", b"x" * 255]
    for name in names:
        write(os.fsdecode(os.path.join(os.fsencode(at), name)), name)
    same(sorted(os.listdir(os.fsencode(at))), sorted(names), "names")
    for name in names:
        same(read(os.fsdecode(os.path.join(os.fsencode(at), name))), name)


@case("names differ by case")
def _(at: str) -> None:
    write(f"{at}/Name", b"upper")
    try:
        write(f"{at}/name", b"lower", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except OSError:
        same(read(f"{at}/Name"), b"upper", "after a clash")
        raise
    same((read(f"{at}/Name"), read(f"{at}/name")), (b"upper", b"lower"))


@case("a name of 256 bytes is ENAMETOOLONG")
def _(at: str) -> None:
    fails(errno.ENAMETOOLONG, write, f"{at}/{'x' * 256}")
    fails(errno.ENAMETOOLONG, os.stat, f"{at}/{'x' * 256}")


@case("deep paths: 120 folders, names of 30 bytes")
def _(at: str) -> None:
    depth, name = 120, "n" * 30
    os.chdir(at)
    try:
        for _ in range(depth):
            os.mkdir(name)
            os.chdir(name)
        write("f", b"deep")
        same(read("f"), b"deep")
    finally:
        os.chdir("/")
    if len(at) + depth * 31 < 4000:
        same(read(f"{at}/{'/'.join([name] * depth)}/f"), b"deep")
    shutil.rmtree(f"{at}/{name}")


@case("folders: made, removed, refused when full")
def _(at: str) -> None:
    os.mkdir(f"{at}/d")
    fails(errno.EEXIST, os.mkdir, f"{at}/d")
    write(f"{at}/d/f")
    fails(errno.ENOTEMPTY, os.rmdir, f"{at}/d")
    fails(errno.ENOTDIR, os.rmdir, f"{at}/d/f")
    fails(errno.EISDIR, os.unlink, f"{at}/d")
    fails(errno.ENOTDIR, os.stat, f"{at}/d/f/g")
    fails(errno.EISDIR, os.open, f"{at}/d", os.O_WRONLY)
    os.unlink(f"{at}/d/f")
    os.rmdir(f"{at}/d")
    fails(errno.ENOENT, os.rmdir, f"{at}/d")


@case("a folder's nlink and its times")
def _(at: str) -> None:
    os.utime(at, (1000, 1000))
    before = os.stat(at)
    os.mkdir(f"{at}/d")
    after = os.stat(at)
    assert after.st_mtime_ns > before.st_mtime_ns, "mtime stays when a name comes"
    assert after.st_nlink in (1, before.st_nlink + 1), f"nlink {after.st_nlink}"


@case("readdir of 3,000 names")
def _(at: str) -> None:
    for number in range(3000):
        os.close(os.open(f"{at}/{number}", os.O_CREAT | os.O_WRONLY))
    same(sorted(os.listdir(at), key=int), [str(number) for number in range(3000)], "names")


@case("readdir while names come and go shows each that stays once")
def _(at: str) -> None:
    for number in range(1500):
        os.close(os.open(f"{at}/stays{number}", os.O_CREAT | os.O_WRONLY))
    seen: list[str] = []
    with os.scandir(at) as entries:
        for place, entry in enumerate(entries):
            seen.append(entry.name)
            if place % 10 == 0:
                write(f"{at}/comes{place}")
            if place % 20 == 10:
                os.unlink(f"{at}/comes{place - 10}")
    stays = [name for name in seen if name.startswith("stays")]
    same((len(stays), len(set(stays))), (1500, 1500), "seen, different:")


@case("readdir tells the types")
def _(at: str) -> None:
    write(f"{at}/f")
    os.mkdir(f"{at}/d")
    os.symlink("f", f"{at}/l")
    with os.scandir(at) as entries:
        found = {entry.name: (entry.is_file(follow_symlinks=False), entry.is_dir(), entry.is_symlink()) for entry in entries}
    same(found, {"f": (True, False, False), "d": (False, True, False), "l": (False, False, True)})


@case("inode numbers stay and differ")
def _(at: str) -> None:
    for name in "ab":
        write(f"{at}/{name}")
    one, two = (os.stat(f"{at}/{name}").st_ino for name in "ab")
    assert one != two, "two files, one inode"
    with os.scandir(at) as entries:
        same({entry.name: entry.inode() for entry in entries}, {"a": one, "b": two}, "by readdir")
    os.rename(f"{at}/a", f"{at}/c")
    same(os.stat(f"{at}/c").st_ino, one, "after a rename")


# Attributes


@case("mtime to the second")
def _(at: str) -> None:
    write(f"{at}/f")
    os.utime(f"{at}/f", (1_000_000_000, 1_234_567_890))
    found = os.stat(f"{at}/f")
    same((int(found.st_atime), int(found.st_mtime)), (1_000_000_000, 1_234_567_890))


@case("mtime to the nanosecond")
def _(at: str) -> None:
    write(f"{at}/f")
    for value in (1_234_567_890 * NS + 123_456_789, 5, -3 * NS + 7, 4_300_000_000 * NS + 999_999_999):
        os.utime(f"{at}/f", ns=(value, value))
        same(os.stat(f"{at}/f").st_mtime_ns, value)


@case("mtime: one time set, the other kept; now; of a link")
def _(at: str) -> None:
    write(f"{at}/f")
    os.symlink("f", f"{at}/l")
    os.utime(f"{at}/f", (1000, 2000))
    os.utime(f"{at}/l", (5000, 6000), follow_symlinks=False)
    same(int(os.stat(f"{at}/f").st_mtime), 2000)
    same(int(os.lstat(f"{at}/l").st_mtime), 6000, "of the link")
    os.utime(f"{at}/f")
    assert os.stat(f"{at}/f").st_mtime > 1_600_000_000, "not now"


@case("mtime moves with each write, truncate and not with a read")
def _(at: str) -> None:
    write(f"{at}/f")
    for change in (lambda: write(f"{at}/f", b"y", os.O_WRONLY), lambda: os.truncate(f"{at}/f", 9)):
        os.utime(f"{at}/f", (1000, 1000))
        change()
        assert os.stat(f"{at}/f").st_mtime > 1_600_000_000, "it stayed"
    os.utime(f"{at}/f", (1000, 1000))
    read(f"{at}/f")
    same(int(os.stat(f"{at}/f").st_mtime), 1000)


@case("a set mtime stays when the file is closed")
def _(at: str) -> None:
    with open(f"{at}/f", "wb") as file:
        file.write(b"x" * 10_000)
        file.flush()
        os.utime(f"{at}/f", (1000, 1000))
    same(int(os.stat(f"{at}/f").st_mtime), 1000)
    with open(f"{at}/g", "wb") as file:
        file.write(b"x" * 10_000)
        file.flush()
        os.utime(file.fileno(), (1000, 1000))
    same(int(os.stat(f"{at}/g").st_mtime), 1000, "by descriptor")


@case("make builds again what changed within the same second")
def _(at: str) -> None:
    make = shutil.which("make")
    if make is None:
        raise Skipped("no make here")
    with open(f"{at}/Makefile", "w") as file:
        file.write("out: in\n\tcp in out\n")
    for number in range(6):
        write(f"{at}/in", str(number).encode())
        for _ in range(1000):  # a kernel's clock for files may move as slowly as every 10 ms
            if not number or os.stat(f"{at}/in").st_mtime_ns > os.stat(f"{at}/out").st_mtime_ns:
                break
            write(f"{at}/in", str(number).encode())
        subprocess.run([make, "-s", "-C", at], check=True, stdout=subprocess.DEVNULL)
        same(read(f"{at}/out"), str(number).encode())


@case("chmod is shown, x bit included")
def _(at: str) -> None:
    write(f"{at}/f")
    for mode in (0o755, 0o644, 0o600, 0o444, 0o400, 0o000, 0o777):
        os.chmod(f"{at}/f", mode)
        same(oct(stat.S_IMODE(os.stat(f"{at}/f").st_mode)), oct(mode))
    fd = os.open(f"{at}/f", os.O_RDONLY)
    try:
        os.fchmod(fd, 0o711)
        same(oct(stat.S_IMODE(os.fstat(fd).st_mode)), oct(0o711), "by descriptor")
    finally:
        os.close(fd)


@case("setuid, setgid and sticky bits are shown")
def _(at: str) -> None:
    write(f"{at}/f")
    os.mkdir(f"{at}/d")
    os.chmod(f"{at}/f", 0o4755)
    os.chmod(f"{at}/d", 0o3777)
    same((oct(os.stat(f"{at}/f").st_mode & 0o7777), oct(os.stat(f"{at}/d").st_mode & 0o7777)), (oct(0o4755), oct(0o3777)))


@case("./script.sh runs, without the x bit it does not")
def _(at: str) -> None:
    with open(f"{at}/s", "w") as file:
        file.write("#!/bin/sh\nexit 7\n")
    fails(errno.EACCES, subprocess.call, [f"{at}/s"])
    os.chmod(f"{at}/s", 0o755)
    same(subprocess.call([f"{at}/s"]), 7, "exit code")


@case("a program runs, and cannot be written meanwhile")
def _(at: str) -> None:
    shutil.copy(shutil.which("sleep") or "/bin/sleep", f"{at}/sleep")
    running = subprocess.Popen([f"{at}/sleep", "60"])
    try:
        fails(errno.ETXTBSY, os.open, f"{at}/sleep", os.O_WRONLY)
    finally:
        running.kill()
        running.wait()


@case("chown is remembered")
def _(at: str) -> None:
    write(f"{at}/f")
    os.chown(f"{at}/f", 1234, 5678)
    same((os.stat(f"{at}/f").st_uid, os.stat(f"{at}/f").st_gid), (1234, 5678))
    os.chown(f"{at}/f", -1, 77)
    same((os.stat(f"{at}/f").st_uid, os.stat(f"{at}/f").st_gid), (1234, 77), "the group alone:")
    os.rename(f"{at}/f", f"{at}/g")
    same((os.stat(f"{at}/g").st_uid, os.stat(f"{at}/g").st_gid), (1234, 77), "after a rename")
    os.symlink("g", f"{at}/l")
    os.lchown(f"{at}/l", 5, 6)
    same((os.lstat(f"{at}/l").st_uid, os.stat(f"{at}/l").st_uid), (5, 1234), "link, target:")


@case("another user may do what mode and owner say, no more")
def _(at: str) -> None:
    if os.geteuid() != 0:
        raise Skipped("only root can become another user")
    os.mkdir(f"{at}/own")
    os.chown(f"{at}/own", 1234, 1234)
    os.chmod(f"{at}/own", 0o700)
    write(f"{at}/secret", b"no")
    os.chmod(f"{at}/secret", 0o600)
    os.chmod(at, 0o755)
    pid = os.fork()
    if pid == 0:
        os._exit(_as_another(at))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code in (3, 4):
        raise Lacking("it may more")
    assert code == 0, "it could not write in its own folder" if code == 1 else "its file is not its own"


def _as_another(at: str) -> int:
    try:
        os.chdir(at)  # folders above it may be closed to others
        os.setgroups([])
        os.setgid(1234)
        os.setuid(1234)
        write("own/f", b"mine")
        for code, path, flags in ((3, "secret", os.O_RDONLY), (4, "new", os.O_WRONLY | os.O_CREAT)):
            try:
                os.open(path, flags)
                return code
            except PermissionError:
                pass
        return 0 if os.stat("own/f").st_uid == 1234 else 5
    except OSError:
        return 1


@case("statvfs")
def _(at: str) -> str:
    found = os.statvfs(at)
    assert found.f_blocks > 0 and 0 < found.f_bavail <= found.f_bfree <= found.f_blocks, found
    assert found.f_namemax >= 143, f"names of at most {found.f_namemax}"
    return f"{found.f_bavail * found.f_frsize >> 30} GB free"


@case("blocks of a file are about its size")
def _(at: str) -> None:
    with open(f"{at}/f", "wb") as file:
        file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())
    assert 1 << 20 <= os.stat(f"{at}/f").st_blocks * 512 < 2 << 20, os.stat(f"{at}/f").st_blocks


# Memory, locks, special things


@case("mmap private and shared, read")
def _(at: str) -> None:
    data = os.urandom(100_000)
    write(f"{at}/f", data)
    with open(f"{at}/f", "rb") as file:
        for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
            with mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ) as view:
                assert view[:] == data


@case("mmap shared, written, seen by another process")
def _(at: str) -> None:
    write(f"{at}/f", b"\0" * 8192)
    with open(f"{at}/f", "r+b") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED) as view:
        view[4000:4200] = b"m" * 200
        code = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
        found, _ = child(code, f"{at}/f").communicate(timeout=60)
        same(found[4000:4200], b"m" * 200, "while it is mapped")
        view.flush()
    same(read(f"{at}/f")[3999:4201], b"\0" + b"m" * 200 + b"\0")


@case("flock between processes")
def _(at: str) -> None:
    write(f"{at}/f")
    code = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'r+')\n"
        "try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\nexcept BlockingIOError: print('taken')"
    )
    with open(f"{at}/f", "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        same(child(code, f"{at}/f").communicate(timeout=60)[0].strip(), b"taken")
        fcntl.flock(file, fcntl.LOCK_UN)
        same(child(code, f"{at}/f").communicate(timeout=60)[0].strip(), b"free")


@case("fcntl locks of ranges between processes")
def _(at: str) -> None:
    write(f"{at}/f", b"x" * 100)
    code = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'r+')\nfor start in (0, 60):\n"
        "    try: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, start); print('free')\n"
        "    except BlockingIOError: print('taken')"
    )
    with open(f"{at}/f", "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 50, 0)
        same(child(code, f"{at}/f").communicate(timeout=60)[0].split(), [b"taken", b"free"])
    same(child(code, f"{at}/f").communicate(timeout=60)[0].split(), [b"free", b"free"], "after the end")


@case("a lock ends with its process")
def _(at: str) -> None:
    write(f"{at}/f")
    code = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'r+')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\nprint('has', flush=True)\nsys.stdin.read()"
    )
    holder = child(code, f"{at}/f")
    with holder, open(f"{at}/f", "r+b") as file:
        assert holder.stdout is not None
        same(holder.stdout.readline(), b"has\n")
        fails(errno.EAGAIN, fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.send_signal(signal.SIGKILL)
        fcntl.flock(file, fcntl.LOCK_EX)


@case("8 threads write and read 8 files at once")
def _(at: str) -> None:
    wrong: list[str] = []

    def work(name: str) -> None:
        for number in range(40):
            data = os.urandom(1 + number * 700)
            write(f"{at}/{name}", data)
            if read(f"{at}/{name}") != data:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(wrong, [])


@case("fifo")
def _(at: str) -> None:
    os.mkfifo(f"{at}/p")
    assert stat.S_ISFIFO(os.stat(f"{at}/p").st_mode)


@case("unix socket")
def _(at: str) -> None:
    os.chdir(at)
    try:
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
            listening.bind("s")
            listening.listen()
            client.connect("s")
    finally:
        os.chdir("/")


@case("device node")
def _(at: str) -> None:
    os.mknod(f"{at}/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert stat.S_ISCHR(os.stat(f"{at}/null").st_mode)


@case("O_TMPFILE")
def _(at: str) -> None:
    fd = os.open(at, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        os.write(fd, b"x")
        same(os.listdir(at), [])
    finally:
        os.close(fd)


@case("extended attributes")
def _(at: str) -> None:
    write(f"{at}/f")
    os.setxattr(f"{at}/f", "user.test", b"value")
    same(os.getxattr(f"{at}/f", "user.test"), b"value")


@case("inotify: what is done in the guest itself")
def _(at: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK)
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(at), 0xFFF) < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    try:
        write(f"{at}/f")
        os.unlink(f"{at}/f")
        events, seen = os.read(fd, 65536), 0
        while events:
            seen |= int.from_bytes(events[4:8], sys.byteorder)
            events = events[16 + int.from_bytes(events[12:16], sys.byteorder) :]
    finally:
        os.close(fd)
    same(hex(seen & 0x302), hex(0x302), "IN_CREATE, IN_DELETE, IN_MODIFY:")


class Skipped(Exception):
    """This computer, container or user cannot try it."""


class Lacking(Exception):
    """It is not there, and no call failed."""


def judge(name: str, at: str) -> tuple[str, str]:
    """The outcome of a case, run in an empty folder, and a word about it."""
    try:
        return "supported", CASES[name](at) or ""
    except Skipped as reason:
        return "skipped", str(reason)
    except Lacking as reason:
        return "not supported", str(reason)
    except AssertionError as wrong:
        return "WRONG", str(wrong)[:300]
    except OSError as error:
        return "not supported", errno.errorcode.get(error.errno or 0, str(error))


def table(folder: str, only: str = "") -> dict[str, tuple[str, str]]:
    found = {}
    for name in CASES:
        if only in name:
            at = tempfile.mkdtemp(prefix="case-", dir=folder)
            try:
                found[name] = judge(name, at)
            finally:
                shutil.rmtree(at, ignore_errors=True)
            if os.path.exists(at) and found[name][0] == "supported":
                found[name] = ("WRONG", "what it made cannot be removed")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("folder")
    asked = parser.parse_args()
    found = table(os.path.abspath(asked.folder), asked.only)
    if asked.json:
        print(json.dumps(found))
    else:
        for name, (outcome, word) in found.items():
            print(f"{name:<62} {outcome}{': ' if word else ''}{word}")
    return 1 if any(outcome == "WRONG" for outcome, _ in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
