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
    pytest.mark.soak,  # two to four minutes; its parts are tried without QEMU, and with QEMU from a checkout, each time
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


def test_installed_used_upgraded_and_removed(computer: Computer, tmp_path: Path) -> None:
    context = making(tmp_path / "made", pythons={layout.TARGET: fixture.windows().folder / "python"})
    program = setup.build(layout.lay_out(context, context.pythons[layout.TARGET], ISO), context, "-full")
    home, wherrys = computer.local / "Programs/Wherry", computer.local / "wherry"

    def run(*words: str | Path) -> tuple[int, str]:
        return computer.run(words, timeout=_SECONDS)

    def wherry(*words: str) -> str:
        code, said = run(home / "bin/wherry.exe", *words)
        assert code == 0, f"{words}: {code}\n{said}"
        return said

    before = computer.files()
    assert run(program, "/S") == (0, "")
    wherry("up", "--no-home", "--cpus", "2", "--memory", "1G", "--disk", "4G")  # from the ISO that came along
    status = json.loads(wherry("--json", "status"))
    assert status.get("data", status)["status"] == "running"
    code, said = run(home / "bin/wherry.exe", "run", "wherry/hello", "sh", "-c", "echo from the machine; exit 7")
    assert (code, "from the machine" in said) == (7, True), said
    assert "IMAGE" in wherry("docker", "ps")
    contexts = [json.loads(path.read_text()) for path in computer.drive.glob("users/*/.docker/contexts/meta/*/meta.json")]
    [pipe] = [found["Endpoints"]["docker"]["Host"] for found in contexts]
    assert pipe.startswith("npipe:////./pipe/")
    code, said = run(fixture.windows().folder / PYTHON, "-c", CLIENT, pipe)
    assert (code, "hello" in said) == (0, True), said

    run(program, "/S")
    listed = json.loads(wherry("list", "--json"))["data"]
    assert [(machine["name"], machine["status"]) for machine in listed] == [("default", "stopped")]
    wherry("up")

    copy = shutil.copy(home / "uninstall.exe", computer.folder)
    assert run(copy, "/S", f"_?={computer.inside(home)}")[0] == 0
    assert not home.exists()
    assert (wherrys / "machines/default/data.qcow2").exists(), "nobody was asked"
    assert not list(computer.drive.glob("users/*/.docker/contexts/meta/*/meta.json")), "no context leads to what is gone"
    print(sorted(computer.files() - before), computer.programs())
