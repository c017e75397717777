"""A keeper as it is, with a real QEMU, whose guest is 45 bytes that count on the serial line; its sshd is a server of the test.

`python -m tests.miniguest NAME`, as `python -m launcher.keeper NAME`; SSHD_PORT and REST (a file of calls) in the environment.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import disks, images, isofile, seed
from launcher.identity import new_token
from launcher.keeper import __main__, idle, pulse, rest, starter, stopper
from launcher.keeper.launch import launch
from launcher.keeper.supervisor import Supervisor
from launcher.keeper.watch import Cancelled, Watch
from launcher.qemu import probe, sshport

SHA = "a" * 64
# .code16; cli; dx = 0x3f8; for bx = 1, 2, ...: print "#", bx as four letters a-p, a line feed; wait
_COUNT = bytes.fromhex(
    "fabaf80331db43b023eeb90400c1c30488d8240f0461eee2f4b00aeebec800b9ffffe2fe4e75f8ebdd"
)  # fmt: skip


def kernel() -> bytes:
    """As far as QEMU looks (Linux, Documentation/arch/x86/boot.rst): a setup of one sector behind the first, version 2.02."""
    image = bytearray(1536)
    image[0x1F1] = 1
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x200:0x202] = b"\xeb\x3e"  # to 0x240
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = b"\x02\x02"
    image[0x211] = 1
    image[0x240 : 0x240 + len(_COUNT)] = _COUNT
    return bytes(image)


@dataclass(frozen=True)
class Iso:
    path: Path
    sha256: str = SHA

    def root_extent(self) -> tuple[int, int]:
        return isofile.root_extent(self.path)

    def kernel(self) -> Path:
        return self.path.with_name("vmlinuz")

    def initrd(self) -> Path:
        return self.path.with_name("vmlinuz")


def start(keeper: Supervisor) -> None:
    """From nothing to running, without words of the guest."""
    directory, config = keeper.directory, keeper.config
    disks.examine(directory.data_disk, probe.find_img())
    files = seed.write(directory, config, disks.Holds.NOTHING)
    keeper.watch = Watch(keeper.on_message)
    if keeper.stop_wanted:  # as starter does
        raise Cancelled
    keeper.update(token=new_token(), accel="tcg", timeline=[], qemu_pid=0, qemu_stamp="", ssh_port=0)
    iso, qemu = images.by_sha(config.iso), probe.find("amd64")
    keeper.guest = launch(directory, config, iso, qemu, "tcg", keeper.state.token, files, keeper.watch, keeper.on_qmp_event)
    keeper.update(qemu_pid=keeper.guest.process.pid, qemu_stamp=keeper.guest.process.stamp, engine_version="1.2.3")
    keeper.update(ssh_port=sshport.forward(keeper.guest.qmp))
    keeper.connection()


def play(iso: Path, port: int, calls: Path) -> None:
    """Have this process' keeper run that guest."""
    script = (
        f'echo "$1" >>{calls}; [ "$1" != quiet ] || [ ! -e {calls}.fails ] || exit 3; '
        f'[ "$1" != quiet ] || [ ! -e {calls}.slow ] || sleep 2; [ "$1" != quiet ] || echo 2000; cat >/dev/null'
    )
    changes: list[tuple[Any, str, Any]] = [
        (images, "by_sha", lambda _sha: Iso(iso)),
        (starter, "start", start),
        (sshport, "forward", lambda _monitor: port),
        (
            sshport,
            "connections",
            lambda _monitor: 1 if calls.with_suffix(".client").exists() else 0,
        ),  # its sshd is not behind QEMU
        (rest, "script", lambda: script),
        (idle, "_MINUTE", float(os.environ.get("MINUTE", "60"))),
        (pulse, "_EVERY", 1),
        (stopper, "PATIENCE", float(os.environ.get("PATIENCE", "60"))),
    ]
    for module, name, value in changes:
        setattr(module, name, value)


if __name__ == "__main__":
    play(Path(os.environ["MINI_ISO"]), int(os.environ["SSHD_PORT"]), Path(os.environ["REST"]))
    sys.exit(__main__.main())
