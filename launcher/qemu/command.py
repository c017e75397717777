"""QEMU's command line as data: one frozen `Boot` in, one list of words out; nothing is looked up here.

Software emulation and the guest's kernel panics. A QEMU before 8.1 with one host thread for each CPU can translate code while
another CPU writes to its page, and keep the stale translation. Linux patches its own code, at boot and later (static keys: an
int3 first, then the rest); a CPU that runs a stale int3 oopses, "int3: 0000 [#1]". Reported from LKFT in June 2023
("qemu-x86_64 booting with 8.0.0 still see int3"), cured by QEMU commit deba78709ae8 "accel/tcg: Always lock pages before
translation", first in 8.1.0. Measured with kernel 6.12 and 2 CPUs:

    QEMU 7.2.22  thread=multi    3 of 133 boots panicked, at 2 s; a hot static key toggled after boot panicked 4 of 4 guests
                                 within 300 patches; with maxcpus=1 and the CPU brought online later 2 of 2, and 1.7 s lost
                 thread=single   0 of 39 boots, 0 of 4 guests in 500 patches each
    QEMU 8.2.2   thread=multi    0 of 2 guests in 500 patches each
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from launcher.config import MIB
from launcher.qemu.chardevs import Channel, channel_args, quoted

Version = tuple[int, int, int]

# Release that has commit deba78709ae8, see above.
TRANSLATION_RACE_FIXED: Final[Version] = (8, 1, 0)
# Release that has commit a2260983c655 "hvf: arm: Add support for GICv3".
HVF_GICV3: Final[Version] = (8, 0, 0)
_GIC2_CPUS: Final = 8
# MB of translated code that are kept. QEMU's own choice is 1024, which it fills and never gives back. Measured with QEMU 7.2: a
# start fills 242 MB, a container's start 50 more; when it is full all is made anew. With 240 QEMU stayed under 800 MB at rest,
# 100 of its own and 400 of the guest, but what runs much code took twice as long as with 1024: npm 86 s in place of 43, a table
# of file system calls 113 in place of 57, a database on a share 401 in place of 164.
TRANSLATIONS: Final = 512
# Release that surely has the three CPU features of commit "target/i386: add FZRM, FSRS, FSRC".
FAST_STRINGS: Final[Version] = (8, 1, 0)
# What only costs time under emulation. The kernel's ciphers and their noise source are not tested at each start: with
# byte_by_byte the first process came after 2.6 s of CPU, not 3.6. Without its keys it cannot check the modules' signatures
# (ECDSA over P-384, 40 times a start) and loads them all the same, as it would any: what vouches for them is the digest of
# the ISO. The clock is QEMU's and steady, but a busy host makes the kernel doubt it and turn to the HPET, read through QEMU.
EMULATED_KERNEL: Final = (
    "cryptomgr.notests",
    "initcall_blacklist=jent_mod_init,crypto_kdf108_init,load_system_certificate_list",
    "tsc=reliable",
    "init_on_alloc=0",
    "clearcpuid=rep_good",
)
# libvirt's choice, its default for years. spawn=deny means that a migration to `exec:` can not be used; `fd:` and `file:` can.
SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_CPU: Final = ",cpu="  # a rung's own model of CPU; not QEMU's word
# `host` is refused by most WHPX releases and `max` crashes in it ("Unexpected VP exit code 4"): a plain named model.
WHPX_CPU: Final = "qemu64,+aes,+ssse3,+sse4.1,+sse4.2,+popcnt"


@dataclass(frozen=True)
class FileServer:
    """A virtiofsd: the tag by which the guest mounts its folder, and its socket."""

    tag: str
    socket: str


@dataclass(frozen=True)
class Boot:
    """All that was decided for one start of QEMU. Paths are as QEMU sees them, from the machine's directory."""

    name: str
    token: str  # tells our process from one that got its pid later
    arch: str  # amd64 or arm64
    cpus: int
    memory: int  # bytes
    accel: str  # a rung of the ladder: kvm, hvf, "hvf,cpu=cortex-a57", whpx, "whpx,kernel-irqchip=off", tcg
    version: Version  # QEMU's
    kernel: str
    initrd: str
    iso: str
    root_offset: int  # bytes, of the squashfs in the ISO
    root_size: int
    data_disk: str
    seed: tuple[tuple[str, str], ...]  # fw_cfg name, file
    qmp: Channel
    serial: Channel
    sandbox: bool = False  # this QEMU has seccomp
    file_servers: tuple[FileServer, ...] = ()
    data_folder: str = ""  # QEMU's own, with its BIOS, where it does not find that itself
    incoming: bool = False  # it waits for the memory of a guest that was saved, and does not run it by itself


