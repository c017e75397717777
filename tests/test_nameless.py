"""A user whom this computer has no entry for, as `docker run --user 4242` makes one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from launcher import host, sharing, store
from launcher.config import Shares
from launcher.errors import MissingOnHost
from tests.conftest import Said
from tests.fakes import make_machine

if sys.platform == "win32":
    pytest.skip("users there have names", allow_module_level=True)

import pwd


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> str:
    def unknown(number: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    return str(os.getuid())


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/kvm is Linux's")
def test_kvm_that_is_closed_to_them_is_said(nameless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(host.current(), "_group_of", lambda path: "kvm")
    arch = host.native_arch()
    assert host.current().no_acceleration(arch) == (
        f"/dev/kvm is closed to you: user {nameless}, who has no name here", "start wherry with the group kvm"
    )  # fmt: skip
    assert "/dev/kvm is closed" in host.current().accelerator_hint(arch)
    monkeypatch.setenv("LOGNAME", "ana")
    monkeypatch.setattr(host.current(), "_members", lambda group: ["ana"])
    assert "since your last login" in host.current().accelerator_hint(arch)


def test_home_is_what_the_environment_says(nameless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (host.current().home(), sharing.home()) == (str(tmp_path), os.path.realpath(tmp_path))


def test_without_a_home_it_is_said_what_is_missing(
    nameless: str, wherry: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_machine()
    directory.write_config(directory.read_config().changed(shares=Shares(home=True)))
    monkeypatch.delenv("HOME", raising=False)
    assert wherry("status").code == 3
    said = wherry("share", "list")
    assert (said.code, said.err) == (
        4, f"wherry: there is no home of user {nameless}, whom this computer has no entry for: HOME is not set.\n"
        "        Set HOME to a folder of yours.\n"
    )  # fmt: skip
    # No folder of the name ~ is made wherever one is.
    monkeypatch.chdir(tmp_path)
    for name in ("WHERRY_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for place in (store.home, store.cache_dir):
        with pytest.raises(MissingOnHost):
            place()
    assert wherry("up").code == 4 and not (tmp_path / "~").exists()
    monkeypatch.setenv("HOME", "not/whole")
    with pytest.raises(MissingOnHost, match="no whole path"):
        store.home()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert store.home() == tmp_path / "data" / "wherry"
