"""What a Windows share is made of, as far as it is the same on every system; its tree: tests/test_sftp_windows_tree.py."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

import pytest

from launcher.host.ntformat import Info, entries, information, named
from launcher.host.ntstatus import failed, is_unknown
from launcher.sftp import windows_names as names
from launcher.sftp.anytree import any_tree
from launcher.sftp.owners import Owners
from launcher.sftp.policy import Policy
from launcher.sftp.remembered import Nothing, Owner
from launcher.sftp.windows_file import Ident, begin, kind, nanoseconds, remember, room, shown, units

PLAIN = Info(0x20, 0, 5, 4096, 1, 77, 133_000_000_000_000_000, 2, 3, 4)


@pytest.mark.parametrize(
    "text", ["a", ".ssh", " x", "a.b", "é", "日本", "\U0001f600", "half\ud83d", "nul", "x" * 255, "~1", "$MFT"]
)
def test_names_there_and_back(text: str) -> None:
    name = text.encode("utf-8", "surrogatepass")
    assert names.looked_up(name) == text.encode("utf-16-le", "surrogatepass")
    assert names.shown(text.encode("utf-16-le", "surrogatepass")) == name


BAD = [b"a:b", b"f::$DATA", b"a?", b"*", b"<", b">", b'"', b"|", b"a\\b", b"a.", b"a ", b".", b"..", b"", b"\x1f", b"\xff",
       b"\xc3", b"\xed\xa0\xbd\xed\xb8\x80"]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_names_that_windows_cannot_have(name: bytes) -> None:
    with pytest.raises(OSError) as looked:
        names.looked_up(name)
    with pytest.raises(OSError) as made:
        names.made(name)
    assert (looked.value.errno, made.value.errno) == (errno.ENOENT, errno.EINVAL)


@pytest.mark.parametrize("name", ["con", "NUL", "aux.c", "COM1", "lpt9.tar.gz", "nul .txt", "CONIN$", "com\u00b2"])
def test_names_of_devices_are_not_made(name: str) -> None:
    assert names.looked_up(name.encode())
    with pytest.raises(OSError) as made:
        names.made(name.encode())
    assert made.value.errno == errno.EINVAL
    assert names.made(b"console") and names.made(b"com10") and names.made(b"com") and names.made(b"null")


def test_names_that_the_guest_cannot_have_are_not_shown() -> None:
    for text in ("日" * 86, "a:b", "dot.", "blank "):
        assert names.shown(text.encode("utf-16-le")) is None
    with pytest.raises(OSError) as raised:
        names.looked_up(b"x" * 256)
    assert raised.value.errno == errno.ENAMETOOLONG


def test_below_knows_where_names_end() -> None:
    root = "\\\\?\\C:\\Users\\Ann"
    assert names.below(root, root) == ""
    assert names.below(root + "\\code\\x", root) == "code\\x"
    assert names.below("\\\\?\\c:\\users\\ANN\\code", root) == "code"
    assert names.below("\\\\?\\C:\\Users\\Anna\\code", root) is None
    assert names.below("\\\\?\\C:\\Users", root) is None
    assert names.below("\\\\?\\D:\\Users\\Ann\\x", root) is None
    assert names.below("C:\\x", "C:\\") == "x"
    assert names.below("C:\\", "C:\\") == ""
    assert names.same("STRASSE", "strasse") and not names.same("straße", "strasse") and names.same("É", "é")


def reparse(tag: int, substitute: str, shown_as: str) -> bytes:
    one, other = (text.encode("utf-16-le") for text in (substitute, shown_as))
    flags = struct.pack("<I", 1) if tag == names.TAG_SYMLINK else b""
    body = struct.pack("<HHHH", 0, len(one), len(one), len(other)) + flags + one + other
    return struct.pack("<IHH", tag, len(body), 0) + body


def test_where_links_lead() -> None:
    root, folder = "C:\\Users\\Ann", "C:\\Users\\Ann\\code\\app"
    for tag, substitute, target in (
        (names.TAG_SYMLINK, "..\\lib\\x", b"../lib/x"),
        (names.TAG_SYMLINK, "\\??\\C:\\Users\\Ann\\lib", b"../../lib"),
        (names.TAG_JUNCTION, "\\??\\c:\\users\\ann", b"../.."),
        (names.TAG_JUNCTION, "\\??\\D:\\data\\x", b"/d/data/x"),
        (names.TAG_JUNCTION, "\\??\\D:\\", b"/d/"),
        (names.TAG_SYMLINK, "\\??\\C:\\Users\\Anna", b"/c/Users/Anna"),
    ):
        text = names.link_text(reparse(tag, substitute, "shown"))
        assert isinstance(text, str)
        assert names.guest_target(text, root, folder) == target
    assert names.guest_target(root, root, root) == b"."
    linux = struct.pack("<IHHI", names.TAG_LINUX_SYMLINK, 4 + 9, 0, 2) + b"/etc/x\xff\xfey"
    assert names.link_text(linux) == b"/etc/x\xff\xfey"
    for data in (b"", b"\0" * 4, reparse(0x80000017, "x", "x"), reparse(names.TAG_SYMLINK, "x", "x")[:9]):
        with pytest.raises(OSError) as raised:
            names.link_text(data)
        assert raised.value.errno == errno.EINVAL


def test_targets_that_windows_may_have() -> None:
    assert names.host_target(b"../lib/./x/") == "..\\lib\\.\\x"
    for target, number in (
        (b"/etc/passwd", errno.EPERM),
        (b"a:b", errno.EINVAL),
        (b"../nul", errno.EINVAL),
        (b"a\\b", errno.EINVAL),
    ):
        with pytest.raises(OSError) as raised:
            names.host_target(target)
        assert raised.value.errno == number


@pytest.mark.parametrize(
    ("status", "kind_of", "number"),
    [
        (0xC0000034, FileNotFoundError, errno.ENOENT),
        (0xC0000035, FileExistsError, errno.EEXIST),
        (0xC0000022, PermissionError, errno.EACCES),
        (0xC0000043, OSError, errno.EBUSY),
        (0xC0000061, PermissionError, errno.EPERM),
        (0xC0000101, OSError, errno.ENOTEMPTY),
        (0xC000007F, OSError, errno.ENOSPC),
        (0xC0000103, NotADirectoryError, errno.ENOTDIR),
        (0xC00000BA, IsADirectoryError, errno.EISDIR),
        (0xDEADBEEF, OSError, errno.EIO),
        (-1073741772, FileNotFoundError, errno.ENOENT),
    ],
)
def test_what_windows_says_is_an_errno(status: int, kind_of: type[OSError], number: int) -> None:
    error = failed(status, "name".encode("utf-16-le"))
    assert isinstance(error, kind_of) and error.errno == number and error.filename == "name"
    assert not is_unknown(error) and is_unknown(failed(0xC0000003)) and not is_unknown(OSError(errno.EINVAL, ""))


def test_answers_of_the_kernel() -> None:
    data = struct.pack("<qqqqII", 1, 2, 3, 4, 0x20, 0) + struct.pack("<qqIBBxx", 4096, 5, 2, 0, 0) + struct.pack("<Q", 1 << 63)
    assert information(data + bytes(40)) == Info(0x20, 0, 5, 4096, 2, 1 << 63, 1, 2, 3, 4)

    def entry(name: str, attributes: int, tag: int, inode: int, following: int) -> bytes:
        text = name.encode("utf-16-le")
        head = struct.pack("<IIqqqqqqIIIB", following, 0, 1, 2, 3, 4, 5, 4096, attributes, len(text), tag, 0)
        return (head.ljust(96, b"\0") + struct.pack("<Q", inode) + text).ljust(following, b"\0")

    listed = list(entries(entry("long name", 0x10, 12, 8, 128) + entry("link", 0x400, names.TAG_SYMLINK, 9, 0)))
    assert [(name.decode("utf-16-le"), info.inode, info.tag) for name, info in listed] == [
        ("long name", 8, 0),
        ("link", 9, names.TAG_SYMLINK),
    ]
    assert named(0x43, 0x1234, b"x\0") == bytes.fromhex("43000000 00000000 3412000000000000 02000000 7800 0000")


def test_kinds_of_entries() -> None:
    for attributes, tag, form in (
        (0x20, 0, stat.S_IFREG),
        (0x10, 0, stat.S_IFDIR),
        (0x410, names.TAG_JUNCTION, stat.S_IFLNK),
        (0x400, names.TAG_SYMLINK, stat.S_IFLNK),
        (0x400, names.TAG_LINUX_SYMLINK, stat.S_IFLNK),
        (0x400, 0x9000601A, stat.S_IFREG),  # OneDrive
        (0x410, 0x9000601A, stat.S_IFDIR),
        (0x400, 0x80000023, stat.S_IFSOCK),
        (0x400, 0x80000024, stat.S_IFIFO),
    ):
        assert kind(PLAIN._replace(attributes=attributes, tag=tag)) == form


def test_times_of_windows() -> None:
    assert nanoseconds(116_444_736_000_000_000) == 0
    assert nanoseconds(units(1_600_000_000_123_456_789)) == 1_600_000_000_123_456_700
    assert units(-(1 << 70)) == 1 and units(-5_000_000_000) < 116_444_736_000_000_000


def test_owners_and_modes(tmp_path: Path) -> None:
    user = (0, 0)
    assert shown(PLAIN, Ident(3, 77, 0), user, Nothing()).mode == stat.S_IFREG | 0o755
    owners = Owners(tmp_path / "owners", 3)
    try:
        file = PLAIN
        begin(Ident(3, 77, 0), Ident(3, 1, 0), user, 0o100755, owners)
        remember(Ident(3, 77, 0), user, owners, uid=0)
        assert owners.empty
        remember(Ident(3, 1, 0), user, owners, uid=999, gid=998)
        begin(Ident(3, 77, 0), Ident(3, 1, 0), user, 0o644, owners)
        assert shown(file, Ident(3, 77, 0), user, owners)[:4] == (stat.S_IFREG | 0o644, 5, 999, 998)
        remember(Ident(3, 77, 0), user, owners, mode=0o104711)
        assert owners.of(Ident(3, 77, 0)) == Owner(999, 998, 0o4711)
        link = file._replace(attributes=0x400, tag=names.TAG_SYMLINK)
        assert shown(link, Ident(3, 77, 0), user, owners).mode == stat.S_IFLNK | 0o777
    finally:
        owners.close()


def test_room() -> None:
    if not hasattr(os, "statvfs_result"):
        pytest.skip("no statvfs_result")
    found = room(40960, 409600, 81920, 7)
    assert (found.f_bavail, found.f_blocks, found.f_bfree, found.f_frsize, found.f_fsid) == (10, 100, 20, 4096, 7)


def test_any_tree_is_that_of_this_system(tmp_path: Path) -> None:
    tree = any_tree(tmp_path, Policy(tmp_path), Nothing())
    try:
        assert stat.S_ISDIR(tree.lstat(b"/").mode)
        tree.mkdir(b"/d", 0o755)
        tree.replace(Policy(tmp_path, read_only=True))
        with pytest.raises(OSError) as raised:
            tree.rmdir(b"/d")
        assert raised.value.errno == errno.EROFS
    finally:
        tree.close()
