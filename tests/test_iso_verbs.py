"""wherry iso: list, pull, import, build, verify, prune, with small ISOs and no network but a server of our own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher import __version__, files, guestfiles, host, store
from launcher.images.partial import PREFIX
from tests.conftest import Said
from tests.fakes import CONFIG
from tests.isoserver import IsoServer, well
from tests.tinyiso import ROOT, iso_bytes

ROOT_FOLDER = Path(__file__).parent.parent
Wherry = Callable[..., Said]
ONE, TWO = iso_bytes(), iso_bytes(root=ROOT + b"two" * 2000)
PACKAGES = [{"name": "docker.io", "version": "28.5.2", "architecture": "amd64", "sha256": "d" * 64}]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def describe(data: bytes, **more: Any) -> dict[str, Any]:
    return {
        "format": 1, "version": __version__, "architecture": "amd64", "built": "2026-01-02T03:04:05Z", "unlocked": False,
        "sha256": sha(data), "size": len(data), "packages": PACKAGES, **more,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def no_checkout(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guestfiles, "checkout", lambda: None)
    monkeypatch.delenv("WHERRY_MIRRORS", raising=False)
    monkeypatch.delenv("WHERRY_RELEASE", raising=False)


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, data: bytes, **more: Any) -> Path:
        file = tmp_path / name
        file.write_bytes(data)
        file.with_suffix(".json").write_text(json.dumps(describe(data, **more)))
        return file

    return write


Put = Callable[..., Path]


def pin(monkeypatch: pytest.MonkeyPatch, folder: Path, data: bytes, mirrors: list[str]) -> None:
    file = folder / "release.toml"
    file.write_text(
        f'mirrors = {json.dumps(mirrors)}\n[iso.amd64]\nfile = "wherry-amd64.iso"\nsha256 = "{sha(data)}"\nsize = {len(data)}\n'
    )
    monkeypatch.setenv("WHERRY_RELEASE", str(file))


def machine_of(name: str, data: bytes) -> store.MachineDir:
    return store.create(name, replace(CONFIG, iso=sha(data)), lambda made: None)


def here(home: Path) -> set[str]:
    return set(os.listdir(home / "cache" / "iso"))


def test_import_and_list(wherry: Wherry, put: Put) -> None:
    assert wherry("iso", "list").err == "There is no ISO yet; wherry up gets one.\n"
    done = wherry("iso", "import", str(put("one.iso", ONE)))
    assert (done.code, done.out) == (0, f"{sha(ONE)}\n"), done.err
    wherry("iso", "import", str(put("two.iso", TWO, unlocked=True)))
    machine_of("default", ONE)
    age = f"2026-01-02, {int((time.time() - 1767323045) // 86400)} days ago"
    head, two, one = (re.split(" {3,}", line) for line in wherry("iso", "list").out.splitlines())
    assert head == ["ISO", "ARCH", "VERSION", "BUILT", "SIZE", "FROM", "MACHINES"]
    assert two == [sha(TWO)[:12], "amd64", __version__, age, "113 kB", "file, unlocked", "-"]
    assert one[:2] + one[5:] == [sha(ONE)[:12], "amd64", "file", "default"]
    data = json.loads(wherry("iso", "list", "--json").out)["data"]
    assert [(item["sha256"], item["machines"], item["origin"]) for item in data] == [
        (sha(TWO), [], "file"),
        (sha(ONE), ["default"], "file"),
    ]
    assert wherry("iso", "list", "-q").out.split() == [sha(TWO), sha(ONE)]


def test_import_of_what_does_not_verify(wherry: Wherry, put: Put, home: Path) -> None:
    file = put("one.iso", ONE)
    file.write_bytes(ONE[:-1] + b"x")
    done = wherry("iso", "import", str(file))
    assert done.code == 7 and "does not verify" in done.err
    assert here(home) == set()


def test_pull(wherry: Wherry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    server = IsoServer()
    server.paths = {"/wherry-amd64.iso": well(ONE), "/wherry-amd64.json": well(json.dumps(describe(ONE)).encode())}
    try:
        pin(monkeypatch, tmp_path, ONE, [server.url()])
        assert "not here.   wherry iso pull --arch amd64" in wherry("iso", "list").err
        done = wherry("iso", "pull", "--arch", "amd64")
        assert (done.code, done.out) == (0, f"{sha(ONE)}\n"), done.err
        assert json.loads(wherry("download", "--arch", "amd64", "--json").out)["data"]["sha256"] == sha(ONE)
        assert len(server.asked("/wherry-amd64.iso")) == 1
        assert "release, pinned" in wherry("iso", "list").out
        server.paths["/other.iso"] = well(TWO)
        done = wherry("iso", "pull", f"{server.url('/other.iso')}#sha256={sha(TWO)}")
        assert (done.code, done.out) == (0, f"{sha(TWO)}\n"), done.err
    finally:
        server.close()


def test_pull_without_a_pin_or_a_mirror(wherry: Wherry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = wherry("iso", "pull", "--arch", "amd64")
    assert done.code == 7 and "has no ISO for amd64" in done.err and "wherry iso import FILE" in done.err
    pin(monkeypatch, tmp_path, ONE, [])
    done = wherry("iso", "pull", "--arch", "amd64")
    assert done.code == 7 and f"wherry iso import wherry-amd64.iso, the one with SHA-256 {sha(ONE)[:12]}" in done.err
    assert wherry("iso", "pull", "https://x/a.iso").code == 2
    assert wherry("iso", "pull", "a.iso").code == 2


@pytest.mark.parametrize("words", [("up",), ("init",)])
def test_iso_of_up_is_a_file_or_an_address_with_a_hash(wherry: Wherry, words: tuple[str, ...], tmp_path: Path) -> None:
    done = wherry(*words, "--iso", str(tmp_path / "none.iso"))
    assert done.code == 2 and "there is no file" in done.err
    done = wherry(*words, "--iso", "https://x/a.iso")
    assert done.code == 2 and "#sha256=" in done.err
    assert not store.machine("default").exists()


def test_the_pinned_one_comes_before_what_was_imported(
    wherry: Wherry, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher import images
    from launcher.report import SilentReporter

    wherry("iso", "import", str(put("one.iso", ONE)))
    wherry("iso", "import", str(put("two.iso", TWO)))
    assert images.resolve("amd64", None, SilentReporter()).sha256 == sha(TWO)
    pin(monkeypatch, tmp_path, ONE, [])
    assert images.resolve("amd64", None, SilentReporter()).sha256 == sha(ONE)


def test_a_checkout_takes_its_own_when_the_pinned_one_cannot_be_had(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher import images
    from launcher.report import SilentReporter

    class Told(SilentReporter):
        said = ""

        def warn(self, text: str) -> None:
            self.said += text

    (tmp_path / "build").mkdir()
    put("build/wherry-amd64.iso", TWO)
    monkeypatch.setattr(guestfiles, "checkout", lambda: tmp_path)
    pin(monkeypatch, tmp_path, ONE, [])
    told = Told()
    assert images.resolve("amd64", None, told).sha256 == sha(TWO)
    assert told.said.endswith("Taking what this checkout has.")


@pytest.mark.parametrize(
    "text", ["mirrors = 3", "[iso.amd64]\nfile = 1", "iso.amd64 = {file = '../x', sha256 = 'a', size = 1}", "{"]
)
def test_a_release_file_that_is_none(wherry: Wherry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "release.toml").write_text(text)
    monkeypatch.setenv("WHERRY_RELEASE", str(tmp_path / "release.toml"))
    done = wherry("iso", "pull", "--arch", "amd64")
    assert done.code == 7 and "release.toml cannot be read" in done.err


def test_verify(wherry: Wherry, put: Put, home: Path) -> None:
    assert wherry("iso", "verify").err == "There is no ISO here.\n"
    wherry("iso", "import", str(put("one.iso", ONE)))
    wherry("iso", "import", str(put("two.iso", TWO, unlocked=True)))
    done = wherry("iso", "verify")
    assert (done.code, done.out.count("  ok\n")) == (0, 2), done.err
    assert "unlocked" in done.err
    assert wherry("iso", "verify", sha(ONE)[:6]).out.count("  ok\n") == 1
    assert wherry("iso", "verify", "0" * 12).code == 7


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wherry.iso", "SHA-256 is"),
        ("vmlinuz", "vmlinuz is not what is in the ISO"),
        ("initrd", "initrd is not what is in the ISO"),
        ("extent.json", "extent.json is not where"),
        ("manifest.json", "is damaged"),
    ],
)
def test_verify_finds_what_was_changed(wherry: Wherry, put: Put, home: Path, name: str, says: str) -> None:
    wherry("iso", "import", str(put("one.iso", ONE)))
    file = home / "cache" / "iso" / sha(ONE) / name
    file.chmod(0o600)
    data = file.read_bytes()
    file.write_bytes(data[:-20] + b"Y" * 20)
    done = wherry("iso", "verify")
    assert (
        done.code == 7 and "damaged" in done.out and says.replace("cannot be read", "damaged") in done.err.replace("\n", " ")
    ), done
    verdict = json.loads(wherry("iso", "verify", "--json").out)["data"][0]
    assert verdict["ok"] is False and verdict["problems"]


def test_verify_of_a_file(wherry: Wherry, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put("one.iso", ONE)
    assert wherry("iso", "verify", str(file)).code == 0
    file.write_bytes(ONE[:-1])
    done = wherry("iso", "verify", str(file))
    assert done.code == 7 and "its SHA-256 is" in done.err
    file.with_suffix(".json").unlink()
    done = wherry("iso", "verify", str(file))
    assert done.code == 7 and "nothing to verify" in done.err
    file.write_bytes(ONE)
    pin(monkeypatch, tmp_path, ONE, [])
    assert wherry("iso", "verify", str(file)).code == 0


BUILDER = """
import json, pathlib, sys
words = sys.argv[1:]
output = pathlib.Path(words[words.index("--output") + 1])
output.mkdir(parents=True, exist_ok=True)
here = pathlib.Path(__file__).parent
print("building", file=sys.stderr)
(here / "words").write_text(json.dumps(words))
if (here / "fails").exists():
    print("error: no such package", file=sys.stderr)
    sys.exit(1)
