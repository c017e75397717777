"""Two releases of wherry, each in a venv of its own, over one machine: the newer one takes it over, the older one refuses."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher import control, host
from tests.vm.driver import SOAK, Driver

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parent.parent.parent
OLDER, NEWER = "0.8.0", "0.10.0"
IMAGE = "wherry.internal/hello"


def install(version: str, folder: Path) -> Path:
    """A venv with a wheel of this tree that calls itself `version`; returns its `wherry`.

    What it depends on comes from the venv of the tests: another download of the same would prove nothing.
    """
    tree, venv = folder / "tree", folder / "venv"
    tree.mkdir(parents=True)
    for name in ("launcher", "iso", "provisioning"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    init = tree / "launcher/__init__.py"
    text, changed = re.subn(r'__version__ = ".*"', f'__version__ = "{version}"', init.read_text())
    assert changed == 1
    init.write_text(text)
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=tree)
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    [wheel] = folder.glob("*.whl")
    python = venv / "bin/python"
    run(sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--python", python, "install", "--no-deps", wheel)
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "of-the-tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert run(venv / "bin/wherry", "--version") == f"wherry {version}\n"
    return venv / "bin/wherry"


def run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {version: install(version, tmp_path_factory.mktemp("wheel") / version) for version in (OLDER, NEWER)}


class Two(Driver):
    """A machine that the older wherry started, with a container whose start time is known."""

    def __init__(self, programs: dict[str, Path]) -> None:
        super().__init__()
        self.programs = programs
        self.use(OLDER)

    def use(self, version: str) -> None:
        self.program = self.programs[version]

    def keeper(self) -> psutil.Process:
        [found] = [process for process in self.processes() if "launcher.keeper" in process.cmdline()]
        return found

    def qemu(self) -> psutil.Process:
        [found] = [process for process in self.processes() if process.name().startswith("qemu-system")]
        return found

    def keeper_wherry(self) -> str:
        return str(self.status()["keeper_wherry"])

    def witness(self) -> str:
        return self.docker("inspect", "--format", "{{.State.Status}} {{.State.StartedAt}}", "witness")


@pytest.fixture(scope="module")
def two(programs: dict[str, Path]) -> Iterator[Two]:
    driver = Two(programs)
    try:
        driver.up("--iso", str(ROOT / f"build/wherry-{host.native_arch()}.iso"))
        driver.docker("run", "-d", "--name", "witness", IMAGE, "sleep", "100000")
        yield driver
    finally:
        driver.use(NEWER)
        driver.close()


def test_the_newer_one_takes_over_and_the_older_one_refuses(two: Two) -> None:
    before, qemu, keeper = two.witness(), two.qemu().pid, two.keeper().pid
    assert before.startswith("running")

    # A command of the older one still runs: its keeper goes on, and serves the newer one too.
    with two.popen("ssh", "echo begun; exec sleep 99999", stdout=subprocess.PIPE) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"begun\n"
        two.use(NEWER)
        done = two.wherry("docker", "ps", "-q")
        assert done.returncode == 0, done.stderr.decode()
        assert two.keeper().pid == keeper
        assert two.keeper_wherry() == OLDER
        assert f"of wherry {OLDER}; this is {NEWER}" in two.wherry("status").stdout.decode()
        session.terminate()
    # Looked at without a command of ours, which would take over.
    [socket] = two.path.rglob("control.sock")
    two.wait_until(lambda: control.status(socket)["keeper"]["sessions"] == 0, "the session has ended")

    done = two.wherry("docker", "ps", "--format", "{{.Names}}")
    assert (done.returncode, done.stdout) == (0, b"witness\n"), done.stderr.decode()
    assert done.stderr.decode() == f"wherry: wherry {NEWER} took the machine over from wherry {OLDER}; containers went on\n"
    assert two.keeper_wherry() == NEWER
    assert two.keeper().pid != keeper
    assert two.qemu().pid == qemu
    done = two.wherry("docker", "ps", "-q")
    assert (done.returncode, done.stderr) == (0, b"")
    assert two.witness() == before

    two.use(OLDER)
    done = two.wherry("up")
    assert done.returncode == 6
    assert f"run by wherry {NEWER}; this is wherry {OLDER}" in done.stderr.decode()
    for words, code in ((("docker", "ps"), 125), (("ssh", "true"), 255), (("list",), 0), (("status",), 0)):
        assert two.wherry(*words).returncode == code, words
    two.use(NEWER)
    assert two.witness() == before
    assert two.qemu().pid == qemu


def test_kill_9_in_the_middle_of_the_takeover(two: Two) -> None:
    """Of the command, of the keeper that goes, of the one that comes: the next command finds a machine that never stopped."""
    chance = random.Random(20)
    qemu, before = two.qemu().pid, ""
    for number in range(30 if SOAK else 3):
        # The older one has it again: the files have one format, and nobody keeps the machine.
        two.keeper().kill()
        two.use(OLDER)
        two.up()
        before = before or two.witness()
        two.use(NEWER)
        with two.popen("ssh", "true", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
            time.sleep(chance.uniform(0.1, 1.5))
            victims = {process.pid: process for process in two.processes() if "launcher.keeper" in process.cmdline()}
            victims[command.pid] = psutil.Process(command.pid)
            victim = victims[sorted(victims)[number % len(victims)]]
            victim.kill()
            command.wait(300)
        done = two.wherry("ssh", "true")
        assert done.returncode == 0, (number, done.stderr.decode())
        assert two.keeper_wherry() == NEWER
        assert two.qemu().pid == qemu
    assert two.witness() == before
    assert json.loads(two.wherry("list", "--json").stdout)["data"][0]["status"] == "running"
