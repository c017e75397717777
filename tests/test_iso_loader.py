"""What the boot loader and the launcher must agree on, each door leading to the same kernel and root."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import isofile
from launcher.qemu.command import kernel_args
from tests.test_qemu_command import BOOT

ISO = Path(__file__).parent.parent / "iso"
sys.path.insert(0, str(ISO))

from builder import loader, recipe  # noqa: E402
from builder.hello import hello_image  # noqa: E402

RECIPE = recipe.read_recipe(ISO / "recipe.toml")


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_the_kernel_gets_the_same_arguments_but_for_consoles(arch: str) -> None:
    words = kernel_args(replace(BOOT, arch=arch))
    ours = words[words.index("-append") + 1].split()
    grub = loader.kernel_arguments(arch).split()
    assert [word for word in ours if not word.startswith("console=")] == [
        word for word in grub if not word.startswith("console=")
    ]
    # The guest's lines go to the last console, on the same line as with the launcher.
    assert grub[1].partition(",")[0] == ours[0]
    assert grub[0] == "console=tty0"


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_grub_starts_the_files_that_the_launcher_takes_out(arch: str) -> None:
    script = loader.script(arch)
    assert re.search(rf"^if linux {isofile.KERNEL} .*; then$", script, re.MULTILINE)
    assert f"initrd {isofile.INITRD} /boot/drivers" in script
    assert f"/iso{isofile.ROOT}" in (ISO / "initrd/init").read_text(encoding="utf-8")


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_each_architecture_has_a_loader_and_the_other_ones_interpreter(arch: str) -> None:
    assert RECIPE.loader[arch] and set(RECIPE.loader[arch]) <= RECIPE.keep.keys()
    other = {"amd64": "aarch64", "arm64": "x86_64"}[arch]
    assert f"qemu-{other}" in RECIPE.emulators[arch]
    script = (ISO / "overlay/usr/lib/wherry/binfmt").read_text(encoding="utf-8")
    for name in RECIPE.emulators[arch]:
        assert f"register {name} " in script


def test_an_image_has_the_name_that_it_was_given() -> None:
    assert b'"RepoTags":["test/other:1"]' in hello_image("arm64", b"busybox", ["sh"], {}, 0, "test/other:1")
    assert b'"RepoTags":["wherry.internal/hello:latest"]' in hello_image("arm64", b"busybox", ["sh"], {}, 0)
