"""What is done with a data disk on request, as far as no machine has to start for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import disks, machine
from launcher.errors import NoSuchMachine, Refused
from launcher.report import SilentReporter
from launcher.store import MachineDir
from tests.conftest import Said
from tests.fakes import make_machine

QUIET = SilentReporter()
ALL = (machine.repair_disk, machine.open_read_only, machine.undo_repair, machine.forget_repair, machine.new_disk)
pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


@pytest.fixture
def directory(home: Path) -> MachineDir:
    made = make_machine()
    made.data_disk.unlink()
    return made


def test_a_new_disk_only_where_there_is_none(directory: MachineDir) -> None:
    machine.new_disk("default", QUIET)
    made = disks.info(directory.data_disk, Path("qemu-img"))
    assert made.virtual_size == directory.read_config().disk
    with pytest.raises(Refused, match="never overwritten"):
        machine.new_disk("default", QUIET)


def test_a_repair_is_undone_and_forgotten(directory: MachineDir) -> None:
    machine.new_disk("default", QUIET)
    with pytest.raises(Refused, match="not kept"):
        machine.undo_repair("default", QUIET)
    assert machine.forget_repair("default", QUIET) is False
    assert disks.take_snapshot(directory.data_disk, Path("qemu-img"))
    machine.undo_repair("default", QUIET)
    assert machine.forget_repair("default", QUIET) is True


def test_a_repair_begins_with_a_look_at_the_disk(directory: MachineDir) -> None:
    directory.data_disk.write_bytes(b"no disk at all")
    with pytest.raises(Refused, match="no qcow2"):
        machine.repair_disk("default", QUIET)
    assert directory.data_disk.read_bytes() == b"no disk at all"


@pytest.mark.parametrize("action", ALL)
def test_a_disk_in_use_is_left_alone(action: Callable[..., object], keeper: object) -> None:
    with pytest.raises(Refused, match="is running"):
        action("default", QUIET)


@pytest.mark.parametrize("action", ALL)
def test_no_such_machine(action: Callable[..., object], home: Path) -> None:
    with pytest.raises(NoSuchMachine):
        action("none", QUIET)


def test_the_verb(wherry: Callable[..., Said], directory: MachineDir) -> None:
    assert wherry("repair", "--undo", "--forget").code == 2
    assert wherry("repair", "none").code == 3
    gone = wherry("repair", "--undo")
    assert gone.code == 6 and "is gone" in gone.err
    made = wherry("repair", "--new-disk", "--json")
    assert made.code == 0 and json.loads(made.out)["data"] == {"name": "default"}
    assert directory.data_disk.exists()
    assert wherry("repair", "--new-disk").code == 6
    assert wherry("repair", "--undo", "--dry-run").code == 2
    left = wherry("repair")  # the ISO of this machine is none, and that is all
    assert left.code == 1 and len(left.out.splitlines()) == 1 and "not in the cache" in left.out


@pytest.mark.usefixtures("keeper")
@pytest.mark.parametrize("option", [["--read-only"], ["--new-disk"], ["--undo"], ["--forget"]])
def test_the_verb_leaves_a_running_machine_alone(wherry: Callable[..., Said], option: list[str]) -> None:
    said = wherry("repair", *option)
    assert said.code == 6 and "is running" in said.err and "wherry stop default" in said.err