arch = words[words.index("--arch") + 1]
(output / f"wherry-{arch}.iso").write_bytes((here / "result.iso").read_bytes())
(output / f"wherry-{arch}.json").write_bytes((here / "result.json").read_bytes())
"""


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose build takes no time; it writes down the words of its call."""
    folder = tmp_path / "project" / "iso"
    (folder / "locks").mkdir(parents=True)
    (folder / "build.py").write_text(BUILDER)
    (folder / "result.iso").write_bytes(ONE)
    (folder / "result.json").write_text(json.dumps(describe(ONE)))
    (folder / "locks" / "amd64-testing.lock").write_text(f"# date: x\ndocker.io 28.5.2 amd64 testing {'d' * 64}\n")
    monkeypatch.setattr(guestfiles, "guest_root", lambda: folder.parent)
    return folder


def words_of(builder: Path) -> list[str]:
    words: list[str] = json.loads((builder / "words").read_text())
    return words


def test_build(wherry: Wherry, builder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = wherry("iso", "build", "--arch", "amd64", "--fast")
    assert (done.code, done.out) == (0, f"{sha(ONE)}\n") and "building" in done.err
    assert words_of(builder) == [
        "--arch", "amd64", "--output", str(home / "cache" / "build"), "--version", __version__, "--fast",
    ]  # fmt: skip
    assert "building" not in wherry("iso", "build", "--arch", "amd64", "-q").err
    (builder / "fails").touch()
    done = wherry("iso", "build", "--arch", "amd64", "--json")
    assert done.code == 7 and "error: no such package" in json.loads(done.out)["error"]["detail"]
    monkeypatch.setattr(host.current(), "NAME", "macos")
    done = wherry("iso", "build", "--arch", "amd64")
    assert done.code == 4 and "wherry iso pull" in done.err


def test_rebuild(wherry: Wherry, put: Put, builder: Path) -> None:
    wherry("iso", "import", str(put("one.iso", ONE)))
    machine_of("default", ONE)
    done = wherry("iso", "verify", "--rebuild")
    assert (done.code, done.out) == (0, f"its      {sha(ONE)}\nrebuilt  {sha(ONE)}\nthe same\n"), done.err
    words = words_of(builder)
    assert words[:3] == ["--arch", "amd64", "--output"] and words[4:] == ["--locked", "--force"]
    assert not Path(words[3]).exists()


def test_a_rebuild_that_differs_says_why(wherry: Wherry, put: Put, builder: Path) -> None:
    file = put("two.iso", TWO, unlocked=True, version="0.0.9", packages=[], rebuild={"fast": True})
    done = wherry("iso", "verify", "--rebuild", str(file))
    assert done.code == 7 and "NOT the same" in done.out and sha(ONE) in done.out and sha(TWO) in done.out
    assert "(unlocked)" in done.err and "docker.io - -> 28.5.2" in done.err and "it is of wherry 0.0.9" in done.err
    assert "(--fast)" in done.err
    data = json.loads(wherry("iso", "verify", "--rebuild", str(file), "--json").out)["data"]
    assert data["same"] is False and len(data["notes"]) == 4


def test_prune_keeps_what_is_needed(
    wherry: Wherry, put: Put, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [iso_bytes(root=ROOT + bytes([number]) * 4000) for number in range(6)]
    own, back, asleep, pinned, newest, nobody = contents
    for number, data in enumerate([*contents[:4], nobody, newest]):
        assert wherry("iso", "import", str(put(f"{number}.iso", data))).code == 0
    directory = machine_of("default", own)
    directory.rollback_file.write_text(json.dumps({"iso": sha(back)}))
    directory.suspend_file.write_text(json.dumps({"iso": sha(asleep)}))
    for name in (f"{PREFIX}{'0' * 64}", f"{PREFIX}{'0' * 64}.json", f"{PREFIX}{'1' * 64}.json"):
        (home / "cache" / "iso" / name).write_bytes(b"part")
    (home / "cache" / "iso" / ".import-left").mkdir()
    done = wherry("iso", "prune")
    assert done.code == 6 and sha(nobody)[:12] in done.err and "a download that broke off" in done.err
    assert sha(newest)[:12] not in done.err and sha(pinned)[:12] in done.err
    done = wherry("iso", "prune", "--yes", "--json")
    assert done.code == 0, done.out
    assert {sha(data) for data in (own, back, asleep, newest)} == here(home)
    pin(monkeypatch, home, newest, [])
    directory.rollback_file.unlink()
    wherry("iso", "prune", "--yes")
    assert {sha(data) for data in (own, asleep, newest)} == here(home)
    assert wherry("iso", "prune", "--yes").err == "There is nothing to remove.\n"


def test_prune_removes_nothing_while_a_need_is_not_known(wherry: Wherry, put: Put, home: Path) -> None:
    wherry("iso", "import", str(put("one.iso", ONE)))
    wherry("iso", "import", str(put("two.iso", TWO)))
    directory = machine_of("dev", TWO)
    before = here(home)
    directory.config_file.write_text("version = ")
    done = wherry("iso", "prune", "--yes")
    assert done.code == 6 and "'dev' needs is not known" in done.err and "machine.toml" in done.err
    assert here(home) == before


def test_prune_leaves_the_cache_to_a_command_that_works_on_it(wherry: Wherry, put: Put, home: Path) -> None:
    wherry("iso", "import", str(put("one.iso", ONE)))
    (home / "cache" / "iso" / f"{PREFIX}{'0' * 64}").write_bytes(b"part")
    for lock in (home / "cache" / "iso.lock", home / "machines" / ".create.lock"):
        lock.parent.mkdir(exist_ok=True)
        held = host.current().lock(lock, wait=True)
        assert held is not None
        done = wherry("iso", "prune", "--yes")
        os.close(held)
        assert done.code == 6 and "Try again when it is done" in done.err
    assert wherry("iso", "prune", "--yes").code == 0
    assert here(home) == {sha(ONE)}


def test_what_a_command_without_a_lock_is_writing_stays(wherry: Wherry, put: Put, home: Path) -> None:
    wherry("iso", "import", str(put("one.iso", ONE)))
    living = files.temporary(home / "cache" / "iso" / sha(ONE) / "origin.json")
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    dead = living.with_name(f".origin.json.{gone.pid}-00000000")
    for file in (living, dead):
        file.touch()
    assert wherry("iso", "prune", "--yes").code == 0
    assert living.exists() and not dead.exists()


def make_pin(build: Path, release: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT_FOLDER / ".ci" / "pin.py"), "--build", str(build), "--release", str(release)]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT_FOLDER)


