"""What a keeper finds in the machine's folder when it begins, and what it leaves there for `repair`."""

from __future__ import annotations

import logging

from launcher import files, host
from launcher.config import GIB, MachineConfig
from launcher.errors import Damaged
from launcher.keeper import virtiofsd
from launcher.store import MachineDir

log = logging.getLogger("wherry.keeper")


def config(directory: MachineDir, only_stop: bool) -> MachineConfig:
    """What was decided. To end a machine its architecture is enough, which is this computer's unless machine.toml says more."""
    try:
        return directory.read_config()
    except Damaged:
        if not only_stop:
            raise
        return MachineConfig(arch=host.native_arch(), cpus=1, memory=GIB, iso="")


def clean(directory: MachineDir) -> None:
    """What killed commands and keepers left of a machine that does not run."""
    virtiofsd.end_left(directory)
    sweep(directory)


def sweep(directory: MachineDir) -> None:
    """Files that a killed process left half-written."""
    for folder in (directory.path, directory.seed_dir):
        for path in files.sweep(folder):
            log.info("removed %s, which a killed process left", path)


def remember_config(directory: MachineDir) -> None:
    """A machine.toml with which the machine became ready is worth keeping, should the file be lost."""
    try:
        now = directory.config_file.read_bytes()
        good = directory.good_config_file
        if not good.exists() or good.read_bytes() != now:
            files.write_private(good, now)
    except OSError as error:
        log.warning("machine.toml.good: %s", error)
