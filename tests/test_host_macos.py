"""What macOS says, and what is made of it: its programs are played by scripts."""

from __future__ import annotations

import errno
import os
import plistlib
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.host import _privacy_macos, _signed_macos, macos, native_arch
from tests.systems import not_on_windows

pytestmark = not_on_windows("scripts")

Codesign = Callable[[str, int], None]


@pytest.fixture
def codesign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Codesign:
    """A codesign that answers this."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")

    def answer(said: str, code: int) -> None:
        script = tools / "codesign"
        script.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tools}/asked\necho {shlex.quote(said)}\nexit {code}\n")
        script.chmod(0o755)

    return answer


@pytest.fixture
def qemu(tmp_path: Path) -> Path:
    """As Homebrew has it: a link to where it is."""
    (tmp_path / "Cellar").mkdir()
    real = tmp_path / "Cellar" / "qemu-system-aarch64"
    real.touch()
    link = tmp_path / "qemu-system-aarch64"
    link.symlink_to(real)
    return link


WORDS = "[Dict]\n\t[Key] com.apple.security.hypervisor\n\t[Value]\n\t\t[Bool] true"
LIST = '<plist version="1.0"><dict><key>com.apple.security.hypervisor</key><true/></dict></plist>'


@pytest.mark.parametrize("said", [WORDS, LIST])
def test_an_entitled_qemu(said: str, codesign: Codesign, qemu: Path, tmp_path: Path) -> None:
    codesign(said, 0)
    assert macos.no_acceleration_by(qemu) is None
    assert (tmp_path / "tools" / "asked").read_text().split() == ["--display", "--entitlements", "-", str(qemu.resolve())]


@pytest.mark.parametrize(("said", "code"), [("", 0), ("code object is not signed at all", 1)])
def test_a_qemu_without_the_entitlement_names_what_mends_it(said: str, code: int, codesign: Codesign, qemu: Path) -> None:
    codesign(said, code)
    found = macos.no_acceleration_by(qemu)
    assert found is not None
    assert found[0] == f"{qemu} lacks the entitlement com.apple.security.hypervisor"
    words = shlex.split(found[1])
    assert words == ["codesign", "--sign", "-", "--force", "--entitlements", str(_signed_macos.FILE), str(qemu.resolve())]
    assert plistlib.loads(Path(words[5]).read_bytes()) == {"com.apple.security.hypervisor": True}


def test_without_the_tool_nothing_is_claimed(qemu: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert macos.no_acceleration_by(qemu) is None


def test_the_hint_of_a_start_without_acceleration_has_it(codesign: Codesign, qemu: Path) -> None:
    codesign("", 0)
    hint = macos.accelerator_hint(native_arch(), qemu)
    assert "lacks the entitlement" in hint and "codesign --sign - --force" in hint
    codesign(WORDS, 0)
    assert "does not start on Hypervisor.framework" in macos.accelerator_hint(native_arch(), qemu)


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the user has refused to us."""
    made = tmp_path / "home" / "Documents"
    made.mkdir(parents=True)
    (made / "a.txt").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    scandir = os.scandir

    def refused(path: str) -> object:
        if str(path).startswith(str(made)):
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        return scandir(path)

    monkeypatch.setattr(_privacy_macos.os, "scandir", refused)
    return made


def test_a_folder_that_the_user_has_refused_says_where_leave_is_given(documents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert macos.guarded_folders() == [str(documents)]
    for path in (documents, documents / "a.txt"):
        found = macos.withheld(str(path))
        assert found is not None
        assert found[0] == f"macOS keeps {documents} from wherry" and '"Privacy & Security", "Files and Folders"' in found[1]
    assert macos.withheld(str(documents.parent)) is None
    assert macos.withheld(str(documents.parent / "gone")) is None


def test_what_rights_forbid_is_another_thing(documents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: str) -> object:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(_privacy_macos.os, "scandir", forbidden)
    assert macos.withheld(str(documents)) is None
