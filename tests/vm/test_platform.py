"""Images of the other architecture: they run and build, and still do after a restart."""

from __future__ import annotations

import io
import platform
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.driver import SOAK, Driver

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "iso"))

from builder.apt import cache_folder, sha256_of  # noqa: E402
from builder.hello import hello_image  # noqa: E402
from builder.lock import read_lock  # noqa: E402
from builder.recipe import read_recipe  # noqa: E402

pytestmark = pytest.mark.vm

OURS, OTHER = ("arm64", "amd64") if platform.machine() in ("aarch64", "arm64") else ("amd64", "arm64")
NAMES = {"amd64": "x86_64", "arm64": "aarch64"}  # as uname has them
MACHINE = NAMES[OTHER]
PLATFORM = f"linux/{OTHER}"
IMAGE = "test/foreign:latest"
DOCKERFILE = b'FROM test/foreign:latest\nRUN uname -m >/machine && test "$(id -u)" = 0\nCMD ["cat", "/machine"]\n'


def foreign_image(arch: str) -> bytes:
    """The busybox that an architecture's ISO is made of, as an image of that architecture."""
    lock = read_lock(ROOT / f"iso/locks/{arch}-testing.lock")
    assert lock is not None
    package = next(package for package in lock.packages if package.name == "busybox-static")
    deb = cache_folder() / package.file_name
    assert deb.exists() and sha256_of(deb) == package.sha256, f"{deb} is missing: iso/build.py --arch {arch} --force gets it"
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        busybox = archive.extractfile("./usr/bin/busybox")
        assert busybox is not None
        return hello_image(arch, busybox.read(), read_recipe(ROOT / "iso/recipe.toml").hello_applets, {}, lock.epoch, IMAGE)


@pytest.fixture(scope="module")
def foreign(machine: Driver) -> Iterator[Driver]:
    done = machine.wherry("docker", "load", input=foreign_image(OTHER))
    assert done.returncode == 0, done.stderr.decode()
    yield machine
    machine.wherry("docker", "rm", "--force", "foreign-sleeper")
    machine.wherry("docker", "rmi", "--force", IMAGE, "test/built:latest")


def run(machine: Driver, *words: str, image: str = IMAGE) -> str:
    done = machine.wherry("run", "--platform", PLATFORM, image, *words, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def build(machine: Driver, folder: Path) -> None:
    (folder / "Dockerfile").write_bytes(DOCKERFILE)
    words = ("docker", "build", "--platform", PLATFORM, "--no-cache", "-t", "test/built:latest", str(folder))
    done = machine.wherry(*words, timeout=900)
    assert done.returncode == 0, done.stderr.decode()


def test_registered_before_the_engine(foreign: Driver) -> None:
    """F: containers need no interpreter. C: sudo works in them. P: busybox knows by which name it was called."""
    text = foreign.ssh(f"cat /proc/sys/fs/binfmt_misc/qemu-{MACHINE}")
    assert text.startswith("enabled\n")
    flags = re.search(r"^flags: (\w+)$", text, re.MULTILINE)
    assert flags and {"F", "C", "P"} <= set(flags[1]), text


def test_the_exit_code_is_its_own(foreign: Driver) -> None:
    done = foreign.wherry("run", "--platform", PLATFORM, IMAGE, "sh", "-c", "exit 42", timeout=600)
    assert done.returncode == 42, done.stderr.decode()


def test_runs_and_builds_after_a_restart_as_before(foreign: Driver, tmp_path: Path) -> None:
    """Also a container that the engine starts by itself, with the machine."""
    assert run(foreign, "uname", "-m") == MACHINE
    build(foreign, tmp_path)
    assert run(foreign, image="test/built:latest") == MACHINE
    words = ("--platform", PLATFORM, "--name", "foreign-sleeper", "--restart", "always", IMAGE, "sleep", "1000000")
    assert foreign.wherry("run", "-d", *words, timeout=600).returncode == 0
    for _ in range(3 if SOAK else 1):
        assert foreign.wherry("stop", timeout=600).returncode == 0
        foreign.up()
        foreign.wait_for_container("foreign-sleeper")
        assert foreign.docker("exec", "foreign-sleeper", "uname", "-m").strip() == MACHINE
        assert run(foreign, "uname", "-m") == MACHINE
        build(foreign, tmp_path)
        assert run(foreign, image="test/built:latest") == MACHINE


@pytest.mark.soak
def test_the_reverse(driver: Driver) -> None:
    """A machine of the other architecture runs images of ours: by an interpreter of our programs within an emulated machine."""
    driver.up("--arch", OTHER)
    done = driver.wherry("docker", "load", input=foreign_image(OURS))
    assert done.returncode == 0, done.stderr.decode()
    words = ("--platform", f"linux/{OURS}", IMAGE, "sh", "-c", "uname -m; exit 42")
    done = driver.wherry("run", *words, timeout=900)
    assert (done.returncode, done.stdout.decode().strip()) == (42, NAMES[OURS]), done.stderr.decode()
