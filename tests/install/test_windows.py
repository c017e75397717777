"""What is made for Windows: looked at as files, then installed, used, installed over and removed under Wine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from installers import bill
from installers.context import Context, Made
from installers.tools import BuildError
from installers.windows import helper, layout, msi, setup, summary
from tests.fakes import FakeKeeper, make_machine
from tests.install.making import making
from tests.install.wineprefix import Computer, fresh
from tests.tinyiso import iso_bytes
from tests.windows import fixture

ROOT = Path(__file__).parent.parent.parent
HANG = 300  # seconds, for what takes a few
needs_wine = pytest.mark.skipif(fixture.missing() is not None, reason=fixture.missing() or "")
needs_nsis = pytest.mark.skipif(shutil.which("makensis") is None, reason="no makensis")

# As users have it: with a variable in it, a name in quotes, a letter that is none of ASCII, and longer than NSIS could hold.
BEFORE = (
    r"%USERPROFILE%\bin;" + '"C:\\Program Files\\Née;s"' + ";" + ";".join(rf"C:\tools\number {number}" for number in range(150))
)


@pytest.mark.parametrize("before", ["", ";", r"C:\a", r"C:\a;", r"%X%\b;;C:\c", BEFORE])
def test_path_gets_one_folder_and_loses_it_again(before: str) -> None:
    ours = r"C:\Users\x\AppData\Local\Programs\Wherry\bin"
    after = helper.added(before, ours)
    assert after.split(";")[-1] == ours
    assert after.startswith(before.rstrip(";"))
    assert helper.added(after, ours) == after
    assert helper.added(f"{ours.upper()}\\;{before}", ours) == f"{ours.upper()}\\;{before}"
    assert helper.removed(after, ours.lower()).strip(";") == before.strip(";")


def test_machines_that_run_are_found_and_stopped(keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "WHERRY", Path(shutil.which("wherry", path=ROOT / ".venv/bin") or "wherry"))
    assert helper.live() == ["default"]
    assert helper.main(["running"]) == helper.RUNS


def test_no_machine_no_question(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "WHERRY", Path(shutil.which("wherry", path=ROOT / ".venv/bin") or "wherry"))
    assert helper.main(["running"]) == 0
    assert helper.main(["stop"]) == 0
    with pytest.raises(SystemExit, match=r"^wherry iso import .*x\.iso: "):
        (home / "iso").mkdir(parents=True)
        (home / "iso/x.iso").write_text("no ISO")
        helper.main(["import", os.fspath(home / "iso")])


def test_who_waits_since_login_is_ended_and_waits_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the Python of this installation, of this user, with these words; nobody else."""
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
        shutil.copy(psutil.Process().exe(), tmp_path / name / "pythonw")
    monkeypatch.setattr(helper, "PYTHON", tmp_path / "ours")
    words = ["-I", "-S", "-c", "import time; print(flush=True); time.sleep(600)", "-m"]
    doorman = [os.fspath(tmp_path / "ours/pythonw"), *words, "launcher.machine.doorman", "default"]
    others = [
        [os.fspath(tmp_path / "ours/pythonw"), *words, "launcher.keeper", "launcher.machine.doorman"],
        [os.fspath(tmp_path / "other/pythonw"), *doorman[1:]],
    ]
    started = [subprocess.Popen(line, stdout=subprocess.PIPE) for line in (doorman, *others)]
    noted = tmp_path / "noted"
    try:
        for process in started:
            assert process.stdout is not None and process.stdout.readline()
        with monkeypatch.context() as patch:
            patch.setattr(psutil.Process, "username", lambda process: "me" if process.pid == os.getpid() else "somebody")
            helper.main(["doormen", "end", os.fspath(noted)])
            assert json.loads(noted.read_text()) == [] and started[0].poll() is None
        helper.main(["doormen", "end", os.fspath(noted)])
        assert not psutil.pid_exists(started[0].pid), "it has ended, and been waited for"
        assert [process.poll() for process in started[1:]] == [None, None]
        for _ in range(2):  # who waits again is not started once more
            helper.main(["doormen", "start", os.fspath(noted)])
            [again] = helper.doormen()
            assert again.cmdline() == doorman and again.cwd() == os.fspath(Path.home())
    finally:
        for ended in helper.doormen():
            ended.kill()
            ended.wait()
        for process in started:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """The tests' own Windows Python, and a folder in place of the 125 MB of QEMU; wheels are kept with the project's builds."""
    qemu = tmp_path_factory.mktemp("qemu")
    (qemu / "share").mkdir()
    (qemu / "share/bios.bin").write_bytes(b"firmware")
    folders = {"pythons": {layout.TARGET: fixture.windows().folder / "python"}, "qemus": {layout.TARGET: qemu}}
    return making(tmp_path_factory.mktemp("windows"), **folders)


