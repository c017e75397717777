"""As a user of Windows has it, under Wine: the full edition of setup.exe, with all of QEMU and the ISO.

A machine, a container, an upgrade under the machine that runs, and nothing left afterwards but the machine and the ISO.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from installers.windows import layout, setup
from tests.install.making import making
from tests.install.wineprefix import Computer, fresh
from tests.windows import fixture

ROOT: Final = Path(__file__).parent.parent.parent
ISO: Final = ROOT / "build/wherry-amd64.iso"
_SECONDS: Final = 600  # a hang guard: emulated, and within Wine
pytestmark = [
    pytest.mark.skipif(fixture.missing() is not None, reason=fixture.missing() or ""),
    pytest.mark.skipif(shutil.which("makensis") is None, reason="no makensis"),
    pytest.mark.skipif(not ISO.exists(), reason=f"there is no {ISO.name}: make iso"),
]


# docker's library for Python, through the named pipe that the context names.
CLIENT: Final = """
import docker, sys
client = docker.DockerClient(base_url=sys.argv[1])
print(*(tag for image in client.images.list() for tag in image.tags))
"""
PYTHON: Final = Path("python/python.exe")  # of the fixture: it outlives what is removed


@pytest.fixture
def computer(tmp_path: Path) -> Iterator[Computer]:
    with fresh(tmp_path) as found, found.desktop(fixture.windows().folder / PYTHON):
        yield found


class Installed:
    """A Windows with wherry on it."""

    def __init__(self, computer: Computer) -> None:
        self.computer, self.home, self.data = computer, computer.local / "Programs/Wherry", computer.local / "wherry"

    def run(self, *words: str | Path) -> tuple[int, str]:
        return self.computer.run(words, timeout=_SECONDS)

    def wherry(self, *words: str) -> str:
        code, said = self.run(self.home / "bin/wherry.exe", *words)
        assert code == 0, f"{words}: {code}\n{said}\n{self.logs()}"
        return said

    def machines(self) -> dict[str, str]:
        return {found["name"]: found["status"] for found in json.loads(self.wherry("list", "--json"))["data"]}

    def contexts(self) -> list[str]:
        """Where docker's contexts lead."""
        files = self.computer.drive.glob("users/*/.docker/contexts/meta/*/meta.json")
        return [json.loads(path.read_text())["Endpoints"]["docker"]["Host"] for path in files]

    def logs(self) -> str:
        files = [self.data / "machines/default" / name for name in ("keeper.log", "qemu.log", "serial.log")]
        return "\n".join(f"{file.name}:\n{file.read_text(errors='replace')[-3000:]}" for file in files if file.exists())


@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["kept", "upgraded and deleted"])
def test_installed_used_and_removed(again: bool, computer: Computer, tmp_path: Path) -> None:
    """What is installed over it stops the machine; so does what removes it, which leaves only what has been told."""
    context = making(tmp_path / "made", pythons={layout.TARGET: fixture.windows().folder / "python"})
    program = setup.build(layout.lay_out(context, context.pythons[layout.TARGET], ISO), context, "-full")
    this, before = Installed(computer), computer.files()
    assert this.run(program, "/S") == (0, "")
    this.wherry("up", "--no-home", "--cpus", "2", "--memory", "1G", "--disk", "4G")  # from the ISO that came along
    assert this.machines() == {"default": "running"}
    code, said = this.run(this.home / "bin/wherry.exe", "run", "wherry/hello", "sh", "-c", "echo from the machine; exit 7")
    assert (code, "from the machine" in said) == (7, True), said
    assert "IMAGE" in this.wherry("docker", "ps")
    [pipe] = this.contexts()
    assert pipe.startswith("npipe:////./pipe/")
    code, said = this.run(fixture.windows().folder / PYTHON, "-c", CLIENT, pipe)
    assert (code, "hello" in said) == (0, True), said

    if again:
        assert this.run(program, "/S")[0] == 0
        assert this.machines() == {"default": "stopped"}
        this.wherry("up")
        helper = [this.home / "python/python.exe", "-I", this.home / "setup/helper.py"]
        assert this.run(*helper, "delete") == (0, ""), "what uninstall.exe does after two answers"
    copy = shutil.copy(this.home / "uninstall.exe", computer.folder)
    assert this.run(copy, "/S", f"_?={computer.inside(this.home)}")[0] == 0
    assert not this.home.exists()
    assert this.contexts() == [], "no context leads to what is gone"
    assert not [line for line in computer.programs().values() if "launcher" in line or "qemu" in line.lower()]
    left = {name for name in computer.files() - before if not name.endswith(("/.docker", "/contexts", "/meta"))}
    if again:
        assert not left
    else:
        assert (this.data / "machines/default/data.qcow2").exists(), "nobody was asked"
        assert {Path(name).relative_to("users").parts[1:5] for name in left} == {
            ("AppData", "Local", "wherry"), ("AppData", "Local", "wherry", "machines"), ("AppData", "Local", "wherry", "Cache"),
        }  # fmt: skip
