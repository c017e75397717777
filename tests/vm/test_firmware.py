"""The ISO in other hypervisors: BIOS and UEFI start it, as CD and as disk, and without our seed it is harmless."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from launcher import __version__, isofile
from tests.vm.firmware import GUARD_SECONDS, ROOT, Stranger

pytestmark = pytest.mark.vm

soak = pytest.mark.soak
STARTS = [
    pytest.param("seabios", "cd", id="seabios-cd"),
    pytest.param("ovmf", "cd", id="ovmf-cd"),
    pytest.param("aavmf", "virtio", id="aavmf-virtio", marks=soak),
    pytest.param("seabios", "virtio", id="seabios-virtio", marks=soak),
    pytest.param("seabios", "sata", id="seabios-sata", marks=soak),
    pytest.param("ovmf", "sata", id="ovmf-sata", marks=soak),
    pytest.param("ovmf", "nvme", id="ovmf-nvme", marks=soak),
    pytest.param("ovmf", "scsi-cd", id="ovmf-scsi-cd", marks=soak),
    pytest.param("aavmf", "scsi-cd", id="aavmf-scsi-cd", marks=soak),
]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("firmware", "place"), STARTS)
def test_starts_without_our_seed(firmware: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the engine, and off by the power button; no disk is written, nobody is let in."""
    monkeypatch.setenv("WHERRY_HOME", str(tmp_path / "home"))
    disks = [("", tmp_path / "blank"), ("wherry-data", tmp_path / "ours")]
    for _serial, path in disks:
        path.write_bytes(bytes(16 << 20))
    before = [_sha256(path) for _serial, path in disks]
    stranger = Stranger(firmware, place, disks)
    try:
        stranger.wait_for("wherry-note seed ")
        stranger.wait_for(f"Wherry guest image {__version__}, started without a seed")
        stranger.wait_for("wherry-stage engine ")
        stranger.wait_for("The Docker Engine is up.")
        if firmware == "seabios":
            screen = stranger.screen()
            assert f"Wherry guest image {__version__}, started without a seed" in screen, screen
            assert "The Docker Engine is up." in screen, screen
            assert "login" not in screen.replace("There is no login.", ""), screen
        # That it is refused needs an address, which the guest has asked for.
        assert stranger.answer_of_ssh() == b""
        assert [stranger.writes(f"disk{number}") for number in range(len(disks))] == [0, 0]
        assert stranger.power_off() == 0
        steps = [line.split()[1] for line in stranger.said if line.startswith("wherry-stop ")]
        assert steps[0] == "begin" and steps[-1] == "off", stranger.said
        assert not [line for line in stranger.said if line.startswith(("wherry-fail", "wherry-stage disk", "wherry-stage ssh"))]
    finally:
        stranger.close()
    assert [_sha256(path) for _serial, path in disks] == before


@pytest.mark.soak
@pytest.mark.parametrize("by_firmware", [False, True])
def test_a_root_that_is_missing_is_said(by_firmware: bool, tmp_path: Path) -> None:
    """Kernel and initrd of the ISO with no disk at all, as the launcher would start them and as GRUB does."""
    iso = ROOT / "build/wherry-amd64.iso"
    for inside in (isofile.KERNEL, isofile.INITRD, "/boot/drivers"):
        isofile.extract(iso, inside, tmp_path / Path(inside).name)
    if by_firmware:
        with (tmp_path / "initrd").open("ab") as initrd:
            # The kernel takes the archives one after the other, each at a multiple of four bytes.
            initrd.write(bytes(-initrd.tell() % 4) + (tmp_path / "drivers").read_bytes())
    words = ["-machine", "q35", "-cpu", "max", "-accel", "tcg,thread=single", "-m", "512", "-serial", "stdio", "-vga", "std"]
    words += [
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-kernel",
        str(tmp_path / "vmlinuz"),
        "-initrd",
        str(tmp_path / "initrd"),
    ]
    words += ["-append", "console=tty0 console=ttyS0 panic=-1 quiet loglevel=4"]
    done = subprocess.run(["qemu-system-x86_64", *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=GUARD_SECONDS)
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith("wherry-fail")]
    more = ", and none is the ISO WHERRY_AMD64 that belongs to this kernel" if by_firmware else ""
    assert lines == [f"wherry-fail root no disk has the serial wherry-root{more}"], done