@pytest.fixture(scope="module")
def made(context: Context) -> dict[str, Path]:
    return {item.path.suffix: item.path for item in setup.build_all(context)}


def of_windows(program: Path) -> dict[str, int]:
    """Machine, subsystem and time stamp, out of the headers (PE format)."""
    data = program.read_bytes()
    at = int.from_bytes(data[0x3C:0x40], "little")
    assert data[at : at + 4] == b"PE\0\0"
    return {
        "machine": int.from_bytes(data[at + 4 : at + 6], "little"),
        "time": int.from_bytes(data[at + 8 : at + 12], "little"),
        "subsystem": int.from_bytes(data[at + 24 + 68 : at + 24 + 70], "little"),
    }


@needs_wine
@needs_nsis
def test_the_folder(made: dict[str, Path], context: Context) -> None:
    with zipfile.ZipFile(made[".zip"]) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        search = next(name for name in names if name.endswith("._pth"))
        assert archive.read(search).decode().splitlines()[-1] == r"Lib\site-packages"
    assert names == sorted(names, key=lambda name: (Path(name).parent.parts, Path(name).name))
    for name in ("bin/wherry.exe", "python/wherry.exe", "python/python.exe", "setup/helper.py", "qemu/share/bios.bin"):
        assert name in names
    packages = "python/Lib/site-packages"
    assert f"{packages}/launcher/__main__.py" in names
    assert not [name for name in names if "/pytest/" in name or "/docker/" in name or name.endswith(".pyc")]
    modules = {found[1] for found in (re.search(r"\.(cp3\d+)-win", name) for name in names) if found}
    assert modules == {f"cp3{sys.version_info.minor}"}
    stub = of_windows(context.work / "windows/bin/wherry.exe")
    assert stub == {"machine": 0x8664, "time": 0, "subsystem": 3}  # x86-64, of no time, of the console
    assert of_windows(made[".exe"])["machine"] == 0x8664


@needs_wine
def test_the_bill_tells_of_python(context: Context, tmp_path: Path) -> None:
    made = layout.lay_out(context, context.pythons[layout.TARGET], None)
    [python] = made.parts
    assert (python.name, python.version) == ("cpython", f"3.{sys.version_info.minor}")
    program = tmp_path / "setup.exe"
    program.touch()
    found = json.loads(bill.write_bill([Made(program, made.wheels, made.parts)], "1.0", context.epoch, tmp_path).read_text())
    [told] = [item for item in found["components"] if item["name"] == "cpython"]
    assert told["hashes"][0]["content"] == hashlib.sha256(python.file.read_bytes()).hexdigest()
    [uses] = [item["dependsOn"] for item in found["dependencies"] if item["ref"] == "setup.exe"]
    assert told["bom-ref"] in uses


@needs_wine
@needs_nsis
def test_the_same_bytes(made: dict[str, Path], context: Context, tmp_path: Path) -> None:
    again = making(tmp_path, pythons=context.pythons, qemus=context.qemus)
    for item in setup.build_all(again):
        assert item.path.read_bytes() == (context.output / item.path.name).read_bytes(), item.path.name


