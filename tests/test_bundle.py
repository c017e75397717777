"""doctor --bundle: secrets are planted everywhere, and none is in it."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import store
from launcher.machine.redact import redact, redact_values
from launcher.state import State
from tests.conftest import Said
from tests.fakes import make_iso, make_machine

Wherry = Callable[..., Said]
TOKEN = "0123456789abcdef"
OLD_TOKEN = "fedcba9876543210"

_TOML = """
# the mirror's password is hunter2-comment
[network]
proxy = "http://ana:hunter2-proxy@proxy:3128"

[engine]
debug = true
registry-mirrors = ["https://ana:hunter2-mirror@mirror.example.com", "https://plain.example.com"]
labels = ["password=hunter2-label"]
only-yours = "hunter2-unknown"

[engine.log-opts]
max-size = "5m"
splunk-token = "hunter2-splunk"

[engine.proxies]
http-proxy = "http://ana:hunter2-http@proxy"
"""


@pytest.fixture
def machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> store.MachineDir:
    """A machine with a secret in every place that has one, each with the word hunter2."""
    directory = make_machine()
    directory.config_file.write_text(directory.config_file.read_text() + _TOML)
    for key in (directory.client_key, directory.host_key):
        key.unlink()
        key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2-key\n-----END OPENSSH PRIVATE KEY-----\n")
    for name in ("env", "authorized_keys", "ssh_host_ed25519_key", "daemon.json", "docker-config"):
        (directory.seed_dir / name).write_text("hunter2-seed")
    directory.write_state(
        State(status="failed", token=TOKEN, timeline=[["kernel", 1.0]], last_error={"message": "password: hunter2-e"})
    )
    directory.serial_log.write_bytes(
        b"wherry-stage kernel\r\n-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2-serial\n-----END OPENSSH PRIVATE KEY-----\n"
        b"last line\xff\n"
    )
    directory.qemu_log.write_text(f"qemu: bad\n-name wherry-default-{TOKEN} {TOKEN}\n")
    directory.keeper_log.write_text(
        f"-name wherry-default-{OLD_TOKEN}\nhttp://ana:hunter2-log@host/\n"
        'Authorization: Basic hunter2-auth\n{"identitytoken": "hunter2-id"}\nan end\n'
    )
    make_iso(packages=[{"name": "runc", "version": "1.3.6"}])
    (store.cache_dir() / "qemu.json").write_text('{"format": 1, "accelerators": {}}')
    monkeypatch.setenv("HOME", str(home.parent / "user"))
    docker = home.parent / "user" / ".docker"
    docker.mkdir(parents=True)
    (docker / "config.json").write_text('{"auths": {"registry": {"auth": "hunter2-registry"}}}')
    monkeypatch.setenv("HTTPS_PROXY", "http://ana:hunter2-env@proxy:3128")
    monkeypatch.setenv("DOCKER_HOST", "tcp://ana:hunter2-host@far")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-aws")
    monkeypatch.setenv("GREETING", "hunter2-plain")  # nothing in its name tells of a secret
    return directory


def unpacked(file: Path) -> dict[str, bytes]:
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    found = {}
    with tarfile.open(fileobj=io.BytesIO(file.read_bytes())) as archive:
        for entry in archive.getmembers():
            content = archive.extractfile(entry)
            assert content is not None
            found[entry.name] = content.read()
    return found


@pytest.mark.parametrize("name", ["report.zip", "report.tar.gz", "report.tgz"])
def test_no_secret_is_in_it(name: str, wherry: Wherry, machine: store.MachineDir, tmp_path: Path) -> None:
    target = tmp_path / name
    said = wherry("doctor", "--bundle", str(target))
    files = unpacked(target)
    everything = b"\n".join([*files.values(), *(file.encode() for file in files), said.out.encode(), said.err.encode()])
    for secret in (b"hunter2", TOKEN.encode(), OLD_TOKEN.encode()):
        assert secret not in everything, everything[max(0, everything.find(secret) - 200) :][:400].decode(errors="replace")
    assert set(files) == {
        f"report/{file}"
        for file in (
            "doctor.json", "versions.json", "environment.json", "qemu.json", "machine.json", "state.json", "iso.json",
            "serial.log", "qemu.log", "keeper.log",
        )
    }  # fmt: skip


def test_what_a_maintainer_needs_is_in_it(wherry: Wherry, machine: store.MachineDir, tmp_path: Path) -> None:
    target = tmp_path / "report.zip"
    said = wherry("doctor", "--bundle", str(target))
    files = {name.partition("/")[2]: data for name, data in unpacked(target).items()}
    assert any(check["name"] == "qemu" for check in json.loads(files["doctor.json"]))
    toml = json.loads(files["machine.json"])["machine.toml"]
    assert toml["network"]["proxy"] == "http://***@proxy:3128" and toml["engine"]["debug"] is True
    assert toml["engine"]["registry-mirrors"] == ["https://***@mirror.example.com", "https://plain.example.com"]
    assert toml["engine"]["log-opts"] == {"max-size": "5m", "splunk-token": "***"} and toml["engine"]["only-yours"] == "***"
    assert json.loads(files["machine.json"])["files"]["id_ed25519"][1].endswith("644")
    state = json.loads(files["state.json"])
    assert state["timeline"] == [["kernel", 1.0]] and "token" not in state
    assert json.loads(files["iso.json"])["packages"][0]["version"] == "1.3.6"
    assert b"wherry-stage kernel" in files["serial.log"] and b"last line" in files["serial.log"]
    assert files["keeper.log"].endswith(b"an end\n")
    assert json.loads(files["environment.json"])["HTTPS_PROXY"] == "http://***@proxy:3128"
    assert json.loads(files["versions.json"])["packages"]["paramiko"]
    for name, data in files.items():
        assert name in said.out
        assert name.endswith(".log") or json.loads(data) is not None


def test_it_is_private_and_nothing_is_written_over(wherry: Wherry, machine: store.MachineDir, tmp_path: Path) -> None:
    target = tmp_path / "report.zip"
    target.write_text("precious")
    assert wherry("doctor", "--bundle", str(target)).code == 6
    assert target.read_text() == "precious"
    assert wherry("doctor", "--bundle", str(tmp_path / "report.txt")).code == 2
    assert wherry("doctor", "--bundle", str(tmp_path / "no" / "report.zip")).code == 1
    wherry("doctor", "--bundle", str(target), "--force")
    assert zipfile.is_zipfile(target) and os.stat(target).st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.glob("*report*")) == ["report.zip"]


def test_without_a_machine_and_with_a_damaged_one(wherry: Wherry, home: Path, tmp_path: Path) -> None:
    wherry("doctor", "--bundle", str(tmp_path / "none.zip"))
    assert {name.partition("/")[2] for name in unpacked(tmp_path / "none.zip")} == {
        "doctor.json", "versions.json", "environment.json",
    }  # fmt: skip
    directory = make_machine()
    directory.config_file.write_text('proxy = "hunter2\n')
    directory.state_file.write_text('{"token": "hunter2')
    wherry("doctor", "--bundle", str(tmp_path / "broken.zip"))
    files = unpacked(tmp_path / "broken.zip")
    assert b"cannot be read" in files["broken/machine.json"] and b"cannot be read" in files["broken/state.json"]
    assert b"hunter2" not in b"".join(files.values())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ana:pw@host/x", "http://***@host/x"),
        ("https://a%40b:p@w@host", "https://***@host"),
        ("http://host/a@b", "http://host/a@b"),
        ("password=x y", "password=*** y"),
        ('"registryToken": "x y",', '"registryToken": "***",'),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("wherry-a-b-0123456789abcdef", "wherry-a-b-***"),
        ("the token is told", "the token is told"),
        ("nothing", "nothing"),
    ],
)
def test_redacting(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_redacting_values() -> None:
    assert redact_values({"auths": {"x": 1}, "authorization-plugins": ["p"], "n": [1, "http://a:b@c"]}) == {
        "auths": "***", "authorization-plugins": ["p"], "n": [1, "http://***@c"],
    }  # fmt: skip
    assert redact("a secretless xyz", "xyz") == "a secretless ***"
