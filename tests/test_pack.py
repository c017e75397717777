"""A folder as a tar stream, and back."""

from __future__ import annotations

import gc
import importlib
import io
import os
import socket
import sys
import tarfile
from pathlib import Path

import pytest

from launcher.cli import pack
from launcher.cli.ignore import Ignore, parse
from launcher.cli.unpack import unpack
from launcher.errors import WherryError
from launcher.report import SilentReporter


class Warned(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)


def packed(entries: list[pack.Entry], report: SilentReporter | None = None, **options: object) -> tarfile.TarFile:
    stream = io.BytesIO()
    pack.send(entries, lambda data: stream.write(data) and None, report or SilentReporter(), **options)  # type: ignore[arg-type]
    stream.seek(0)
    return tarfile.open(fileobj=stream)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "bin/run").write_bytes(b"#!/bin/sh\n")
    (root / "bin/run").chmod(0o755)
    (root / "data").write_bytes(os.urandom(300_000))
    (root / "secret").write_text("x")
    (root / "secret").chmod(0o600)
    (root / "link").symlink_to("./bin/../data")
    (root / "dangling").symlink_to("/nowhere")
    (root / ("long" * 40)).write_text("a long name")
    (root / "größe ünd").write_text("not ascii")
    return root


@pytest.mark.parametrize(("mode", "sent"), [(0o666, 0o755), (0o444, 0o555), (0o777, 0o755), (0o600, 0o711)])
def test_windows_sends_what_dockers_own_client_does(tree: Path, monkeypatch: pytest.MonkeyPatch, mode: int, sent: int) -> None:
    """Its files have no bit that says "a program": entry points would be none (moby, pkg/archive/archive_windows.go)."""
    from launcher.host import windows

    monkeypatch.setattr(pack.host, "current", lambda: windows)
    (tree / "data").chmod(mode)
    with packed(pack.walk(tree)) as archive:
        assert archive.getmember("data").mode == sent


def test_names_modes_and_links_survive(tree: Path, tmp_path: Path) -> None:
    os.utime(tree / "data", (1, 1_600_000_000))
    with packed(pack.walk(tree)) as archive:
        assert archive.pax_headers == {}
        members = {member.name: member for member in archive}
    assert list(members) == sorted(members)
    assert members["bin/run"].mode == 0o755 and members["secret"].mode == 0o600
    assert members["link"].linkname == "./bin/../data" and members["dangling"].linkname == "/nowhere"
    assert members["data"].mtime == 1_600_000_000 and members["empty"].isdir()
    assert "größe ünd" in members and "long" * 40 in members
    assert {member.uid for member in members.values()} == {0}


def test_what_is_ignored_stays_out(tree: Path) -> None:
    names = [entry.name for entry in pack.walk(tree, Ignore(parse("*\n!bin/run")))]
    assert names == ["bin/run"]


def test_sockets_and_pipes_are_left_out(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "sock"))
        assert not {"pipe", "sock"} & {entry.name for entry in pack.walk(tree)}


def test_a_file_that_changes_while_it_is_read(tree: Path) -> None:
    entries = pack.walk(tree)
    (tree / "data").write_bytes(b"now it is another one")
    (tree / "secret").unlink()
    with packed(entries) as archive:
        reading = archive.extractfile("data")
        assert reading is not None and reading.read() == b"now it is another one"
        assert "secret" not in archive.getnames()


def test_a_file_that_becomes_shorter_is_told(tree: Path) -> None:
    report = Warned()
    source = (tree / "data").open("rb")
    with source:
        exactly = pack._Exactly(source, 400_000, tree / "data", report)
        assert len(exactly.read(350_000)) == 350_000 and len(exactly.read()) == 50_000
    assert len(report.said) == 1 and "shorter" in report.said[0]


def test_the_fingerprint_follows_changes(tree: Path) -> None:
    before = pack.fingerprint(pack.walk(tree))
    assert pack.fingerprint(pack.walk(tree)) == before
    (tree / "secret").write_text("y!")
    assert pack.fingerprint(pack.walk(tree)) != before


