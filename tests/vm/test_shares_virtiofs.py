"""A share over virtiofs: there and read-only where it is to be, beside the home that stays with us; until the machine's end."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from launcher import virtiofs
from launcher.errors import WherryError
from tests.vm.driver import Driver
from tests.vm.test_life import keeper_of

pytestmark = pytest.mark.vm
HELLO = "wherry.internal/hello"


def _missing() -> str:
    """Why there is no virtiofs here."""
    try:
        virtiofs.check()
    except WherryError as error:
        return error.message
    return ""


class Shared(Driver):
    """A user with a home, and folders beside it: one to write, one to read."""

    def __init__(self) -> None:
        super().__init__()
        name = "data" if virtiofs.find().is_qemus else "it's, data"
        self.home, self.data, self.only = self.path / "me", self.path / name, self.path / "only"
        for folder in (self.home, self.data, self.only):
            folder.mkdir()
            (folder / "hello").write_text(f"from {folder.name}\n")
        self.environment["HOME"] = str(self.home)

    def servers(self) -> list[psutil.Process]:
        """The first process of each virtiofsd."""
        known = json.loads((self.path / "home/machines/default/state.json").read_text())["virtiofs"]
        return [psutil.Process(pid) for pid, _ in known.values()]

    def listing(self) -> dict[str, dict[str, Any]]:
        found = json.loads(self.wherry("share", "list", "--json").stdout)["data"]
        return {share["path"]: share for share in found}

    def inside(self, command: str, *options: str) -> str:
        return self.docker("run", "--rm", "-v", f"{self.data}:/data", *options, HELLO, "sh", "-c", command)


@pytest.fixture
def shared() -> Iterator[Shared]:
    if why := _missing():
        pytest.skip(why)
    driver = Shared()
    try:
        yield driver
    finally:
        driver.close()


def test_a_share_over_virtiofs(shared: Shared) -> None:
    assert shared.wherry("init").returncode == 0
    assert shared.wherry("config", "set", "shares.virtiofs=true").returncode == 0
    for folder in (f"{shared.data}", f"{shared.only}:ro"):
        assert shared.wherry("share", "add", folder).returncode == 0
    shared.up()

    # Which is which.
    keeps_read_only = virtiofs.find().read_only
    listing = shared.listing()
    assert {path: share["virtiofs"] for path, share in listing.items()} == {
        str(shared.home): False, str(shared.data): True, str(shared.only): keeps_read_only,
    }  # fmt: skip
    assert listing[str(shared.home)]["why"] == "it holds private places"
    assert {share["state"] for share in listing.values()} == {"served"}
    mounts = shared.ssh("cat /proc/mounts")
    assert mounts.count(" virtiofs ") == len(shared.servers()) and all(
        "nosuid" in line and "nodev" in line for line in mounts.splitlines() if " virtiofs " in line
    )

    # Both directions, and no further.
    (shared.path / "secret").write_text("secret\n")
    (shared.data / "link").symlink_to("../secret")
    assert shared.inside("cat /data/hello && echo made >/data/made") == f"from {shared.data.name}\n"
    made = (shared.data / "made").stat()
    assert (shared.data / "made").read_text() == "made\n" and (made.st_uid, made.st_mode & 0o777) == (os.getuid(), 0o644)
    assert "secret" not in shared.inside("cat /data/link || true")
    assert "from me" in shared.inside("cat /me/hello", "-v", f"{shared.home}:/me")
    done = shared.wherry(
        "docker", "run", "--rm", "-v", f"{shared.only}:/only", HELLO, "sh", "-c", "cat /only/hello; echo >/only/x"
    )
    assert done.stdout == b"from only\n" and b"Read-only" in done.stderr and not (shared.only / "x").exists()
    # Also by root in the machine, who may mount it anew: it is this computer that refuses.
    done = shared.wherry(
        "ssh", f"mount -o remount,rw '{shared.only}'; mount -o remount,bind,rw '{shared.only}'; echo >'{shared.only}/x'"
    )
    assert done.returncode != 0 and not (shared.only / "x").exists()

    # Nor is a device made on it, which would be one of this computer.
    quoted = shlex.quote(str(shared.data))
    done = shared.wherry("ssh", f"mkfifo {quoted}/pipe && mknod {quoted}/disk b 8 0")
    assert done.returncode != 0 and (shared.data / "pipe").is_fifo() and not (shared.data / "disk").exists()

    # What it would take from a machine that runs is refused, what is added is served by us.
    done = shared.wherry("share", "remove", str(shared.data))
    assert done.returncode != 0 and b"wherry stop" in done.stderr
    (shared.path / "more").mkdir()
    assert shared.wherry("share", "add", str(shared.path / "more")).returncode == 0
    more = str(shared.path / "more")
    shared.wait_until(lambda: shared.listing()[more]["state"] == "served", "it is served")
    assert (shared.listing()[more]["virtiofs"], shared.listing()[more]["why"]) == (False, "it was added after the start")

    # A keeper that dies takes none of it away.
    shared.docker("run", "-d", "--name", "goes-on", "-v", f"{shared.data}:/data", HELLO, "sleep", "100000")
    servers = shared.servers()
    keeper = keeper_of(shared)
    keeper.kill()
    shared.wait_until(lambda: not keeper.is_running() or keeper.status() == psutil.STATUS_ZOMBIE, "it is gone")
    assert shared.docker("exec", "goes-on", "cat", "/data/made") == "made\n"
    assert shared.servers() == servers and shared.listing()[str(shared.data)]["state"] == "served"

    # One that dies is told, and the machine goes on and ends.
    server = next(process for process in servers if str(shared.data) in " ".join(process.cmdline()))
    server.send_signal(signal.SIGKILL)
    shared.wait_until(lambda: shared.listing()[str(shared.data)]["state"] == "failed", "its end is told")
    assert "from me" in shared.docker("run", "--rm", "-v", f"{shared.home}:/me", HELLO, "cat", "/me/hello")
    # Who waits for it waits for ever, in a container too, which keeps nobody from ending the machine as it should.
    shared.ssh(f"setsid cat {quoted}/made </dev/null >/dev/null 2>&1 &")
    shared.docker("exec", "goes-on", "sh", "-c", "echo kept >/kept")
    shared.docker("exec", "-d", "goes-on", "cat", "/data/made")
    assert shared.wherry("stop", timeout=600).returncode == 0
    state = json.loads((shared.path / "home/machines/default/state.json").read_text())
    assert state["virtiofs"] == {} and not [note for note in state["notes"] if "did not power off" in note]
    assert not [process for process in servers if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not list((shared.path / "wherry").rglob("fs*.sock"))

    # Nothing is lost by it, and without virtiofs the container has its folder from us.
    assert shared.wherry("config", "set", "shares.virtiofs=false").returncode == 0
    shared.up()
    shared.docker("start", "goes-on")
    assert shared.docker("exec", "goes-on", "cat", "/kept", "/data/made") == "kept\nmade\n"