def arguments(boot: Boot) -> list[str]:
    """The words after the program's name."""
    return [
        *identity_args(boot),
        *machine_args(boot),
        *kernel_args(boot),
        *disk_args(boot),
        *device_args(boot),
        *file_server_args(boot),
        *seed_args(boot),
        *channel_args(boot.qmp, boot.serial),
        *sandbox_args(boot),
        *incoming_args(boot),
    ]


def identity_args(boot: Boot) -> list[str]:
    return [
        "-name", f"wherry-{boot.name}-{boot.token}",
        "-no-user-config",
        "-nodefaults",
        "-display", "none",
        "-no-reboot",
        *(["-L", boot.data_folder] if boot.data_folder else []),
    ]  # fmt: skip


def machine_args(boot: Boot) -> list[str]:
    return [
        "-machine", machine_type(boot) + (",memory-backend=shared" if boot.file_servers else ""),
        "-accel", accelerator(boot),
        "-cpu", cpu_model(boot),
        "-smp", str(processors(boot)),
        "-m", str(boot.memory // MIB),
        "-rtc", "base=utc",
    ]  # fmt: skip


def machine_type(boot: Boot) -> str:
    if boot.arch == "amd64":
        return "q35"
    return f"virt,gic-version={gic_version(boot)},highmem=on"


def gic_version(boot: Boot) -> str:
    """The interrupt controller of an arm64 machine. Version 2 has 8 CPUs at most, so 3 wherever it works."""
    match family(boot.accel):
        case "kvm":
            return "host"  # a Raspberry Pi 4 has a version 2, and KVM gives no other
        case "hvf" if boot.version < HVF_GICV3:
            return "2"
        case _:
            return "3"


def processors(boot: Boot) -> int:
    """As many as were chosen, and as the interrupt controller can have: an old QEMU on a Mac has no better one."""
    return min(boot.cpus, _GIC2_CPUS) if boot.arch == "arm64" and gic_version(boot) == "2" else boot.cpus


def family(accel: str) -> str:
    """The accelerator of a rung, without its options."""
    return accel.partition(",")[0]


def accelerator(boot: Boot) -> str:
    return tcg_accel(boot.version) if boot.accel == "tcg" else boot.accel.partition(_CPU)[0]


def tcg_accel(version: Version) -> str:
    """One host thread for each CPU of the guest, but a single one where QEMU has the race told above.

    A restart after a panic would mend the boot only: the same panic can come at any time, when a firewall rule or a CPU limit
    makes the kernel patch itself, and code that a container compiles while it runs meets the same race without a panic to show
    for it. So the slower, right one: all CPUs of the guest then take turns on one host thread.
    """
    thread = "multi" if version >= TRANSLATION_RACE_FIXED else "single"
    return f"tcg,thread={thread},tb-size={TRANSLATIONS}"


def cpu_model(boot: Boot) -> str:
    """`host` only where it cannot fail: a rung never falls back to another accelerator by itself."""
    if named := boot.accel.partition(_CPU)[2]:
        return named
    match family(boot.accel), boot.arch:
        case "tcg", "arm64":
            # QARMA5, which `max` uses to sign pointers, costs more than all other work of a function call when it is emulated.
            return "max,pauth-impdef=on"
        case "tcg", _:
            return ",".join(["max", *(f"{feature}=off" for feature in byte_by_byte(boot.version))])
        case "whpx", "amd64":
            return WHPX_CPU
        case _:
            return "host"


def byte_by_byte(version: Version) -> list[str]:
    """Promises of `max` that `rep stosb` and `rep movsb` are fast. Emulated they go byte by byte, and the kernel clears pages
    with them. Without the promises it takes eight bytes at a time: 0.8 of 15.3 s of CPU to the engine's answer (QEMU 7.2).
    """
    return ["erms", "fsrm", *(["fzrm", "fsrs", "fsrc"] if version >= FAST_STRINGS else [])]


def kernel_args(boot: Boot) -> list[str]:
    console = "ttyS0" if boot.arch == "amd64" else "ttyAMA0"
    words = [f"console={console}", "panic=-1", "quiet", "loglevel=4"]
    if family(boot.accel) == "tcg":
        words += EMULATED_KERNEL
    return [
        "-kernel", boot.kernel,
        "-initrd", boot.initrd,
        "-append", " ".join(words),
    ]  # fmt: skip


def disk_args(boot: Boot) -> list[str]:
    """The squashfs straight out of the ISO; the data disk, whose flushes are honoured and whose freed blocks leave the file.

    werror=stop: a write that this computer refuses holds the machine, whatever the reason. QEMU's default does so for ENOSPC
    alone; a quota or a file's size limit would be a broken disk to the guest, whose file system then gives up.
    """
    iso, data = quoted(boot.iso), quoted(boot.data_disk)
    extent = f"offset={boot.root_offset},size={boot.root_size}"
    freed = "discard=unmap,detect-zeroes=unmap"
    writeback = "cache.direct=off,cache.no-flush=off"
    return [
        "-blockdev", f"driver=file,node-name=iso,filename={iso},read-only=on",
        "-blockdev", f"driver=raw,node-name=root,file=iso,{extent},read-only=on",
        "-device", "virtio-blk-pci,drive=root,serial=wherry-root",
        "-blockdev", f"driver=file,node-name=data-file,filename={data},{writeback},discard=unmap",
        "-blockdev", f"driver=qcow2,node-name=data,file=data-file,{writeback},{freed}",
        "-device", "virtio-blk-pci,drive=data,serial=wherry-data,write-cache=on,werror=stop",
    ]  # fmt: skip


def device_args(boot: Boot) -> list[str]:
    # romfile= empty: packages without the network boot ROMs exist, and nothing boots from the network.
    # ipv6=off: slirp answers IPv6 on hosts that have none, and the guest then waits for it.
    # vmgenid: a guest that goes on from its saved memory is told by ACPI, and its kernel then mixes the random pool anew.
    extra = ["-device", "virtio-keyboard-pci"] if boot.arch == "arm64" else ["-device", "vmgenid,guid=auto"]
    return [
        "-netdev", "user,id=net0,ipv6=off",
        "-device", "virtio-net-pci,netdev=net0,romfile=",
        "-device", "virtio-rng-pci",
        "-device", "virtio-balloon-pci,free-page-reporting=on",
        *extra,
    ]  # fmt: skip


def file_server_args(boot: Boot) -> list[str]:
    """A virtiofsd reads and writes the guest's memory itself (vhost-user), which therefore is a file that both have open."""
    if not boot.file_servers:
        return []
    words = ["-object", f"memory-backend-memfd,id=shared,size={boot.memory // MIB}M,share=on"]
    for number, server in enumerate(boot.file_servers):
        words += ["-chardev", f"socket,id=fs{number},path={quoted(server.socket)}"]
        words += ["-device", f"vhost-user-fs-pci,chardev=fs{number},tag={server.tag}"]
    return words


def seed_args(boot: Boot) -> list[str]:
    """Secrets go by file, never by string=: a command line is public on a host."""
    words = []
    for name, file in boot.seed:
        words += ["-fw_cfg", f"name={name},file={quoted(file)}"]
    return words


def sandbox_args(boot: Boot) -> list[str]:
    return ["-sandbox", SANDBOX] if boot.sandbox else []


def incoming_args(boot: Boot) -> list[str]:
    return ["-S", "-incoming", "defer"] if boot.incoming else []
