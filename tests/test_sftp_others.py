"""A client that others wrote (paramiko's SFTPClient) finds an ordinary server of version 3."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.sftp_client import SFTPClient

from tests.sftpclient import served
from tests.sftptree import PlainTree


class OverSocket:
    """What SFTPClient wants of a channel; a socket has the rest."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def get_name(self) -> str:
        return "test"

    def get_transport(self) -> Any:
        return self

    def get_log_channel(self) -> str:
        return "paramiko.test"

    def get_hexdump(self) -> bool:
        return False


@pytest.fixture
def client(tmp_path: Path) -> Iterator[SFTPClient]:
    with served(PlainTree(tmp_path)) as (stream, _):
        yield SFTPClient(OverSocket(stream))  # type: ignore[arg-type]


def test_files(client: SFTPClient, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "source").write_bytes(content)
    client.put(str(tmp_path / "source"), "/put")
    # With prefetch its threads only send, and nobody reads answers: that fills the socket on both sides.
    client.get("/put", str(tmp_path / "got"), prefetch=False)
    assert (tmp_path / "put").read_bytes() == (tmp_path / "got").read_bytes() == content
    with client.open("/put", "r+") as file:
        file.seek(10)
        file.write(b"here")
        file.flush()
        file.seek(8)
        assert file.read(8) == content[8:10] + b"here" + content[14:16]
        file.truncate(12)
        assert file.stat().st_size == 12
    with client.open("/put", "a") as file:
        file.write(b"end")
    assert (tmp_path / "put").read_bytes() == content[:10] + b"heend"
    with client.open("/new", "wx") as file:
        file.write(b"x")
    with pytest.raises(OSError):
        client.open("/new", "wx")


def test_names_and_folders(client: SFTPClient, tmp_path: Path) -> None:
    client.mkdir("/d", 0o750)
    for number in range(600):
        (tmp_path / "d" / f"n{number}").touch()
    assert sorted(client.listdir("/d")) == sorted(f"n{number}" for number in range(600))
    shown = {entry.filename: entry for entry in client.listdir_iter("/")}["d"]
    assert modes.S_ISDIR(shown.st_mode or 0) and shown.longname.startswith("drwxr-x---")
    client.rename("/d", "/e")
    client.posix_rename("/e/n1", "/e/n2")
    with pytest.raises(OSError):
        client.rmdir("/e")
    with pytest.raises(FileNotFoundError):
        client.stat("/e/n1")
    with pytest.raises(FileNotFoundError):
        client.remove("/e/n1")
    client.chdir("/e")
    assert client.getcwd() == "/e" and client.normalize("../e/./n2") == "/e/n2"
    client.chmod("n2", 0o600)
    client.utime("n2", (1, 2))
    found = client.stat("n2")
    assert (found.st_mode, found.st_atime, found.st_mtime) == (modes.S_IFREG | 0o600, 1, 2)
    client.truncate("n2", 7)
    client.symlink("n2", "/e/link")
    assert client.readlink("/e/link") == "n2" and os.readlink(tmp_path / "e" / "link") == "n2"
    assert client.lstat("/e/link").st_size == 2 and client.stat("/e/link").st_size == 7


def test_errors(client: SFTPClient, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        client.listdir("/file")
    with pytest.raises(FileNotFoundError):
        client.open("/none")
    with pytest.raises(OSError):
        client.open("/file/x")
    assert isinstance(client, paramiko.SFTPClient)
