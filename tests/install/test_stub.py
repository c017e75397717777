"""wherry.exe by itself, under Wine: what it hands to its Python, and what ends with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from installers.windows import layout
from tests.install.making import making
from tests.install.wineprefix import Computer, fresh
from tests.windows import fixture

ROOT = Path(__file__).parent.parent.parent
HANG = 300  # seconds, for what takes a few
pytestmark = pytest.mark.skipif(fixture.missing() is not None, reason=fixture.missing() or "")

# In place of the launcher: tells what it was given.
PROGRAM = r"""
import json, os, subprocess, sys, time
if sys.argv[1:2] == ["keep"]:  # a keeper, cut loose as the launcher cuts it, and a command that waits
    cut_loose = 0x8 | 0x200 | 0x01000000
    wait = [sys.executable, "-c", "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(600)"]
    keeper = subprocess.Popen([*wait, r"C:\keeper"], creationflags=cut_loose)
    print(json.dumps([keeper.pid, os.getpid()]), flush=True)
    sys.stdin.read()
else:
    read = sys.stdin.buffer.read()
    path = os.environ["PATH"].split(";")
    print(json.dumps({"words": sys.argv[1:], "read": len(read), "path": path, "python": sys.executable}))
    sys.exit(7)
"""
# Ends a process by force, then tells which of others there are.
FORCE = r"""
import ctypes, json, subprocess, sys
k = ctypes.windll.kernel32
def handle(pid):
    return k.OpenProcess(0x100001, False, pid)
stub = subprocess.Popen([sys.argv[1], "keep"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
keeper, python = json.loads(stub.stdout.readline())
watched = handle(python), handle(keeper)
stub.kill()
gone = k.WaitForSingleObject(watched[0], 30000) == 0
alive = k.WaitForSingleObject(watched[1], 1000) == 0x102
k.TerminateProcess(watched[1], 0)  # it has our streams
print(json.dumps([gone, alive]))
"""


@pytest.fixture(scope="module")
def computer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Computer]:
    """With a home of wherry's whose Python has another program in place of the launcher."""
    folder = tmp_path_factory.mktemp("stub")
    context = making(folder)
    with fresh(folder) as found:
        home, source = found.drive / "a home", fixture.windows().folder / "python"
        home.mkdir()
        layout._stub(context, home)
        for path in source.iterdir():
            if path.is_file():
                shutil.copy(path, home / "python" / path.name)
            else:
                (home / "python" / path.name).symlink_to(path)
        (home / f"python/python3{sys.version_info.minor}._pth").write_text("Lib\nDLLs\n.\n..\\mine\n")
        (home / "mine").mkdir()
        (home / "mine/launcher.py").write_text(PROGRAM)
        yield found


@pytest.mark.parametrize("place", ["bin", "python"])
def test_words_input_and_exit_code_go_through(computer: Computer, place: str) -> None:
    words = ["run", "two words", 'a "quote"', "C:\\end\\", "", "é", "*", "--flag=a b"]
    code, said = computer.run([computer.drive / "a home" / place / "wherry.exe", *words], data=bytes(100_000), timeout=HANG)
    assert code == 7, said
    told = json.loads(said)
    assert told["words"] == words
    assert told["read"] == 100_000
    assert told["path"][-1] == r"C:\a home\qemu", "after all others"
    assert told["python"] == r"C:\a home\python\python.exe"


def test_its_python_ends_with_it_and_a_keeper_does_not(computer: Computer) -> None:
    stub = r"C:\a home\bin\wherry.exe"
    code, said = computer.run([fixture.windows().folder / "python/python.exe", "-c", FORCE, stub], timeout=HANG)
    assert code == 0, said
    assert json.loads(said.splitlines()[-1]) == [True, True]


def test_without_its_python_it_says_so(computer: Computer, tmp_path: Path) -> None:
    alone = computer.drive / "alone/bin"
    alone.mkdir(parents=True)
    shutil.copy(computer.drive / "a home/bin/wherry.exe", alone)
    code, said = computer.run([alone / "wherry.exe", "up"], timeout=HANG)
    assert code == 127
    assert re.search(r"its Python cannot be started \(Windows error [23]\)\. Install wherry again\.", said)
    assert os.listdir(alone) == ["wherry.exe"]
