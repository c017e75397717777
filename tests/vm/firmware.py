"""A machine that the launcher knows nothing of: QEMU with firmware and the ISO, as another hypervisor would start it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from launcher.qemu import probe
from launcher.qemu.command import tcg_accel
from launcher.qemu.qmp import Qmp, human, ssh_port

ROOT = Path(__file__).parent.parent.parent
GUARD_SECONDS = 900  # a hang guard, never a measure

_FIRMWARE = {
    "ovmf": ("OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_CODE.fd"),
    "ovmf-vars": ("OVMF/OVMF_VARS_4M.fd", "OVMF/OVMF_VARS.fd"),
    "aavmf": ("AAVMF/AAVMF_CODE.fd", "AAVMF/AAVMF_CODE.no-secboot.fd"),
    "aavmf-vars": ("AAVMF/AAVMF_VARS.fd",),
}
# How the ISO is attached.
_PLACES = {
    "cd": ["-device", "ide-cd,drive=iso"],
    "sata": ["-device", "ide-hd,drive=iso"],
    "virtio": ["-device", "virtio-blk-pci,drive=iso"],
    "nvme": ["-device", "nvme,drive=iso,serial=1"],
    "scsi-cd": ["-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=iso"],
}


class Stranger:
    """One start. Everything that it says on its serial line is kept in `said`."""

    def __init__(self, firmware: str, place: str, disks: Sequence[tuple[str, Path]] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="wherry-fw-"))
        self.arch = "arm64" if firmware == "aavmf" else "amd64"
        self.said: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            self._command(firmware, place, disks), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._qmp: Qmp | None = None

    def _command(self, firmware: str, place: str, disks: Sequence[tuple[str, Path]]) -> list[str]:
        qemu = probe.find(self.arch)
        machine, cpu = ("virt,gic-version=3", "max,pauth-impdef=on") if self.arch == "arm64" else ("q35", "max")
        words = [
            str(qemu.program), "-name", "wherry-firmware", "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
            "-machine", machine, "-cpu", cpu, "-accel", tcg_accel(qemu.version), "-smp", "2", "-m", "1024",
            "-serial", "stdio", "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off",
            "-netdev", "user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22", "-device", "virtio-net-pci,netdev=net0,romfile=",
        ]  # fmt: skip
        if firmware == "seabios":
            words += ["-vga", "std"]
        else:
            # The firmware's settings are a copy of its own: nothing of this system is written.
            shutil.copyfile(_installed(f"{firmware}-vars"), self.folder / "vars.fd")
            words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_installed(firmware)}"]
            words += ["-drive", f"if=pflash,unit=1,format=raw,file={self.folder}/vars.fd"]
        # An overlay in memory, since a SATA disk cannot be read-only; media=cdrom is a name for "may be taken out".
        readonly = "media=cdrom,readonly=on" if "cd" in place else "snapshot=on"
        words += ["-drive", f"if=none,id=iso,format=raw,{readonly},file={ROOT}/build/wherry-{self.arch}.iso", *_PLACES[place]]
        for number, (serial, path) in enumerate(disks):
            words += ["-drive", f"if=none,id=disk{number},format=raw,file={path}"]
            words += ["-device", f"virtio-blk-pci,drive=disk{number},serial={serial}"]
        return words

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.said.append(line.decode(errors="replace").rstrip("\r\n"))
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    def wait_for(self, start: str) -> str:
        """The first line that begins so."""
        deadline = time.monotonic() + GUARD_SECONDS
        with self._more:
            while True:
                for line in self.said:
                    if line.startswith(start):
                        return line
                assert not self._ended, (start, self.said)
                left = deadline - time.monotonic()
                assert left > 0, (start, self.said)
                self._more.wait(left)

    @property
    def qmp(self) -> Qmp:
        if self._qmp is None:
            stream = socket.socket(socket.AF_UNIX)
            stream.connect(str(self.folder / "qmp"))
            self._qmp = Qmp(stream)
            self._qmp.start(lambda _event, _data: None)
        return self._qmp

    def screen(self) -> str:
        """What stands on the screen in text mode: the VGA's memory at B8000, a byte of colour after each character."""
        file = self.folder / "screen"
        self.qmp.execute("pmemsave", val=0xB8000, size=80 * 25 * 2, filename=str(file))
        text = file.read_bytes()[::2].decode("cp437")
        return "\n".join(text[at : at + 80].rstrip() for at in range(0, len(text), 80))

    def answer_of_ssh(self) -> bytes:
        """What comes back from port 22: nothing, once it is refused. Raises TimeoutError when nobody answers at all."""
        with socket.create_connection(("127.0.0.1", ssh_port(self.qmp)), timeout=60) as connection:
            try:
                return connection.recv(64)
            except ConnectionResetError:
                return b""

    def writes(self, device: str) -> int:
        """How often the guest wrote to a disk."""
        found: list[dict[str, Any]] = self.qmp.execute("query-blockstats")
        return int(next(entry["stats"]["wr_operations"] for entry in found if entry.get("device") == device))

    def power_off(self) -> int:
        """The power button; QEMU's exit code."""
        self.qmp.execute("system_powerdown")
        code = self.process.wait(GUARD_SECONDS)
        self._reader.join(60)
        return code

    def monitor(self, command: str) -> str:
        return human(self.qmp, command)

    def close(self) -> None:
        if self._qmp is not None:
            self._qmp.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
        if self.process.stdout is not None:
            self._reader.join(60)
            self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _installed(name: str) -> Path:
    for folder in ("/usr/share", "/usr/share/qemu", "/opt/homebrew/share/qemu"):
        for file in _FIRMWARE[name]:
            if (Path(folder) / file).exists():
                return Path(folder) / file
    pytest.fail(f"there is no firmware {name}: the packages ovmf and qemu-efi-aarch64 (make setup)")
