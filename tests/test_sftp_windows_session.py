"""The session over the tree of Windows, with the real protocol in between."""

from __future__ import annotations

import errno as host_errno
import os
from pathlib import Path

import pytest

from launcher import host
from launcher.sftp import status
from launcher.sftp.anytree import any_tree
from launcher.sftp.policy import Policy
from launcher.sftp.remembered import Nothing
from launcher.sftp.windows_tree import WindowsTree
from tests.sftpclient import (
    APPEND,
    CREAT,
    EXCL,
    MKDIR,
    REMOVE,
    RMDIR,
    SETSTAT,
    Failed,
    R,
    RawClient,
    W,
    attrs,
    s,
    served,
    u32,
    u64,
)

pytestmark = pytest.mark.skipif(host.current().NAME != "windows", reason="not Windows")


def test_errors_of_this_computer_have_linux_numbers() -> None:
    for name, number in (
        ("ELOOP", 40),
        ("EOPNOTSUPP", 95),
        ("ENOTSUP", 95),
        ("ENOTEMPTY", 39),
        ("EDQUOT", 122),
        ("ESTALE", 116),
        ("ENAMETOOLONG", 36),
    ):
        assert status.linux(getattr(host_errno, name)) == number, name


def test_a_session(tmp_path: Path) -> None:
    home = tmp_path / "Home"
    home.mkdir()
    (home / "README").write_bytes(b"host\r\nfile\x1a\n")
    tree = any_tree(home, Policy(home), Nothing())
    assert isinstance(tree, WindowsTree)
    try:
        with served(tree) as (stream, _):
            client = RawClient(stream)
            client.init()
            client.ok(client.request(MKDIR, s(b"/d") + attrs(mode=0o755)))
            handle = client.open(b"/d/f", R | W | CREAT | EXCL, attrs(mode=0o644))
            client.write(handle, 0, b"hello\r\n\n\x1a")
            client.write(handle, 100_000, b"x" * 200_000)
            assert client.read(handle, 0, 9) == b"hello\r\n\n\x1a"
            assert client.read(handle, 299_990, 100) == b"x" * 10
            with pytest.raises(Failed) as raised:
                client.read(handle, 300_000, 10)
            assert raised.value.code == 1
            client.ok(client.extended(b"fsync@openssh.com", s(handle)))
            assert client.fstat(handle).size == 300_000
            client.close(handle)
            whole = client.open_whole(b"/README")
            assert whole.data == b"host\r\nfile\x1a\n"
            client.close(whole.handle)
            assert set(client.list(b"/")) == {b"README", b"d"}
            assert set(client.readdir(b"/d")) == {b"f"}
            for path, number in ((b"/readme", 2), (b"/README/x", 20), (b"/a:b", 2), (b"/none/x", 2)):
                with pytest.raises(Failed) as raised:
                    client.lstat(path)
                assert raised.value.errno == number, path
            for path, number in ((b"/readme", 17), (b"/nul", 22), (b"/x?", 22), (b"/d", 21)):
                with pytest.raises(Failed) as raised:
                    client.open(path, W | CREAT)
                assert raised.value.errno == number, path
            with pytest.raises(Failed) as raised:
                client.ok(client.request(RMDIR, s(b"/d")))
            assert raised.value.errno == 39
            client.ok(client.extended(b"posix-rename@openssh.com", s(b"/d/f") + s(b"/README")))
            assert client.lstat(b"/README").size == 300_000
            client.ok(client.request(SETSTAT, s(b"/README") + attrs(size=3, fine=(5, 6, 1_600_000_000, 123_456_700))))
            found = client.lstat(b"/README")
            assert (found.size, found.mtime_ns) == (3, 1_600_000_000_123_456_700)
            handle = client.open(b"/README", W | APPEND)
            client.write(handle, 0, b"more")
            client.close(handle)
            assert (home / "README").read_bytes() == b"helmore"
            assert client.extended(b"statvfs@openssh.com", s(b"/"))[0] == 201
            handle = client.open(b"/README", R | W)
            with pytest.raises(Failed) as raised:
                client.ok(client.extended(b"fallocate@wherry", s(handle) + u32(0) + u64(0) + u64(10)))
            assert raised.value.errno == 95
            client.close(handle)
            client.ok(client.request(REMOVE, s(b"/README")))
            handle = client.open(b"/sparse", R | W | CREAT)
            client.write(handle, 5 << 30, b"end")
            assert client.read(handle, 5 << 30, 9) == b"end"
            found = client.fstat(handle)
            assert found.size == (5 << 30) + 3 and found.blocks is not None and found.blocks * 512 < 1 << 20
            client.close(handle)
            client.ok(client.request(REMOVE, s(b"/sparse")))
    finally:
        tree.close()
    assert os.listdir(home) == ["d"]
