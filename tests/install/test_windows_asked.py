"""setup.exe and uninstall.exe with a user before them, under Wine: what they ask, and what an answer does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from installers.windows import layout, setup
from tests.install.making import making
from tests.install.wineprefix import Computer, fresh
from tests.windows import fixture

HANG = 300  # seconds, for what takes a few
DIALOGS = Path(__file__).with_name("dialogs.py")
OK, CANCEL, YES, NO = 1, 2, 6, 7
pytestmark = [
    pytest.mark.skipif(fixture.missing() is not None, reason=fixture.missing() or ""),
    pytest.mark.skipif(shutil.which("makensis") is None, reason="no makensis"),
]

# In place of an installed launcher: a machine that runs until it is stopped.
RUNNING = r"""
import json, pathlib, sys
words = " ".join(sys.argv[1:])
with open(r"C:\said.txt", "a") as file:
    print(words, file=file)
stopped = pathlib.Path(r"C:\stopped")
if words == "list --json":
    print(json.dumps({"data": [{"name": "default", "status": "stopped" if stopped.exists() else "running"}]}))
elif words == "stop default":
    stopped.touch()
"""


class Desk:
    """A user, a Windows, and a wherry on it whose machine runs."""

    def __init__(self, computer: Computer, program: Path) -> None:
        self.computer, self.program, self.home = computer, program, computer.local / "Programs/Wherry"
        self.python = fixture.windows().folder / "python/python.exe"
        self.said = computer.drive / "said.txt"
        self.launcher = self.home / "python/Lib/site-packages/launcher/__main__.py"
        self.remover = computer.folder / "remover.exe"
        assert computer.run([program, "/S"], timeout=HANG)[0] == 0
        shutil.copy(self.home / "uninstall.exe", self.remover)  # else it would run a copy of itself, and end
        self.launcher.write_text(RUNNING)

    def run(self, words: list[str | Path], *answers: tuple[str, int]) -> tuple[int, list[str]]:
        """A program with a user: its exit code, and what its windows said when they were answered."""
        told = [f"{text}={button}" for text, button in answers]
        with ThreadPoolExecutor(1) as beside:
            running = beside.submit(self.computer.run, words, timeout=HANG)
            try:
                code, seen = self.computer.run([self.python, "-I", DIALOGS, *told], timeout=HANG)
                assert code == 0, seen
            except BaseException:
                self.computer.end()
                raise
            return running.result()[0], [json.loads(line) for line in seen.splitlines()]

    def install(self, *answers: tuple[str, int]) -> tuple[int, list[str]]:
        return self.run([self.program], ("Click Install to start", OK), *answers)

    def remove(self, *answers: tuple[str, int]) -> tuple[int, list[str]]:
        words: list[str | Path] = [self.remover, f"_?={self.computer.inside(self.home)}"]
        return self.run(words, ("Uninstall Wherry", OK), *answers)

    def calls(self) -> list[str]:
        """What was asked of wherry, but for the list of machines."""
        return [line for line in self.said.read_text().splitlines() if line != "list --json"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    (folder / "qemu").mkdir()
    pythons = {layout.TARGET: fixture.windows().folder / "python"}
    context = making(folder, pythons=pythons, qemus={layout.TARGET: folder / "qemu"})
    return setup.build(layout.lay_out(context, pythons[layout.TARGET], None), context)


@pytest.fixture
def desk(program: Path, tmp_path: Path) -> Iterator[Desk]:
    with fresh(tmp_path) as computer:
        computer.draw_nothing()
        yield Desk(computer, program)


def test_no_machine_is_stopped_unasked(desk: Desk) -> None:
    code, said = desk.install(("A machine of Wherry runs", CANCEL), ("Installation Aborted", CANCEL))
    assert code == 1
    assert any("It is shut down cleanly before the new version is put in place" in line for line in said)
    code, _ = desk.remove(("A machine of Wherry runs", CANCEL), ("Aborted", CANCEL))
    assert code == 1
    assert desk.calls() == []
    assert desk.launcher.read_text() == RUNNING, "nothing is changed"
    code, said = desk.install(("A machine of Wherry runs", OK), ("wherry up", OK))
    assert code == 0
    assert "Wherry is installed. Open a new terminal" in said[-1]
    assert desk.calls() == ["stop default"]
    assert desk.launcher.read_text() != RUNNING


@pytest.mark.parametrize(
    ("answers", "verb"),
    [
        ((("Keep your machines", YES),), "uninstall --keep"),
        ((("Keep your machines", NO), ("This cannot be taken back", NO)), "uninstall --keep"),
        ((("Keep your machines", NO), ("This cannot be taken back", YES)), "uninstall --yes"),
    ],
    ids=["kept", "not deleted after all", "deleted"],
)
def test_its_removal_asks_what_becomes_of_machines(answers: tuple[tuple[str, int], ...], verb: str, desk: Desk) -> None:
    code, said = desk.remove(("A machine of Wherry runs", OK), *answers, ("Uninstall was completed", OK))
    assert code == 0
    assert desk.calls() == ["stop default", verb]
    assert r"\AppData\Local\wherry" in said[2], "where they are"
    assert not desk.home.exists()
