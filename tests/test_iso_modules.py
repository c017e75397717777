"""Kernel modules on their way into the image."""

from __future__ import annotations

import lzma
import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "iso"))

from builder.log import BuildError
from builder.modules import Kernel, copy_module, without_signature

MODULE = b"\x7fELF" + bytes(range(256)) * 3
MARK = b"~Module signature appended~\n"


def signed(module: bytes, signature: bytes, length: int | None = None) -> bytes:
    """As scripts/sign-file.c leaves it: PKCS#7, so all of the struct but id_type and the length is nought."""
    tail = struct.pack(">BBBBB3xI", 0, 0, 2, 0, 0, len(signature) if length is None else length)
    return module + signature + tail + MARK


def test_a_signature_goes_and_nothing_else() -> None:
    assert without_signature(signed(MODULE, b"\x30\x82" + bytes(261))) == MODULE


def test_what_has_no_signature_stays() -> None:
    assert without_signature(MODULE) == MODULE
    assert without_signature(MODULE + MARK + b"more") == MODULE + MARK + b"more"


def test_a_length_that_cannot_be_is_an_error() -> None:
    with pytest.raises(BuildError, match="longer than the module"):
        without_signature(signed(MODULE, b"", length=len(MODULE) + 1))


@pytest.mark.parametrize("packed", [False, True])
def test_a_module_is_copied_without_it(tmp_path: Path, *, packed: bool) -> None:
    data = signed(MODULE, bytes(263))
    name = "kernel/one.ko.xz" if packed else "kernel/one.ko"
    source = tmp_path / name
    source.parent.mkdir()
    source.write_bytes(lzma.compress(data) if packed else data)
    kernel = Kernel("6", tmp_path, {"one": []}, {"one": name}, frozenset())
    copy_module(kernel, "one", tmp_path / "root/one.ko")
    assert (tmp_path / "root/one.ko").read_bytes() == MODULE
