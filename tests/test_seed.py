"""The seed's files, and that both sides of provisioning/README.md mean the same names."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from launcher import disks, guestfiles, seed
from launcher.config import MachineConfig, Network
from launcher.errors import WherryError
from launcher.store import MachineDir
from tests.systems import not_on_windows

GIB = 1 << 30
CONFIG = MachineConfig(arch="amd64", cpus=2, memory=2 * GIB, iso="0" * 64)
README = guestfiles.provisioning() / "README.md"


@pytest.fixture
def machine(tmp_path: Path) -> MachineDir:
    made = MachineDir("default", tmp_path)
    made.host_key.write_bytes(b"host key\n")
    made.client_key.write_bytes(b"never in the seed\n")
    made.client_key.with_name("id_ed25519.pub").write_bytes(b"ssh-ed25519 AAAA wherry-default\n")
    return made


def table(heading: str) -> dict[str, str]:
    """The table under a heading of the README: first column, without its backquotes, to second."""
    section = README.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, re.MULTILINE)
    assert rows, f"no table under {heading!r}"
    return dict(rows)


@not_on_windows("modes")
def test_the_files_are_those_of_the_contract_and_private(machine: MachineDir) -> None:
    pairs = dict(seed.write(machine, CONFIG, "nothing"))
    names = set(table("How the seed arrives"))
    assert pairs == {f"opt/wherry/{name}": f"seed/{name}" for name in names}
    assert {path.name for path in machine.seed_dir.iterdir()} == names
    assert {path.stat().st_mode & 0o777 for path in machine.seed_dir.iterdir()} == {0o600}
    assert machine.seed_dir.stat().st_mode & 0o777 == 0o700


def test_the_environment_has_the_names_of_the_contract_in_its_order(machine: MachineDir) -> None:
    contract = table("The environment file")
    values = seed.env_values(machine, CONFIG, "much", seed.USE)
    assert list(values) == list(contract)
    # The contract gives these by value.
    for name, known in (("WHERRY_DATA_HOLDS", disks.Holds), ("WHERRY_DATA_ACTION", seed.ACTIONS)):
        assert re.findall(r"`([a-z]+)`", contract[name]) == list(known)
    for name in ("WHERRY_CONTRACT", "WHERRY_DATA_SERIAL", "WHERRY_DATA_LAYOUT"):
        assert f"`{values[name]}`" in contract[name]
    assert f"`{CONFIG.stop_seconds}` unless set" in contract["WHERRY_STOP_SECONDS"]


def test_the_boot_scripts_use_no_name_that_the_contract_does_not_have() -> None:
    known = set(table("The environment file"))
    # What the guest's own init sets for its scripts, WHERRY_SEED and the like, has a default where it is used.
    for script in sorted((guestfiles.provisioning() / "boot.d").glob("*.sh")):
        used = set(re.findall(r"\$\{?(WHERRY_[A-Z_]+)(?![A-Z_]*:?[-=])", script.read_text(encoding="utf-8")))
        assert used <= known, script.name


def test_the_serial_is_the_one_that_the_launcher_attaches() -> None:
    assert any("wherry-data" in name for name in table_of_devices()) and seed.DATA_SERIAL == "wherry-data"


def table_of_devices() -> list[str]:
    section = README.read_text(encoding="utf-8").partition("\n## What the launcher attaches\n")[2]
    return re.findall(r"^\| (virtio-blk[^|]*) \|", section, re.MULTILINE)


def test_the_files_hold_the_right_halves_of_the_keys(machine: MachineDir) -> None:
    seed.write(machine, CONFIG, "nothing")
    assert (machine.seed_dir / "authorized_keys").read_bytes() == b"ssh-ed25519 AAAA wherry-default\n"
    assert (machine.seed_dir / "ssh_host_ed25519_key").read_bytes() == b"host key\n"
    assert not [path for path in machine.seed_dir.iterdir() if b"never in the seed" in path.read_bytes()]


def test_a_lost_key_is_said(machine: MachineDir) -> None:
    machine.host_key.unlink()
    with pytest.raises(WherryError, match="lost its key host_ed25519"):
        seed.write(machine, CONFIG, "nothing")


def test_two_writes_give_the_same_bytes(machine: MachineDir) -> None:
    seed.write(machine, CONFIG, "nothing")
    first = {path.name: path.read_bytes() for path in machine.seed_dir.iterdir()}
    seed.write(machine, CONFIG, "nothing")
    assert {path.name: path.read_bytes() for path in machine.seed_dir.iterdir()} == first


@pytest.mark.parametrize(("name", "hostname"), [("default", "wherry"), ("arm", "wherry-arm")])
def test_hostname(tmp_path: Path, name: str, hostname: str) -> None:
    assert seed.env_values(MachineDir(name, tmp_path), CONFIG, "much", seed.USE)["WHERRY_HOSTNAME"] == hostname


HOSTILE = {
    "QUOTE": "it's",
    "QUOTES": "''\"'\"''",
    "SUBST": "$(touch pwned) `touch pwned` ${HOME} $HOME",
    "SPLIT": "a b;c&d|e>f<g (h) {i} [j]* ? ~ # !",
    "BACK": "\\ \\' \\n \\\\",
    "EMPTY": "",
    "UMLAUT": "Zürich 東京 🛶",
    "LINE": "x'\\''; touch pwned; '",
    "NUMBER": 30,
}


@not_on_windows("no sh")
def test_sh_reads_back_every_value(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(seed.render_env({f"WHERRY_{name}": value for name, value in HOSTILE.items()}))
    script = "set -eu; set -a; . ./env; set +a; env -0"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
    pairs = (field.partition("=") for field in done.stdout.decode().split("\0"))
    found = {name: value for name, _, value in pairs if name.startswith("WHERRY_")}
    assert found == {f"WHERRY_{name}": str(value) for name, value in HOSTILE.items()}
    assert [path.name for path in tmp_path.iterdir()] == ["env"]


@pytest.mark.parametrize("value", ["a\nB='c'", "a\0b", "\r", "\x1b[31m", "\x7f", "\x85"])
def test_control_characters_are_refused(value: str) -> None:
    with pytest.raises(WherryError, match=r"WHERRY_X .* has a control character"):
        seed.render_env({"WHERRY_X": value})


DEFAULTS: dict[str, Any] = {
    "log-driver": "local",
    "log-opts": {"max-size": "10m", "max-file": "3"},
    "builder": {"gc": {"enabled": True, "defaultKeepStorage": "10GB"}},
    "userland-proxy": False,
}
BOUNDED = {**DEFAULTS, "builder": {"gc": {"enabled": True, "defaultKeepStorage": "10240MB"}}}


@pytest.mark.parametrize(
    ("engine", "changed"),
    [
        ({}, {}),
        ({"debug": True}, {"debug": True}),
        ({"userland-proxy": True}, {"userland-proxy": True}),
        ({"log-opts": {"max-size": "1m"}}, {"log-opts": {"max-size": "1m", "max-file": "3"}}),
        ({"log-driver": "json-file"}, {"log-driver": "json-file"}),
        ({"builder": {"gc": {"enabled": False}}}, {"builder": {"gc": {"enabled": False}}}),
        ({"builder": {"entitlements": {}}}, {"builder": {**BOUNDED["builder"], "entitlements": {}}}),
        ({"log-opts": []}, {"log-opts": []}),
    ],
)
def test_engine_settings_lie_over_the_defaults(engine: dict[str, Any], changed: dict[str, Any]) -> None:
    made = json.loads(seed.render_daemon(DEFAULTS, CONFIG.changed(engine=engine)))
    assert made == {**BOUNDED, **changed}


def test_another_log_driver_does_not_inherit_options_that_it_may_not_know() -> None:
    made = json.loads(seed.render_daemon(DEFAULTS, CONFIG.changed(engine={"log-driver": "journald"})))
    assert made == {key: value for key, value in {**BOUNDED, "log-driver": "journald"}.items() if key != "log-opts"}
    own = {"log-driver": "syslog", "log-opts": {"tag": "x"}}
    assert json.loads(seed.render_daemon(DEFAULTS, CONFIG.changed(engine=own)))["log-opts"] == {"tag": "x"}


def test_the_cache_bound_follows_the_disk_and_the_defaults_stay_as_they_are() -> None:
    made = json.loads(seed.render_daemon(DEFAULTS, CONFIG.changed(disk=20 * GIB)))
    assert made["builder"]["gc"]["defaultKeepStorage"] == "2048MB"
    assert DEFAULTS["builder"]["gc"]["defaultKeepStorage"] == "10GB"


def test_a_date_cannot_be_an_engine_setting() -> None:
    import datetime

    with pytest.raises(WherryError, match=r"\[engine\]"):
        seed.render_daemon(DEFAULTS, CONFIG.changed(engine={"x": datetime.date(2026, 1, 1)}))


@not_on_windows("text files written by the test end lines otherwise")
def test_provision_tar_holds_the_scripts_and_nothing_of_this_computer(tmp_path: Path) -> None:
    (tmp_path / "boot.d").mkdir()
    for name in ("boot.sh", "boot.d/20-b.sh", "boot.d/10-a.sh", "boot.d/README", "README.md", "daemon.json"):
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / "boot.d" / "10-a.sh").chmod(0o600)
    data = seed.pack(tmp_path)
    assert data[257:263] == b"ustar\0"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        entries = archive.getmembers()
        assert [(entry.name, entry.mode) for entry in entries] == [
            ("boot.sh", 0o755),
            ("boot.d", 0o755),
            ("boot.d/10-a.sh", 0o755),
            ("boot.d/20-b.sh", 0o755),
        ]
        assert {(entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {(0, 0, 0, "", "")}
        script = archive.extractfile("boot.d/10-a.sh")
        assert script is not None and script.read() == b"# boot.d/10-a.sh\n"
    (tmp_path / "boot.sh").touch()
    assert seed.pack(tmp_path) == data


def test_a_missing_part_of_wherry_is_said(tmp_path: Path) -> None:
    with pytest.raises(WherryError, match="a part of wherry is missing"):
        seed.pack(tmp_path)


def test_our_own_scripts_and_defaults_are_there(machine: MachineDir) -> None:
    seed.write(machine, CONFIG, "nothing")
    with tarfile.open(machine.seed_dir / "provision.tar") as archive:
        names = archive.getnames()
    assert names[:2] == ["boot.sh", "boot.d"] and len(names) > 2
    made = json.loads((machine.seed_dir / "daemon.json").read_bytes())
    assert made["userland-proxy"] is False
    assert made["log-opts"] == {"max-size": "10m", "max-file": "3"}
    assert made["builder"]["gc"] == {"enabled": True, "defaultKeepStorage": "10240MB"}


def test_the_certificates_of_network_ca_travel_with_the_scripts(machine: MachineDir, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(b"certificates\n")
    trusting = CONFIG.changed(network=Network(ca=str(file)))
    seed.write(machine, trusting, "nothing")
    with tarfile.open(machine.seed_dir / "provision.tar") as archive:
        found = archive.extractfile("ca.pem")
        assert found is not None and found.read() == b"certificates\n"
    file.unlink()
    with pytest.raises(WherryError, match=r"network.ca .* cannot be read"):
        seed.write(machine, trusting, "nothing")


@pytest.mark.parametrize(
    ("proxy", "seen"),
    [
        ("http://proxy.lan:3128", "http://proxy.lan:3128"),
        ("http://127.0.0.1:3128", "http://10.0.2.2:3128"),
        ("http://ana:pass%40@localhost:3128", "http://ana:pass%40@10.0.2.2:3128"),
        ("https://[::1]:3128/", "https://10.0.2.2:3128/"),
        ("http://localhost", "http://10.0.2.2"),
    ],
)
def test_the_engine_fetches_through_the_proxy_as_the_guest_sees_it(proxy: str, seen: str) -> None:
    config = CONFIG.changed(network=Network(proxy=proxy))
    made = json.loads(seed.render_daemon(DEFAULTS, config))
    assert made == {**BOUNDED, "proxies": {"http-proxy": seen, "https-proxy": seen, "no-proxy": seed.NO_PROXY}}
    own = config.changed(engine={"proxies": {"no-proxy": ".lan"}})
    assert json.loads(seed.render_daemon(DEFAULTS, own))["proxies"] == {**made["proxies"], "no-proxy": ".lan"}


@pytest.mark.parametrize("access", ["all", "none", (8080, 5432)])
def test_the_guest_gets_host_access_and_the_range_of_ssh_ports(machine: MachineDir, access: Any) -> None:
    values = seed.env_values(machine, CONFIG.changed(host_access=access), "much", seed.USE)
    assert values["WHERRY_HOST_ACCESS"] == ("8080,5432" if isinstance(access, tuple) else access)
    assert values["WHERRY_SSH_PORTS"] == "19800-19927"


def test_dockerd_gets_one_of_its_two_names_for_the_host() -> None:
    defaults = {**DEFAULTS, "host-gateway-ip": "10.0.2.2"}
    assert json.loads(seed.render_daemon(defaults, CONFIG))["host-gateway-ip"] == "10.0.2.2"
    made = json.loads(seed.render_daemon(defaults, CONFIG.changed(engine={"host-gateway-ips": ["10.9.9.9"]})))
    assert made["host-gateway-ips"] == ["10.9.9.9"] and "host-gateway-ip" not in made
