"""Files that matter: synced and renamed; what a killed writer left goes, what a living one writes stays."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import errors, files, host
from tests.systems import not_on_windows


@not_on_windows("folders cannot be synced, NTFS keeps a journal")
def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    really = {"fsync": os.fsync, "replace": os.replace}

    def fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        really["fsync"](descriptor)

    def replace(one: Path, other: Path) -> None:
        steps.append("rename")
        assert one.read_bytes() == b"text"
        really["replace"](one, other)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_private(tmp_path / "name", b"text")
    assert steps == ["file", "rename", "folder"]
    assert stat.S_IMODE((tmp_path / "name").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


@not_on_windows("no signals")
def test_what_a_killed_writer_left_goes_and_nothing_else(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from launcher import files
half = files.temporary(Path({str(tmp_path)!r}, "machine.toml"))
half.write_bytes(b"half")
folder = files.temporary(Path({str(tmp_path)!r}, "box"))
folder.mkdir()
(folder / "data.qcow2").touch()
files.temporary(Path({str(tmp_path)!r}, "gone")).with_name(folder.name + ".deleted").mkdir()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    mine = files.temporary(tmp_path / "machine.toml")
    mine.touch()
    for name in (".hidden", ".machine.toml.swp", ".create.lock", "box", ".a.1-0011223"):
        (tmp_path / name).touch()
    before = {path.name for path in tmp_path.iterdir()}
    assert len(files.leftovers(tmp_path)) == 3
    gone = {path.name for path in files.sweep(tmp_path)}
    assert len(gone) == 3
    assert {path.name for path in tmp_path.iterdir()} == before - gone
    assert mine.exists()
    assert files.sweep(tmp_path / "nowhere") == []


def test_looking_at_a_lock_writes_nothing_and_is_no_holder(tmp_path: Path) -> None:
    system, file = host.current(), tmp_path / "lock"
    assert not system.lock_taken(file)
    assert not file.exists()
    held = system.lock(file, wait=False)
    assert held is not None
    assert system.lock_taken(file)
    os.close(held)
    assert not system.lock_taken(file)


@pytest.mark.parametrize(
    ("number", "name", "words", "hint"),
    [
        (errno.ENOSPC, "machines/default/state.json", "there is no space left in HOME/machines/default.", "Free some"),
        (
            errno.EROFS,
            "machines/default/state.json",
            "HOME/machines/default/state.json cannot be written: it is",
            "WHERRY_HOME",
        ),
        (errno.EROFS, "machines/.default.12-00112233", "HOME/machines cannot be written: it is read-only.", "WHERRY_HOME"),
        (errno.EACCES, "machines", "HOME/machines is closed to you.", "WHERRY_HOME"),
        (errno.EIO, "machines", "HOME/machines: Input/output error.", ""),
    ],
)
def test_refusals_of_the_system_in_words(tmp_path: Path, number: int, name: str, words: str, hint: str) -> None:
    (tmp_path / "machines" / "default").mkdir(parents=True)
    error = errors.of_system(OSError(number, os.strerror(number), str(tmp_path / name)))
    assert error.message.replace(os.sep, "/").startswith(words.replace("HOME", tmp_path.as_posix()))
    assert (error.hint or "").startswith(hint)


def test_a_refusal_that_names_no_file() -> None:
    assert errors.of_system(OSError(errno.ENOSPC, "No space left on device")).message == "there is no space left."
    assert errors.of_system(OSError("odd")).message == "odd"