@needs_wine
def test_the_embeddable_form_of_python_runs(context: Context, tmp_path: Path, computer: Computer) -> None:
    """As python.org packs it: modules in a zip, libraries beside python.exe."""
    source, python = context.pythons[layout.TARGET], tmp_path / "python"
    python.mkdir()
    for file in [*source.glob("*.exe"), *source.glob("*.dll"), *source.glob("DLLs/*")]:
        shutil.copy(file, python)
    with zipfile.ZipFile(python / f"python3{sys.version_info.minor}.zip", "w") as archive:
        for file in sorted((source / "Lib").rglob("*.py")):
            if "site-packages" not in file.parts:
                archive.write(file, file.relative_to(source / "Lib"))
    (python / f"python3{sys.version_info.minor}._pth").write_text("one of its own, which knows no site-packages\n")
    made = layout.lay_out(replace(context, pythons={layout.TARGET: python}), python, None)
    code, said = computer.run([made.root / "bin/wherry.exe", "list", "--json"], timeout=HANG)
    assert (code, json.loads(said)["data"]) == (0, []), said


def test_what_is_no_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "python.exe").touch()
    with pytest.raises(BuildError, match=r"no Python for Windows"):
        setup.build_all(making(tmp_path / "made", pythons={layout.TARGET: tmp_path}))


@pytest.fixture
def computer(tmp_path: Path) -> Iterator[Computer]:
    with fresh(tmp_path) as found:
        yield found


class Installed:
    """A Windows with a setup program that is about to run."""

    def __init__(self, computer: Computer, program: Path) -> None:
        self.computer, self.program = computer, program
        self.home = computer.local / "Programs/Wherry"
        self.python = fixture.windows().folder / "python/python.exe"  # it outlives what is removed

    def run(self, *words: str | Path) -> str:
        code, said = self.computer.run(words, timeout=HANG)
        assert code == 0, f"{words}: {code}\n{said}"
        return said

    def setup(self) -> None:
        self.run(self.program, "/S")
        assert (self.home / "uninstall.exe").exists(), "no effect"

    def wherry(self, *words: str) -> str:
        return self.run(self.home / "bin/wherry.exe", *words)

    def ask(self, code: str) -> str:
        """What a line of Python says of the registry."""
        return self.run(
            self.python, "-I", "-c", f"import winreg as w, sys; sys.stdout.reconfigure(encoding='utf-8'); {code}"
        ).strip()

    def path(self) -> tuple[str, int]:
        """The user's PATH, with the kind of its value (REG_EXPAND_SZ is 2)."""
        text = self.ask("print(ascii(w.QueryValueEx(w.OpenKey(w.HKEY_CURRENT_USER, 'Environment'), 'Path')))")
        value, kind = eval(text)
        return value, kind

    def machine_path(self) -> str:
        """PATH of all users."""
        key = r"w.OpenKey(w.HKEY_LOCAL_MACHINE, r'System\CurrentControlSet\Control\Session Manager\Environment')"
        return self.ask(f"print(w.QueryValueEx({key}, 'PATH')[0])")

    def set_path(self, value: str) -> None:
        key = "w.OpenKey(w.HKEY_CURRENT_USER, 'Environment', 0, w.KEY_WRITE)"
        self.ask(f"w.SetValueEx({key}, 'Path', 0, w.REG_EXPAND_SZ, {value!a})")

    def entry(self) -> dict[str, str | int]:
        """What Windows lists among its programs; empty when it lists nothing of ours."""
        key = r"w.OpenKey(w.HKEY_CURRENT_USER, r'Software\Microsoft\Windows\CurrentVersion\Uninstall\Wherry')"
        code = f"k = {key}; print(ascii(dict(w.EnumValue(k, n)[:2] for n in range(w.QueryInfoKey(k)[1]))))"
        done, said = self.computer.run([self.python, "-I", "-c", f"import winreg as w; {code}"], timeout=HANG)
        assert done == 0 or "FileNotFoundError" in said, said
        return eval(said) if done == 0 else {}

    def managed(self) -> list[str]:
        """The versions of Wherry that Windows lists among the programs of all users."""
        top = r"w.OpenKey(w.HKEY_LOCAL_MACHINE, r'Software\Microsoft\Windows\CurrentVersion\Uninstall')"
        values = "dict(w.EnumValue(k, n)[:2] for n in range(w.QueryInfoKey(k)[1]))"
        code = f"top = {top}; keys = [w.OpenKey(top, w.EnumKey(top, n)) for n in range(w.QueryInfoKey(top)[0])]"
        found = eval(self.ask(f"{code}; print(ascii([{values} for k in keys]))"))
        return sorted(item["DisplayVersion"] for item in found if item.get("DisplayName") == "Wherry")

    def uninstall(self) -> None:
        """From a copy, as it does itself, but one that is waited for."""
        copy = shutil.copy(self.home / "uninstall.exe", self.computer.folder)
        self.run(copy, "/S", f"_?={self.computer.inside(self.home)}")


