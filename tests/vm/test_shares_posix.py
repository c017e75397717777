"""Standard testers on a share, from a container: fsx, fio with verify, and a table of POSIX cases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images.build import build
from tests.shares.fsx import fsx
from tests.vm.client import Client
from tests.vm.driver import SOAK, Driver
from tests.vm.workshop import TOOLS, Container, load, shared_folder

pytestmark = pytest.mark.vm
# What a share does not have, each with the errno that says so.
LIMITS = {
    "device node": "EPERM",
    "fifo": "EPERM",
    "unix socket": "EPERM",
    "O_TMPFILE": "ENOTSUP",
    "extended attributes": "ENOTSUP",
    "RENAME_EXCHANGE": "EINVAL",
    # On purpose: what a container's users may is for its images to say, and all files are the host user's.
    "another user may do what mode and owner say, no more": "it may more",
}
SEEDS = range(10 if SOAK else 1)
OPERATIONS = 10_000 if SOAK else 1500


@pytest.fixture(scope="module")
def folder(machine: Driver) -> Iterator[Path]:
    with shared_folder(machine) as made:
        yield made


@pytest.fixture(scope="module")
def container(machine: Driver, folder: Path) -> Iterator[Container]:
    client = Client(machine)
    load(client, build(), "workshop")
    shutil.copytree(TOOLS, folder / "tools")
    with Container(client, "workshop", [f"{folder}:/code"]) as made:
        yield made


def test_posix_table(container: Container, folder: Path, record_property: Callable[[str, object], None]) -> None:
    (folder / "cases").mkdir()
    done = container.run("python3", "/code/tools/posixtable.py", "--json", "/code/cases", timeout=1800)
    assert done.stdout, done.stderr.decode()
    found = json.loads(done.stdout)
    for name, (outcome, word) in found.items():
        record_property("table", f"{name:<76} {outcome}{': ' if word else ''}{word}")
    assert {name: word for name, (outcome, word) in found.items() if outcome == "WRONG"} == {}
    assert {name: word for name, (outcome, word) in found.items() if outcome == "not supported"} == LIMITS
    assert [name for name, (outcome, _) in found.items() if outcome == "skipped"] == []
    assert list((folder / "cases").iterdir()) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_fsx(container: Container, folder: Path, seed: int) -> None:
    """Random reads, writes, maps, truncations and copies, each compared with what a model says."""
    program = fsx()
    if not (folder / "tools" / "fsx").exists():
        shutil.copy2(program, folder / "tools" / "fsx")
    container("/code/tools/fsx", "-q", "-N", str(OPERATIONS), "-S", str(seed), "-P", "/tmp", f"/code/fsx-{seed}", timeout=3600)
    (folder / f"fsx-{seed}").unlink()


@pytest.mark.parametrize("job", ["psync", "mmap", "append"])
def test_fio_verify(container: Container, folder: Path, job: str) -> None:
    size = "64m" if SOAK else "12m"
    words = ("--directory=/code", f"--size={size}", "--output-format=json", f"--section={job}", "/code/tools/verify.fio")
    told = json.loads(container("fio", *words, timeout=1800))
    for found in told["jobs"]:
        assert found["error"] == 0 and found["read"]["total_ios"] > 0 and found["write"]["total_ios"] > 0, found["jobname"]
    for left in folder.glob(f"{job}.*"):
        left.unlink()
