"""Small ISOs with the layout of ours."""

from __future__ import annotations

import io

import pycdlib

KERNEL = b"the kernel " * 1000
INITRD = b"the initrd " * 500
ROOT = b"hsqs" + b"the root" * 4000 + b"odd"


def iso_bytes(volume: str = "WHERRY_AMD64", kernel: bytes | None = KERNEL, root: bytes = ROOT) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, rock_ridge="1.09", vol_ident=volume)
    for folder in ("boot", "live"):
        iso.add_directory(f"/{folder.upper()}", rr_name=folder)
    files = [
        ("/BOOT/VMLINUZ.;1", "vmlinuz", kernel),
        ("/BOOT/INITRD.;1", "initrd", INITRD),
        ("/LIVE/ROOT.SQU;1", "root.squashfs", root),
    ]
    for name, rock_ridge, data in files:
        if data is not None:
            iso.add_fp(io.BytesIO(data), len(data), name, rr_name=rock_ridge)
    output = io.BytesIO()
    iso.write_fp(output)
    iso.close()
    return output.getvalue()