@needs_wine
@needs_nsis
def test_installed_used_installed_over_and_removed(made: dict[str, Path], context: Context, computer: Computer) -> None:
    before = computer.files()
    this = Installed(computer, made[".exe"])
    this.set_path(BEFORE)
    this.setup()
    ours = computer.inside(this.home / "bin")
    assert this.path() == (f"{BEFORE};{ours}", 2)
    entry = this.entry()
    assert (entry["DisplayVersion"], entry["InstallLocation"]) == (context.version, computer.inside(this.home))
    links = list(computer.drive.rglob("Wherry.lnk"))
    assert [path.parent.name for path in links] == ["Programs"]
    assert any(line in links[0].read_bytes() for line in (b"wherry.exe", "wherry.exe".encode("utf-16-le")))

    assert this.wherry("--version") == f"wherry {context.version}\n"
    doctor = json.loads(this.computer.run([this.home / "bin/wherry.exe", "doctor", "--json"], timeout=HANG)[1])
    about = {item["name"]: item["text"] for item in doctor["data"]["checks"]}
    assert computer.inside(this.home / "python/python.exe") in about["wherry"]
    code, said = computer.run([this.home / "bin/wherry.exe", "run with blanks", 'a "quoted" word', "\\"], timeout=HANG)
    assert code == 2
    assert "run with blanks" in said, "words arrive as they were given"

    theirs = computer.local / "wherry/machines/mine/data.qcow2"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"a user's data")
    stale = this.home / "python/Lib/site-packages/launcher/of_an_older_version.py"
    stale.write_text("# gone in this one\n")
    note = this.home / "note of the user.txt"
    note.write_text("mine")
    this.setup()
    assert not stale.exists()
    assert this.path() == (f"{BEFORE};{ours}", 2), "once, however often it is installed"
    assert this.wherry("--version") == f"wherry {context.version}\n"

    this.uninstall()
    assert [path.name for path in this.home.iterdir()] == ["note of the user.txt"], "what is not ours stays"
    note.unlink()
    this.home.rmdir()
    assert this.path() == (BEFORE, 2)
    assert this.entry() == {}
    assert theirs.read_bytes() == b"a user's data"
    shutil.rmtree(computer.local / "wherry")
    assert computer.files() == before


@pytest.fixture(scope="module")
def managed(context: Context) -> Path:
    [item] = msi.build_all(context)
    return item.path


needs_wixl = pytest.mark.skipif(shutil.which("wixl") is None or shutil.which("msiinfo") is None, reason="no wixl")


def rows(database: Path, table: str) -> list[list[str]]:
    done = subprocess.run(["msiinfo", "export", database, table], capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()[3:]]


@needs_wine
@needs_wixl
def test_the_msi_says_what_it_does(managed: Path, context: Context) -> None:
    properties = dict(rows(managed, "Property"))
    assert properties["ProductVersion"] == msi.product_version(context.version)
    assert properties["ALLUSERS"] == "1"
    [(_, name, value, component)] = rows(managed, "Environment")
    assert name == "*=-PATH", "the machine's, added to, taken away again"
    assert value.startswith("[~];[")
    assert component in {row[0] for row in rows(managed, "Component")}
    order = {row[0]: int(row[2]) for row in rows(managed, "InstallExecuteSequence")}
    assert order["InstallFiles"] < order["WriteEnvironmentStrings"] < order["InstallFinalize"]
    assert order["InstallInitialize"] < order["RemoveEnvironmentStrings"] < order["RemoveFiles"]


