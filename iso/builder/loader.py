"""The boot loader: GRUB, as BIOS and UEFI start it from the ISO, be that a CD or a disk.

One core image for each kind of firmware, with the few modules that reach the kernel and nothing else; no menu, since there is
nothing to choose and nobody who may log in. The layout is that of grub-mkrescue: El Torito for both firmwares, an MBR that
finds the BIOS image on a disk, and a GPT partition over the FAT image that holds the UEFI program. A start by the launcher
uses none of it.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from pathlib import Path

from builder.log import say
from builder.tools import Tools

_MODULES = ("iso9660", "part_gpt", "part_msdos", "search", "search_label", "normal", "linux", "gzio", "echo", "sleep", "test")
_BIOS = ("biosdisk",)
_UEFI = {"amd64": ("x86_64-efi", "BOOTX64.EFI"), "arm64": ("arm64-efi", "BOOTAA64.EFI")}
# The last console is the one that the guest's lines go to; what concerns a person is said on all of them.
_CONSOLES = {"amd64": "console=tty0 console=ttyS0,115200", "arm64": "console=tty0 console=ttyAMA0"}
_ARGUMENTS = "panic=-1 quiet loglevel=4"

_FIND = """\
search --no-floppy --set=root --label {volume}
set prefix=($root)/boot/grub
"""
# A program that ends gives the firmware its turn; this one waits so that the words can be read.
_START = """\
set timeout=0
echo "Wherry"
if linux /boot/vmlinuz {arguments}; then
    if initrd /boot/initrd /boot/drivers; then
        boot
    fi
fi
echo "The kernel could not be started."
sleep 60
"""


def kernel_arguments(arch: str) -> str:
    """The kernel's command line, one string."""
    return f"{_CONSOLES[arch]} {_ARGUMENTS}"


def script(arch: str) -> str:
    """GRUB's own script, which is read from the ISO."""
    return _START.format(arguments=kernel_arguments(arch))


def make_loader(tools: Tools, modules: Path, arch: str, volume: str, tree: Path, work: Path) -> list[str | Path]:
    """Adds /boot/grub to the ISO's tree; returns what xorriso has to be told. `modules` is GRUB's own usr/lib/grub."""
    say("loader: GRUB")
    folder = tree / "boot/grub"
    folder.mkdir(parents=True)
    (folder / "grub.cfg").write_text(script(arch), encoding="ascii")
    early = work / "early.cfg"
    early.write_text(_FIND.format(volume=volume), encoding="ascii")
    options: list[str | Path] = ["-c", "boot/grub/boot.cat"]
    if arch == "amd64":
        kind = modules / "i386-pc"
        _core(tools, kind, "i386-pc-eltorito", early, (*_BIOS, *_MODULES), folder / "bios.img")
        options += ["-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]
        options += ["--grub2-boot-info", "--grub2-mbr", kind / "boot_hybrid.img", "-eltorito-alt-boot"]
    target, program = _UEFI[arch]
    _core(tools, modules / target, target, early, _MODULES, work / program)
    _system_partition(tools, work / program, f"{volume} {tools.epoch}", folder / "uefi.img")
    options += ["-e", "boot/grub/uefi.img", "-no-emul-boot", "-efi-boot-part", "--efi-boot-image", "--protective-msdos-label"]
    return [*options, "--gpt_disk_guid", uuid.UUID(bytes=_digest(f"{volume} {tools.epoch}")[:16], version=4).hex]


def _core(tools: Tools, folder: Path, target: str, early: Path, names: tuple[str, ...], output: Path) -> None:
    tools.run("grub-mkimage", "-d", folder, "-O", target, "-p", "/boot/grub", "-c", early, "-o", output, *names)


def _system_partition(tools: Tools, program: Path, seed: str, output: Path) -> None:
    """A FAT file system just large enough, with one program in it; mtools takes its times from SOURCE_DATE_EPOCH."""
    kilobytes = -(-program.stat().st_size // 1024) + 64
    sectors = -(-kilobytes // 32) * 64
    serial = _digest(seed)[:4].hex()
    tools.run("mformat", "-i", output, "-C", "-T", str(sectors), "-h", "2", "-s", "32", "-N", serial, "-v", "WHERRY", "::")
    tools.run("mmd", "-i", output, "::/EFI", "::/EFI/BOOT")
    tools.run("mcopy", "-i", output, program, f"::/EFI/BOOT/{program.name}")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def take_modules(root: Path, work: Path) -> Path:
    """Moves GRUB's modules out of the root."""
    shutil.move(root / "usr/lib/grub", work / "grub")
    return work / "grub"