def test_there_and_back(tree: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    pack.send(pack.walk(tree), lambda data: stream.write(data) and None, SilentReporter(), prefix="tree/")
    stream.seek(0)
    into = tmp_path / "back"
    into.mkdir()
    unpack(stream, into, strip=1, name="other", report=SilentReporter())
    assert (into / "other/data").read_bytes() == (tree / "data").read_bytes()
    assert (into / "other/bin/run").stat().st_mode & 0o777 == 0o755
    assert (into / "other/secret").stat().st_mode & 0o777 == 0o600
    assert os.readlink(into / "other/link") == "./bin/../data"
    assert (into / "other" / ("long" * 40)).read_text() == "a long name"


def evil(*members: tarfile.TarInfo) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    stream.seek(0)
    return stream


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("a/../../out")],
        [member("/out")],
        [member("a/link", tarfile.SYMTYPE, "../.."), member("a/link/out")],
        [member("a/hard", tarfile.LNKTYPE, "../out")],
        [member("a/link", tarfile.SYMTYPE, "../../kept"), member("a/hard", tarfile.LNKTYPE, "a/link")],
    ],
    ids=["dots", "absolute", "through-a-link", "hard-link", "hard-link-to-a-link"],
)
def test_nothing_is_written_outside(members: list[tarfile.TarInfo], tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    (tmp_path / "kept").write_text("kept")
    with pytest.raises(WherryError):
        unpack(evil(*members), into, strip=0, name=None, report=SilentReporter())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "kept"]
    assert (tmp_path / "kept").read_text() == "kept"


def test_a_link_that_is_there_is_replaced_not_followed(tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    (tmp_path / "kept").write_text("kept")
    (into / "file").symlink_to(tmp_path / "kept")
    unpack(evil(member("file")), into, strip=0, name=None, report=SilentReporter())
    assert (into / "file").read_text() == "x" and not (into / "file").is_symlink()
    assert (tmp_path / "kept").read_text() == "kept"


def test_what_windows_cannot_have_is_told_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream in another file, a device, a name that loses its end, and two that are one."""
    from launcher.cli import unpack as module
    from launcher.host import windows

    monkeypatch.setattr(module.host, "current", lambda: windows)
    names = ("ok", "a:b", "aux.c", "x.", "y ", "q?", r"back\slash", "d./in", "README", "ReadMe", "Dir/a", "dir/b", "é/Ü")
    report = Warned()
    unpack(evil(*map(member, names)), tmp_path, strip=0, name=None, report=report)
    assert [line.partition(" is left out")[0] for line in report.said] == [*names[1:8], "ReadMe", "dir/b"]
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"ok", "README", "Dir/a", "é/Ü"}


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_a_file_that_is_left_out_takes_its_hard_links_with_it(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a name that cannot be, or of one that is another file's here; the rest of the copy comes."""
    from launcher.cli import unpack as module

    rules = importlib.import_module(f"launcher.host.{system}")
    monkeypatch.setattr(module.host, "current", lambda: rules)
    bad = "a:b" if system == "windows" else "ok"
    members = [
        member("top/Ok"), member(f"top/{bad}"), member("top/second", tarfile.LNKTYPE, f"top/{bad}"),
        member("top/third", tarfile.LNKTYPE, "top/second"), member("top/last"), member("top/twin", tarfile.LNKTYPE, "top/last"),
    ]  # fmt: skip
    report = Warned()
    unpack(evil(*members), tmp_path, strip=1, name="new", report=report)
    assert [line.partition(" is left out")[0] for line in report.said] == [f"top/{bad}", "top/second", "top/third"]
    assert f"one file with top/{bad}, which" in report.said[1]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["Ok", "last", "twin"]
    assert (tmp_path / "new/twin").samefile(tmp_path / "new/last")


def test_devices_are_told_and_left_out(tmp_path: Path) -> None:
    """And what is one with them."""
    report = Warned()
    members = [member("null", tarfile.CHRTYPE), member("zero", tarfile.LNKTYPE, "null"), member("file")]
    unpack(evil(*members), tmp_path, strip=0, name=None, report=report)
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and len(report.said) == 2


def test_a_reader_that_goes_away_is_told_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a build: what tarfile still holds is not written to the closed connection when it is thrown away."""
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    (tree / "big").write_bytes(os.urandom(2 << 20))
    written: list[int] = []

    def write(data: bytes) -> None:
        if written:
            raise BrokenPipeError("nobody reads")
        written.append(len(data))

    with pytest.raises(BrokenPipeError):
        pack.send(pack.walk(tree), write, SilentReporter())
    gc.collect()
    assert ignored == [] and len(written) == 1