@needs_wine
@needs_wixl
def test_the_same_msi(managed: Path, context: Context, tmp_path: Path) -> None:
    """With the date of the lock, and a number that its content has and no other."""
    [again] = msi.build_all(making(tmp_path, pythons=context.pythons, qemus=context.qemus))
    assert again.path.read_bytes() == managed.read_bytes()
    said = subprocess.run(["msiinfo", "suminfo", managed], capture_output=True, text=True, check=True).stdout
    number = re.search(r"\{[-0-9A-F]{36}\}", said)
    assert number
    summary.settle(again.path, uuid.uuid4(), 0)
    other = subprocess.run(["msiinfo", "suminfo", again.path], capture_output=True, text=True, check=True).stdout
    assert "1970" in other
    assert number[0] not in other


@needs_wine
@needs_wixl
def test_the_msi_installed_used_and_removed(managed: Path, context: Context, computer: Computer) -> None:
    this = Installed(computer, managed)
    home = computer.drive / "Program Files/Wherry"
    before = this.machine_path()
    assert "Wherry" not in before
    this.run("msiexec", "/i", managed, "/qn")
    assert this.run(home / "bin/wherry.exe", "--version") == f"wherry {context.version}\n"
    parts = this.machine_path().split(";")
    assert [part.rstrip("\\") for part in parts if part not in before.split(";")] == [r"C:\Program Files\Wherry\bin"]
    assert len(list(home.rglob("*.py"))) > 500
    this.run("msiexec", "/x", managed, "/qn")
    assert not list(home.rglob("*.exe"))
    assert this.machine_path().rstrip(";") == before.rstrip(";")


@needs_wine
@needs_wixl
def test_the_next_msi_takes_the_place_of_the_one_before(
    managed: Path, context: Context, tmp_path: Path, computer: Computer
) -> None:
    """And an older one does not."""
    later = replace(making(tmp_path / "later", pythons=context.pythons, qemus=context.qemus), version="9.1.2")
    root = layout.lay_out(later, later.pythons[layout.TARGET], None)
    (root.root / "setup/new in this one.txt").write_text("x")
    newer = msi.build(root, later)
    this = Installed(computer, managed)
    home, before = computer.drive / "Program Files/Wherry", this.machine_path()
    this.run("msiexec", "/i", managed, "/qn")
    theirs = home / "note of the user.txt"
    theirs.write_text("mine")
    this.run("msiexec", "/i", newer, "/qn")
    assert (home / "setup/new in this one.txt").exists()
    assert this.machine_path().count(r"Wherry\bin") == 1
    assert this.managed() == ["9.1.2"]
    assert this.run(home / "bin/wherry.exe", "--version") == f"wherry {context.version}\n", "its launcher is the same here"
    assert computer.run(["msiexec", "/i", managed, "/qn"], timeout=HANG)[0] != 0
    assert (home / "setup/new in this one.txt").exists()
    this.run("msiexec", "/x", newer, "/qn")
    assert this.managed() == []
    assert this.machine_path().rstrip(";") == before.rstrip(";")
    assert not list(home.rglob("*.exe"))
    assert theirs.read_text() == "mine"


# In place of an installed launcher: a machine that runs, and does not stop while there is a file C:\\stuck.
RUNNING = r"""
import json, pathlib, sys
words = " ".join(sys.argv[1:])
with open(r"C:\said.txt", "a") as file:
    print(words, file=file)
if words == "list --json":
    print(json.dumps({"data": [{"name": "default", "status": "running"}, {"name": "old", "status": "stopped"}]}))
elif words == "stop default" and pathlib.Path(r"C:\stuck").exists():
    sys.exit("it does not stop")
"""


