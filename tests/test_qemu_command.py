"""The whole command line for each system, word by word, and that a real QEMU takes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.qemu import command
from launcher.qemu.chardevs import OutputFile, Stdio, UnixListener
from launcher.qemu.command import Boot, FileServer, arguments

BOOT = Boot(
    name="default",
    token="0123456789abcdef",
    arch="amd64",
    cpus=2,
    memory=2048 << 20,
    accel="kvm",
    version=(7, 2, 22),
    kernel="/cache/iso/aa/vmlinuz",
    initrd="/cache/iso/aa/initrd",
    iso="/cache/iso/aa/wherry.iso",
    root_offset=20480,
    root_size=115343360,
    data_disk="data.qcow2",
    seed=(("opt/wherry/env", "seed/env"), ("opt/wherry/provision.tar", "seed/provision.tar")),
    qmp=UnixListener(7),
    serial=UnixListener(8),
)
ARM = replace(BOOT, arch="arm64")

IDENTITY = [
    "-name", "wherry-default-0123456789abcdef",
    "-no-user-config",
    "-nodefaults",
    "-display", "none",
    "-no-reboot",
]  # fmt: skip
KERNEL = [
    "-kernel", "/cache/iso/aa/vmlinuz",
    "-initrd", "/cache/iso/aa/initrd",
]  # fmt: skip
DISKS = [
    "-blockdev", "driver=file,node-name=iso,filename=/cache/iso/aa/wherry.iso,read-only=on",
    "-blockdev", "driver=raw,node-name=root,file=iso,offset=20480,size=115343360,read-only=on",
    "-device", "virtio-blk-pci,drive=root,serial=wherry-root",
    "-blockdev", "driver=file,node-name=data-file,filename=data.qcow2,cache.direct=off,cache.no-flush=off,discard=unmap",
    "-blockdev", "driver=qcow2,node-name=data,file=data-file,cache.direct=off,cache.no-flush=off,"
                 "discard=unmap,detect-zeroes=unmap",
    "-device", "virtio-blk-pci,drive=data,serial=wherry-data,write-cache=on,werror=stop",
]  # fmt: skip
DEVICES = [
    "-netdev", "user,id=net0,ipv6=off",
    "-device", "virtio-net-pci,netdev=net0,romfile=",
    "-device", "virtio-rng-pci",
    "-device", "virtio-balloon-pci,free-page-reporting=on",
]  # fmt: skip
PC = [*DEVICES, "-device", "vmgenid,guid=auto"]
SEED = [
    "-fw_cfg", "name=opt/wherry/env,file=seed/env",
    "-fw_cfg", "name=opt/wherry/provision.tar,file=seed/provision.tar",
]  # fmt: skip
UNIX = [
    "-chardev", "socket,id=qmp,fd=7,server=on,wait=off",
    "-mon", "chardev=qmp,mode=control",
    "-chardev", "socket,id=serial,fd=8,server=on,wait=off",
    "-serial", "chardev:serial",
]  # fmt: skip
STDIO = [
    "-chardev", "stdio,id=qmp,signal=off",
    "-mon", "chardev=qmp,mode=control",
    "-chardev", r"file,id=serial,path=\\.\pipe\wherry-default-1a2b3c4d-serial",
    "-serial", "chardev:serial",
    "-chardev", "file,id=lock,path=lock.qemu",
]  # fmt: skip


def machine(kind: str, accel: str, cpu: str) -> list[str]:
    return [
        "-machine", kind,
        "-accel", accel,
        "-cpu", cpu,
        "-smp", "2",
        "-m", "2048",
        "-rtc", "base=utc",
    ]  # fmt: skip


def append(console: str, *more: str) -> list[str]:
    return ["-append", " ".join([f"console={console} panic=-1 quiet loglevel=4", *more])]


def test_linux_kvm() -> None:
    assert arguments(replace(BOOT, sandbox=True)) == [
        *IDENTITY,
        *machine("q35", "kvm", "host"),
        *KERNEL, *append("ttyS0"),
        *DISKS,
        *PC,
        *SEED,
        *UNIX,
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ]  # fmt: skip


def test_linux_tcg() -> None:
    assert arguments(replace(BOOT, accel="tcg", version=(8, 1, 0))) == [
        *IDENTITY,
        *machine("q35", "tcg,thread=multi,tb-size=512", "max,erms=off,fsrm=off,fzrm=off,fsrs=off,fsrc=off"),
        *KERNEL, *append("ttyS0", *command.EMULATED_KERNEL),
        *DISKS,
        *PC,
        *SEED,
        *UNIX,
    ]  # fmt: skip


def test_linux_tcg_arm64() -> None:
    assert arguments(replace(ARM, accel="tcg", version=(8, 1, 0))) == [
        *IDENTITY,
        *machine("virt,gic-version=3,highmem=on", "tcg,thread=multi,tb-size=512", "max,pauth-impdef=on"),
        *KERNEL, *append("ttyAMA0", *command.EMULATED_KERNEL),
        *DISKS,
        *DEVICES, "-device", "virtio-keyboard-pci",
        *SEED,
        *UNIX,
    ]  # fmt: skip


def test_macos_hvf_arm64() -> None:
    assert arguments(replace(ARM, accel="hvf", version=(9, 2, 0))) == [
        *IDENTITY,
        *machine("virt,gic-version=3,highmem=on", "hvf", "host"),
        *KERNEL, *append("ttyAMA0"),
        *DISKS,
        *DEVICES, "-device", "virtio-keyboard-pci",
        *SEED,
        *UNIX,
    ]  # fmt: skip


def test_windows_whpx() -> None:
    channels = {"qmp": Stdio("lock.qemu"), "serial": OutputFile(r"\\.\pipe\wherry-default-1a2b3c4d-serial")}
    boot = replace(BOOT, accel="whpx,kernel-irqchip=off", version=(10, 2, 91), **channels)
    assert arguments(boot) == [
        *IDENTITY,
        *machine("q35", "whpx,kernel-irqchip=off", "qemu64,+aes,+ssse3,+sse4.1,+sse4.2,+popcnt"),
        *KERNEL, *append("ttyS0"),
        *DISKS,
        *PC,
        *SEED,
        *STDIO,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "thread"),
    [((7, 2, 22), "single"), ((8, 0, 5), "single"), ((8, 1, 0), "multi"), ((10, 2, 91), "multi")],
)
def test_a_qemu_that_keeps_stale_translations_gets_one_thread(version: command.Version, thread: str) -> None:
    words = arguments(replace(BOOT, accel="tcg", version=version))
    assert words[words.index("-accel") + 1] == f"tcg,thread={thread},tb-size=512"


@pytest.mark.parametrize(
    ("arch", "accel", "cpu"),
    [
        ("amd64", "kvm", "host"),
        ("amd64", "hvf", "host"),
        ("arm64", "hvf", "host"),
        ("arm64", "hvf,cpu=cortex-a57", "cortex-a57"),
        ("amd64", "whpx", command.WHPX_CPU),
        ("arm64", "kvm", "host"),
        ("arm64", "whpx", "host"),
        ("amd64", "tcg", "max,erms=off,fsrm=off"),
        ("arm64", "tcg", "max,pauth-impdef=on"),
    ],
)
def test_cpu_of_every_rung(arch: str, accel: str, cpu: str) -> None:
    assert command.cpu_model(replace(BOOT, arch=arch, accel=accel)) == cpu


def test_a_rungs_own_model_is_no_word_of_the_accelerator() -> None:
    assert [command.accelerator(replace(BOOT, accel=rung)) for rung in ("hvf,cpu=cortex-a57", "whpx,kernel-irqchip=off")] == [
        "hvf", "whpx,kernel-irqchip=off",
    ]  # fmt: skip


def test_a_feature_that_this_qemu_does_not_know_is_not_named() -> None:
    """It would end with "Property not found"."""
    old, new = (set(command.byte_by_byte(version)) for version in ((8, 0, 5), (8, 1, 0)))
    assert new - old == {"fzrm", "fsrs", "fsrc"}
    assert old < new


@pytest.mark.parametrize(
    ("accel", "version", "gic"),
    [
        ("kvm", (7, 2, 0), "host"),
        ("hvf", (7, 2, 0), "2"),
        ("hvf", (8, 0, 0), "3"),
        ("tcg", (7, 2, 0), "3"),
        ("whpx", (10, 2, 0), "3"),
    ],
)
def test_interrupt_controller_of_every_rung(accel: str, version: command.Version, gic: str) -> None:
    boot = replace(ARM, accel=accel, version=version, cpus=10)
    assert command.gic_version(boot) == gic
    assert command.processors(boot) == (8 if gic == "2" else 10)
    assert command.processors(replace(boot, arch="amd64")) == 10


def test_commas_in_paths_are_doubled_where_qemu_splits_at_them() -> None:
    boot = replace(BOOT, kernel="/a,b/vmlinuz", initrd="/a,b/initrd", iso="/a,b/wherry.iso", data_disk="d,ata.qcow2")
    boot = replace(boot, seed=(("opt/wherry/env", "se,ed/env"),))
    words = arguments(boot)
    assert words[words.index("-kernel") + 1] == "/a,b/vmlinuz"
    assert words[words.index("-initrd") + 1] == "/a,b/initrd"
    assert "driver=file,node-name=iso,filename=/a,,b/wherry.iso,read-only=on" in words
    assert any(word.startswith("driver=file,node-name=data-file,filename=d,,ata.qcow2,") for word in words)
    assert "name=opt/wherry/env,file=se,,ed/env" in words


@pytest.mark.parametrize(("boot", "kind"), [(BOOT, "q35"), (ARM, "virt,gic-version=host,highmem=on")])
def test_who_serves_files_has_the_guests_memory(boot: Boot, kind: str) -> None:
    servers = FileServer("data-1", "/run/w,1/fs0.sock"), FileServer("only", "/run/w,1/fs1.sock")
    words = arguments(replace(boot, file_servers=servers))
    assert words[words.index("-machine") + 1] == f"{kind},memory-backend=shared"
    first = words.index("-object")
    assert words[first : first + 10] == [
        "-object", "memory-backend-memfd,id=shared,size=2048M,share=on",
        "-chardev", "socket,id=fs0,path=/run/w,,1/fs0.sock",
        "-device", "vhost-user-fs-pci,chardev=fs0,tag=data-1",
        "-chardev", "socket,id=fs1,path=/run/w,,1/fs1.sock",
        "-device", "vhost-user-fs-pci,chardev=fs1,tag=only",
    ]  # fmt: skip
    without = [word for word in words if word not in words[first : first + 10]]
    assert [word.removesuffix(",memory-backend=shared") for word in without] == [
        word for word in arguments(boot) if word not in words[first : first + 10]
    ]


def test_no_secret_is_in_the_command_line() -> None:
    assert not [word for word in arguments(BOOT) if "string=" in word]
