"""What is promised about the inside of the machine."""

from __future__ import annotations

import json
import re

import pytest

from tests.vm.driver import Driver

pytestmark = pytest.mark.vm


def test_sshd_and_the_resolver_are_the_only_listeners(machine: Driver) -> None:
    lines = machine.ssh("netstat -ltnu").splitlines()
    sockets = [line.split()[3] for line in lines if line.startswith(("tcp", "udp"))]
    assert sorted(sockets) == ["10.0.2.15:22", "10.0.2.53:53", "10.0.2.53:53"]


def test_containers_do_not_reach_our_sshd(machine: Driver) -> None:
    """By the guest's address, the bridge's, and through slirp by the host's; a port of the host that is not ours stays open."""
    port = machine.status()["ssh_port"]
    places = f"10.0.2.15:22 172.17.0.1:22 10.0.2.2:{port}"
    script = f"for to in {places}; do nc -w 3 ${{to%%:*}} ${{to##*:}} </dev/null | head -c 3; done; echo end"
    done = machine.wherry("run", "wherry/hello", "sh", "-c", script, timeout=120)
    assert done.stdout == b"end\n", done
    # The probe itself works: from the guest, where it is allowed, the banner comes.
    assert machine.ssh(f"nc -w 3 10.0.2.2 {port} </dev/null | head -c 3") == "SSH"


def test_the_limits_that_save_a_search(machine: Driver) -> None:
    values = machine.ssh("sysctl -n vm.max_map_count fs.inotify.max_user_watches fs.inotify.max_user_instances").split()
    assert values == ["262144", "1048576", "8192"]
    assert "1048576" in machine.ssh("grep 'open files' /proc/$(pidof dockerd)/limits")
    done = machine.wherry("run", "wherry/hello", "sh", "-c", "ulimit -n")
    assert int(done.stdout) >= 1048576


def test_the_engine_runs_with_our_defaults(machine: Driver) -> None:
    info = json.loads(machine.docker("info", "--format", "{{json .}}"))
    assert info["LoggingDriver"] in ("json-file", "local")
    assert info["CgroupVersion"] == "2"
    assert info["Driver"] in ("overlay2", "overlayfs")
    assert info["InitBinary"] == "docker-init"
    config = json.loads(machine.ssh("cat /run/wherry/seed/daemon.json"))
    assert config["userland-proxy"] is False
    assert config["log-opts"] == {"max-size": "10m", "max-file": "3"}


def test_versions_of_the_engine(machine: Driver) -> None:
    version = json.loads(machine.docker("version", "--format", "{{json .}}"))
    assert version["Server"]["Version"].startswith("28.")
    assert re.match(r"Docker Compose version v?2\.", machine.docker("compose", "version"))
    assert "buildx" in machine.docker("buildx", "version")


@pytest.mark.parametrize(
    "module",
    [
        "overlay",
        "vxlan",
        "ip_vs",
        "wireguard",
        "fuse",
        "virtiofs",
        "binfmt_misc",
        "zram",
        "qemu_fw_cfg",
        "virtio_balloon",
        "br_netfilter",
    ],
)
def test_modules_are_there(machine: Driver, module: str) -> None:
    assert machine.wherry("ssh", f"modprobe {module}").returncode == 0


@pytest.mark.parametrize("module", ["algif_aead", "esp4", "esp6", "rxrpc", "9p"])
def test_modules_that_are_not(machine: Driver, module: str) -> None:
    assert machine.wherry("ssh", f"modprobe {module}").returncode != 0


@pytest.mark.parametrize("service", ["containerd", "sshd", "dockerd"])
def test_what_dies_comes_back(machine: Driver, service: str) -> None:
    # busybox names the newest first; sshd's sessions are processes of other names.
    listener = f"pidof {service}"
    before = machine.ssh(listener).strip()
    machine.wherry("ssh", f"kill -9 {before}")
    machine.wait_until(lambda: machine.ssh(f"{listener} || true").strip() not in ("", before), f"{service} is back")
    machine.wait_until(lambda: machine.wherry("run", "wherry/hello", "true", timeout=300).returncode == 0, "containers run")


def test_orphans_are_reaped(machine: Driver) -> None:
    machine.ssh("for n in 1 2 3 4 5; do sh -c 'sh -c \"exit 0\" & exec sleep 0.1' & done; wait")
    machine.wait_until(lambda: machine.ssh("ps -o stat,ppid,comm | grep '^Z' || true") == "", "no zombie is left")


def test_no_password_opens_a_door(machine: Driver) -> None:
    shadow = machine.ssh("cat /etc/shadow")
    assert all(line.split(":")[1] in ("*", "!", "!*") for line in shadow.splitlines())
    options = machine.ssh("sshd -T")
    assert "passwordauthentication no" in options
    assert "kbdinteractiveauthentication no" in options


def test_logins_are_private_and_on_the_data_disk(machine: Driver) -> None:
    target = machine.ssh("readlink -f /run/wherry/home/.docker").strip()
    assert target == "/var/lib/wherry/docker-config"
    assert machine.ssh(f"stat -c %a {target}").strip() == "700"
