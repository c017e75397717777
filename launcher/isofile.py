"""What is read out of one ISO file. Raises IsoProblem for a file that is no ISO of ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from launcher import files, host
from launcher.config import ARCHES
from launcher.errors import IsoProblem

# Rock Ridge names, as provisioning/README.md has them.
KERNEL: Final = "/boot/vmlinuz"
INITRD: Final = "/boot/initrd"
ROOT: Final = "/live/root.squashfs"
SECTOR: Final = 2048
_SQUASHFS_MAGIC: Final = b"hsqs"


def arch_of_volume(file: Path) -> str:
    """The architecture that an ISO tells in its volume id. Raises IsoProblem for one that is not ours."""
    arch = volume_arch(file)
    if arch is None:
        raise IsoProblem(f"{file} is no ISO of wherry (there is no {file.with_suffix('.json').name} beside it either).")
    return arch


def volume_arch(file: Path) -> str | None:
    """The same; None for a file that is not ours."""
    with file.open("rb") as source:
        source.seek(16 * SECTOR)  # the primary volume descriptor, ECMA-119 8.4
        descriptor = source.read(SECTOR)
    names = {f"WHERRY_{arch.upper()}": arch for arch in ARCHES}
    volume = descriptor[40:72].decode("ascii", "replace").strip()
    return names.get(volume) if descriptor[1:6] == b"CD001" else None


def extract(iso: Path, inside: str, target: Path) -> None:
    """Take a file out of the ISO; it appears whole or not at all."""
    temporary = files.temporary(target)
    try:
        with temporary.open("xb") as output, _Opened(iso) as opened:
            opened.get_file_from_iso_fp(output, rr_path=inside)
            output.flush()
            os.fsync(output.fileno())
        host.current().replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def root_extent(iso: Path) -> tuple[int, int]:
    """Offset and size in bytes of the squashfs, for a raw block node: so the guest needs neither isofs nor a loop device."""
    with _Opened(iso) as opened:
        record = opened.get_record(rr_path=ROOT)
        # Whole sectors, as they lie in the ISO: QEMU refuses a size that is no multiple of 512.
        offset, size = record.extent_location() * SECTOR, -(-record.get_data_length() // SECTOR) * SECTOR
    with iso.open("rb") as file:
        file.seek(offset)
        if file.read(4) != _SQUASHFS_MAGIC:
            raise IsoProblem(f"{ROOT} in {iso} is no squashfs.")
    return offset, size


class _Opened:
    """The ISO by pycdlib, whose errors become ours."""

    def __init__(self, iso: Path) -> None:
        self._iso = iso

    def __enter__(self) -> Any:
        # Here and not above: pycdlib costs as much as the rest of a short command.
        import pycdlib
        from pycdlib.pycdlibexception import PyCdlibException

        self._foreign = PyCdlibException
        self._opened = pycdlib.PyCdlib()
        try:
            self._opened.open(os.fspath(self._iso))
        except PyCdlibException as error:
            raise IsoProblem(f"{self._iso} is no ISO of wherry: {error}") from error
        return self._opened

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._opened.close()
        if isinstance(error, self._foreign):
            raise IsoProblem(f"{self._iso} is no ISO of wherry: {error}") from error
