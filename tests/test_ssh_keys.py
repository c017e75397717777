"""launcher.ssh.keys: two ed25519 pairs in OpenSSH's format, private, made once."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import paramiko
import pytest

from launcher.errors import WherryError
from launcher.ssh import keys
from launcher.store import MachineDir


@pytest.fixture
def machine(tmp_path: Path) -> MachineDir:
    keys.make_keys(made := MachineDir("box", tmp_path))
    return made


def test_both_pairs_are_there_and_private(machine: MachineDir) -> None:
    assert sorted(path.name for path in machine.path.iterdir()) == [
        "host_ed25519", "host_ed25519.pub", "id_ed25519", "id_ed25519.pub",
    ]  # fmt: skip
    for path in machine.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_halves_belong_together(machine: MachineDir) -> None:
    for private in (machine.client_key, machine.host_key):
        assert paramiko.Ed25519Key.from_private_key_file(str(private)) == keys.read_public(private)
    assert keys.host_public_key(machine) == keys.read_public(machine.host_key)
    assert keys.read_public(machine.client_key) != keys.read_public(machine.host_key)


def test_the_authorized_key_is_one_line_with_the_machine_in_it(machine: MachineDir) -> None:
    line = keys.authorized_key_line(machine)
    kind, _, comment = line.split()
    assert (kind, comment) == ("ssh-ed25519", "wherry-box")
    assert line.endswith("\n")


def test_a_second_call_changes_nothing(machine: MachineDir) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in machine.path.iterdir()}
    keys.make_keys(machine)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in machine.path.iterdir()} == before


def test_a_public_half_that_is_missing_or_wrong_is_written_again(machine: MachineDir) -> None:
    line = keys.authorized_key_line(machine)
    keys.public_file(machine.client_key).unlink()
    keys.public_file(machine.host_key).write_text("ssh-ed25519 AAAA nonsense\n")
    keys.make_keys(machine)
    assert keys.authorized_key_line(machine) == line
    assert paramiko.Ed25519Key.from_private_key_file(str(machine.host_key)) == keys.host_public_key(machine)


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"])
def test_a_damaged_private_key_is_named_and_kept(machine: MachineDir, damage: bytes) -> None:
    machine.client_key.write_bytes(damage)
    with pytest.raises(WherryError, match="id_ed25519 cannot be read as an SSH key"):
        keys.make_keys(machine)
    assert machine.client_key.read_bytes() == damage


def test_a_damaged_public_key_is_named(machine: MachineDir) -> None:
    keys.public_file(machine.host_key).write_text("ssh-ed25519 AAAA nonsense\n")
    with pytest.raises(WherryError, match=r"host_ed25519\.pub cannot be read"):
        keys.host_public_key(machine)


def test_making_keys_does_not_import_paramiko() -> None:
    code = "import sys, launcher.ssh.keys; assert 'paramiko' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_keeper_begins_without_what_needs_a_guest() -> None:
    code = (
        "import sys, launcher.keeper.__main__\n"
        "from launcher.ssh import library\n"
        "slow = {'paramiko', 'cryptography', 'requests', 'click'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "library.load()\n"
        "assert 'paramiko' in sys.modules and 'invoke' in sys.modules and sys.modules['invoke'] is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