@needs_wine
@needs_nsis
def test_no_file_changes_under_a_machine_that_runs(made: dict[str, Path], computer: Computer) -> None:
    this = Installed(computer, made[".exe"])
    this.setup()
    program = this.home / "python/Lib/site-packages/launcher/__main__.py"
    ours, stuck, said = program.read_bytes(), computer.drive / "stuck", computer.drive / "said.txt"
    copy = shutil.copy(this.home / "uninstall.exe", computer.folder)
    remove = [copy, "/S", f"_?={computer.inside(this.home)}"]
    program.write_text(RUNNING)
    stuck.touch()
    for words in ([this.program, "/S"], remove):
        assert computer.run(words, timeout=HANG)[0] == 2, words
        assert program.read_text() == RUNNING
        assert this.path()[0].endswith(r"Wherry\bin")
        assert this.entry()
    assert said.read_text().split("\n") == ["list --json", "list --json", "stop default"] * 2 + [""]
    stuck.unlink()
    said.unlink()
    this.setup()
    assert said.read_text().split("\n")[-2:] == ["stop default", ""]
    assert program.read_bytes() == ours
    program.write_text(RUNNING)
    said.unlink()
    this.uninstall()
    assert not this.home.exists()
    done = said.read_text().split("\n")
    assert done[-3:] == ["stop default", "uninstall --keep", ""]
    assert not [words for words in done if "--yes" in words or "delete" in words], "nobody was asked"


@needs_wine
@needs_nsis
def test_who_waits_since_login_is_in_nobodys_way(made: dict[str, Path], home: Path, computer: Computer) -> None:
    this = Installed(computer, made[".exe"])
    this.setup()
    shutil.copytree(make_machine().path, computer.local / "wherry/machines/default")
    words = [computer.inside(this.home / "python/python.exe"), "-P", "-m", "launcher.machine.doorman", "default"]
    this.run(this.python, "-I", "-c", f"import subprocess; subprocess.Popen({words!a}, creationflags=8)")
    [before] = doormen(computer)
    this.setup()
    [after] = doormen(computer)
    assert before != after
    this.uninstall()
    assert not this.home.exists() and not doormen(computer)


def doormen(computer: Computer) -> list[int]:
    """Their processes."""
    return [number for number, line in computer.programs().items() if "launcher.machine.doorman" in line]


@needs_wine
@needs_nsis
def test_the_full_edition_takes_its_iso_in(context: Context, tmp_path: Path, computer: Computer) -> None:
    content = iso_bytes()
    manifest = {
        "format": 1, "version": context.version, "architecture": "amd64", "size": len(content), "kernel": "6.12.1",
        "sha256": hashlib.sha256(content).hexdigest(), "engine": "28.5.2", "packages": [],
    }  # fmt: skip
    iso = tmp_path / "wherry-amd64.iso"
    iso.write_bytes(content)
    iso.with_suffix(".json").write_text(json.dumps(manifest))
    this = Installed(computer, setup.build(layout.lay_out(context, context.pythons[layout.TARGET], iso), context, "-full"))
    this.setup()
    [found] = json.loads(this.wherry("iso", "list", "--json"))["data"]
    assert found["sha256"] == manifest["sha256"]


@needs_wine
@needs_nsis
@pytest.mark.soak
def test_the_whole_setup_brings_its_qemu(context: Context, tmp_path: Path, computer: Computer) -> None:
    """With all of QEMU, compressed as for a release."""
    whole = making(tmp_path / "whole", quick=False, pythons=context.pythons)
    [program] = [item.path for item in setup.build_all(whole) if item.path.suffix == ".exe"]
    this = Installed(computer, program)
    this.setup()
    with computer.desktop(this.python):
        doctor = json.loads(this.computer.run([this.home / "bin/wherry.exe", "doctor", "--json"], timeout=HANG)[1])
    about = {item["name"]: item for item in doctor["data"]["checks"]}
    assert about["qemu"]["status"] == "ok", about["qemu"]
    assert computer.inside(this.home / "qemu").lower() in about["qemu"]["text"].lower()
    assert "qemu-img version" in this.run(this.home / "qemu/qemu-img.EXE", "--version")
    said = this.run(this.home / "qemu/qemu-system-x86_64.EXE", "-L", "help")
    assert [line for line in said.splitlines() if line.endswith("Wherry\\qemu/share/")], said
    assert (this.home / "qemu/share/bios-256k.bin").exists(), "where it looks"
    this.uninstall()
    assert not this.home.exists()