def test_make_pin(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.images import pins

    release = tmp_path / "release.toml"
    original = (ROOT_FOLDER / "launcher" / "release.toml").read_text()
    release.write_text(original.replace("mirrors = []", 'mirrors = ["https://one.example/w/", "https://two.example"]'))
    put("wherry-amd64.iso", ONE)
    arm = iso_bytes(volume="WHERRY_ARM64")
    put("wherry-arm64.iso", arm, architecture="arm64")
    assert make_pin(tmp_path, release).returncode == 0
    monkeypatch.setenv("WHERRY_RELEASE", str(release))
    found = pins.release()
    manifest = sha((tmp_path / "wherry-amd64.json").read_bytes())
    assert found.pins["amd64"] == pins.Pin("wherry-amd64.iso", sha(ONE), len(ONE), manifest)
    assert found.pins["arm64"].sha256 == sha(arm)
    assert found.urls(found.pins["amd64"])[0] == "https://one.example/w/wherry-amd64.iso"
    monkeypatch.setenv("WHERRY_MIRRORS", "https://a/x, http://b")
    assert pins.release().mirrors == ("https://a/x", "http://b")
    assert release.read_text().startswith(original.split("\n")[0])


@pytest.mark.parametrize(
    ("change", "says"),
    [({"unlocked": True}, "LOCKED=1"), ({"version": "0.0.1"}, "version 0.0.1"), ({"size": 1}, "not the one")],
)
def test_what_is_not_pinned(put: Put, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    release = tmp_path / "release.toml"
    release.write_text("mirrors = []\n")
    put("wherry-amd64.iso", ONE)
    put("wherry-arm64.iso", iso_bytes(volume="WHERRY_ARM64"), architecture="arm64", **change)
    done = make_pin(tmp_path, release)
    assert done.returncode == 1 and says in done.stderr
    assert release.read_text() == "mirrors = []\n"


def test_the_release_file_can_be_read() -> None:
    from launcher.images import pins

    pins.release()


def test_a_machine_whose_cache_was_emptied_gets_its_iso_again(
    put: Put, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher.machine.create import UpOptions, change
    from launcher.report import SilentReporter

    directory = machine_of("default", ONE)
    silent = SilentReporter()
    change(directory, UpOptions(), silent)  # not known where from: the start says what to do
    server = IsoServer(paths={"/wherry-amd64.iso": well(ONE)})
    try:
        pin(monkeypatch, tmp_path, TWO, [server.url()])
        change(directory, UpOptions(), silent)
        assert not server.requests
        pin(monkeypatch, tmp_path, ONE, [server.url()])
        change(directory, UpOptions(), silent)
        assert here(home) == {sha(ONE)}
    finally:
        server.close()
    shutil.rmtree(home / "cache")
    (tmp_path / "build").mkdir()
    monkeypatch.setattr(guestfiles, "checkout", lambda: tmp_path)
    monkeypatch.delenv("WHERRY_RELEASE")
    put("build/wherry-amd64.iso", TWO)
    change(directory, UpOptions(), silent)
    assert not (home / "cache").exists()
    put("build/wherry-amd64.iso", ONE)
    change(directory, UpOptions(), silent)
    assert here(home) == {sha(ONE)}


def test_a_machine_keeps_its_iso_whatever_up_is_given(put: Put) -> None:
    from launcher.errors import Usage
    from launcher.images import parse_source
    from launcher.machine.create import UpOptions, change
    from launcher.report import SilentReporter

    directory = machine_of("default", ONE)
    change(directory, UpOptions(iso=parse_source(str(put("one.iso", ONE)))), SilentReporter())
    for other in (str(put("two.iso", TWO)), f"https://nowhere.invalid/x.iso#sha256={sha(TWO)}"):
        with pytest.raises(Usage, match="keeps the ISO"):
            change(directory, UpOptions(iso=parse_source(other)), SilentReporter())
