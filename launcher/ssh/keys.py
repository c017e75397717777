"""The machine's two keys: the client key that logs in, and the guest's host key, which is pinned because we made it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import Damaged, WherryError
from launcher.store import MachineDir, write_private

if TYPE_CHECKING:
    import paramiko
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def public_file(private: Path) -> Path:
    """Where the public half lies: beside the private one, as ssh-keygen puts it."""
    return private.with_name(f"{private.name}.pub")


def make_keys(machine: MachineDir) -> None:
    """Make what is missing of client key and host key. A private key that is there stays; its public half follows it."""
    _make(machine.client_key, f"wherry-{machine.name}")
    _make(machine.host_key, f"wherry-{machine.name}-host")


def damaged_keys(machine: MachineDir) -> list[str]:
    """Names of the private keys that are lost or cannot be read, and of the public halves that do not fit."""
    wrong = []
    for private in (machine.client_key, machine.host_key):
        try:
            line = _public_line(_read(private))
        except WherryError:
            wrong.append(private.name)
            continue
        public = public_file(private)
        if not public.exists() or not public.read_bytes().startswith(line):
            wrong.append(public.name)
    return wrong


def renew_keys(machine: MachineDir) -> None:
    """Set damaged private keys aside, and make what is missing. The guest hears of new keys at its next start: they are in the
    seed."""
    for private in (machine.client_key, machine.host_key):
        try:
            _read(private)
        except WherryError:
            if private.exists():
                private.replace(private.with_name(f"{private.name}.damaged"))
    make_keys(machine)


def authorized_key_line(machine: MachineDir) -> str:
    """The one line of the guest's authorized_keys (sshd(8), AUTHORIZED_KEYS FILE FORMAT)."""
    return public_file(machine.client_key).read_text(encoding="ascii")


def host_public_key(machine: MachineDir) -> paramiko.PKey:
    return read_public(machine.host_key)


def read_public(private: Path) -> paramiko.PKey:
    """The public half of the key pair at `private`. Raises WherryError when it is missing or damaged."""
    import base64

    import paramiko

    try:
        kind, data = public_file(private).read_text(encoding="ascii").split()[:2]
        return paramiko.PKey.from_type_string(kind, base64.b64decode(data, validate=True))
    except (OSError, ValueError, paramiko.SSHException) as error:
        raise _damaged(public_file(private)) from error


def _make(path: Path, comment: str) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if path.exists():
        key = _read(path)
    else:
        key = Ed25519PrivateKey.generate()
        write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    line = _public_line(key) + f" {comment}\n".encode("ascii")
    public = public_file(path)
    if not public.exists() or public.read_bytes() != line:
        write_private(public, line)


def _public_line(key: Ed25519PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def _read(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged(path)
    return key


def _damaged(path: Path) -> WherryError:
    return Damaged(f"{path} cannot be read as an SSH key.", hint="wherry repair")
