"""The guest's shell scripts: syntax, shellcheck, and those that can run outside a guest in a temporary root."""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from .helpers import PROVISIONING, ROOT, SCRIPTS

BOOT_D = sorted((PROVISIONING / "boot.d").iterdir())
GUEST = sorted(path for path in SCRIPTS.rglob("*") if path.is_file())
PROGRAMS = [path for path in GUEST if path.suffix == ""]
REST = PROVISIONING / "rest.sh"
ALL = [*GUEST, PROVISIONING / "boot.sh", REST, *BOOT_D]

shells = [shell for shell in (["busybox", "sh"], ["dash"], ["sh"]) if shutil.which(shell[0])]
each_script = pytest.mark.parametrize("script", ALL, ids=lambda path: str(path.relative_to(ROOT)))
pytestmark = pytest.mark.skipif(not shells, reason="needs a POSIX shell")


@each_script
def test_syntax(script: Path) -> None:
    for shell in shells:
        subprocess.run([*shell, "-n", script], check=True)


@each_script
def test_shellcheck(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    subprocess.run(["shellcheck", "-x", "-s", "sh", "-P", SCRIPTS, script], check=True)


@each_script
def test_form(script: Path) -> None:
    text = script.read_text()
    assert "\r" not in text and text.endswith("\n")
    if script in PROGRAMS or script.name in ("boot.sh", "rest.sh"):
        assert text.startswith("#!/bin/sh\n#")
    for line in text.splitlines():
        assert len(line) <= 140, line


@pytest.mark.skipif(os.name == "nt", reason="modes of a checkout")
@pytest.mark.parametrize("script", PROGRAMS, ids=lambda path: path.name)
def test_programs_are_executable(script: Path) -> None:
    assert script.stat().st_mode & stat.S_IXUSR


def test_boot_scripts_are_numbered_once() -> None:
    names = [script.name for script in BOOT_D]
    assert all(re.fullmatch(r"[0-9]{2}-[a-z-]+\.sh", name) for name in names)
    assert len({name[:2] for name in names}) == len(names)


def test_services_of_inittab_exist() -> None:
    inittab = (ROOT / "iso" / "overlay" / "etc" / "inittab").read_text()
    served = re.findall(r"^::respawn:/usr/lib/wherry/serve (\S+)$", inittab, re.MULTILINE)
    assert sorted(served) == sorted(path.name for path in (SCRIPTS / "services").iterdir())
    for path in re.findall(r"^::\w+:/(\S+)", inittab, re.MULTILINE):
        assert (ROOT / "iso" / "overlay" / path).is_file()


class Boot:
    """A folder with boot.sh and what it reads and writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "provision" / "boot.d").mkdir(parents=True)
        (folder / "seed").mkdir()
        (folder / "seed" / "env").write_text("WHERRY_MACHINE='it'\\''s'\n")
        shutil.copy(PROVISIONING / "boot.sh", folder / "provision" / "boot.sh")

    def add(self, name: str, text: str) -> None:
        (self.folder / "provision" / "boot.d" / name).write_text(text)

    def run(self, shell: list[str]) -> tuple[int, str]:
        console = self.folder / "console"
        console.write_text("")
        environment = {
            **os.environ,
            "WHERRY_CONSOLE": str(console),
            "WHERRY_SEED": str(self.folder / "seed"),
            "WHERRY_RUN": str(self.folder),
        }
        result = subprocess.run([*shell, self.folder / "provision" / "boot.sh"], env=environment, cwd=self.folder)
        return result.returncode, console.read_text()


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    return Boot(tmp_path)


each_shell = pytest.mark.parametrize("shell", shells, ids=lambda shell: shell[0])


@each_shell
def test_boot_runs_in_order_with_the_environment(boot: Boot, shell: list[str]) -> None:
    boot.add("20-b.sh", 'echo "b $WHERRY_MACHINE" >>order\nsh -c \'echo "exported $WHERRY_MACHINE" >>order\'\n')
    boot.add("10-a.sh", "echo a >>order\nleft_over=1\n")
    boot.add("30-c.sh", '[ -z "${left_over-}" ]\necho c >>order\n')
    boot.add("README", "exit 1\n")
    assert boot.run(shell) == (0, "")
    assert (boot.folder / "order").read_text() == "a\nb it's\nexported it's\nc\n"


@each_shell
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("false\necho on >>order\n", "exit code 1"),
        ("echo first >&2\necho 'no such thing' >&2\nexit 3\n", "no such thing"),
        ("echo $not_set_at_all >>order\n", "not_set_at_all"),
    ],
)
def test_boot_ends_at_the_first_error_and_says_it(boot: Boot, shell: list[str], text: str, words: str) -> None:
    boot.add("10-a.sh", text)
    boot.add("20-b.sh", "echo b >>order\n")
    code, console = boot.run(shell)
    assert code == 1
    assert re.fullmatch(rf"wherry-fail 10-a .*{words}.*\n", console)
    assert not (boot.folder / "order").exists()


def work(folder: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "WHERRY_WORK": str(folder)}
    return subprocess.run([SCRIPTS / "work", *arguments], env=environment, input=stdin, capture_output=True)


def archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def test_work_puts_over_what_is_there_and_removes(tmp_path: Path) -> None:
    long = "d/" + "n" * 150
    assert work(tmp_path, "put", "ctx-1", stdin=archive({"a": b"1", long: b"long"})).returncode == 0
    assert work(tmp_path, "put", "ctx-1", stdin=archive({"a": b"2", "b": b"3"})).returncode == 0
    assert (tmp_path / "ctx-1" / "a").read_bytes() == b"2"
    assert (tmp_path / "ctx-1" / long).read_bytes() == b"long"
    assert work(tmp_path, "remove", "ctx-1").returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert work(tmp_path, "remove", "ctx-1").returncode == 0


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "../x", "A", "a b", "a*", "a\nb"])
def test_work_refuses_other_names(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "work"
    inside.mkdir()
    (tmp_path / "x").mkdir()
    for verb in ("put", "remove"):
        assert work(inside, verb, name).returncode == 2
    assert (tmp_path / "x").exists() and inside.exists()


def test_work_without_the_disk(tmp_path: Path) -> None:
    assert work(tmp_path / "none", "put", "a").returncode == 1
    assert not (tmp_path / "none").exists()


def ssh_port(folder: Path, port: str) -> int:
    firewall = folder / "firewall"
    firewall.write_text(f'#!/bin/sh\necho "$@" >>{folder}/called\n')
    firewall.chmod(0o755)
    environment = {**os.environ, "WHERRY_RUN": str(folder), "WHERRY_FIREWALL": str(firewall), "WHERRY_AWAIT": "true"}
    return subprocess.run([SCRIPTS / "ssh-port", port], env=environment, capture_output=True).returncode


def test_ssh_port_tells_the_firewall_first(tmp_path: Path) -> None:
    assert ssh_port(tmp_path, "52153") == 0
    assert (tmp_path / "called").read_text() == "52153\n"
    assert (tmp_path / "ssh-port").read_text() == "52153\n"


def test_ssh_port_of_the_range_is_closed_already(tmp_path: Path) -> None:
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / "env").write_text("WHERRY_SSH_PORTS='19800-19927'\n")
    for port, calls in (("19800", 0), ("19927", 0), ("19799", 1), ("19928", 2)):
        assert ssh_port(tmp_path, port) == 0
        assert (tmp_path / "ssh-port").read_text() == f"{port}\n"
        called = tmp_path / "called"
        assert len(called.read_text().splitlines() if called.exists() else []) == calls


def firewall(folder: Path, *arguments: str, program: str = "firewall") -> tuple[int, list[str]]:
    """The exit code, and the rules as iptables-restore got them."""
    (folder / "bin").mkdir(exist_ok=True)
    restore = folder / "bin" / "iptables-restore"
    restore.write_text(f"#!/bin/sh\ncat >{folder}/rules\n")
    restore.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "WHERRY_RUN": str(folder),
        "WHERRY_AWAIT": "true",
        "WHERRY_FIREWALL": str(SCRIPTS / "firewall"),
    }
    done = subprocess.run([SCRIPTS / program, *arguments], env=environment, capture_output=True)
    rules = folder / "rules"
    return done.returncode, [line for line in rules.read_text().splitlines() if line] if rules.exists() else []


def env(folder: Path, access: str) -> None:
    (folder / "seed").mkdir(exist_ok=True)
    (folder / "seed" / "env").write_text(f"WHERRY_SSH_PORTS='19800-19927'\nWHERRY_HOST_ACCESS='{access}'\n")


RANGE = "-A WHERRY-IN -d 10.0.2.2/32 -p tcp -m tcp --dport 19800:19927 -j DROP"
WHOLE = "-A WHERRY-IN -d 10.0.2.2/32 -j DROP"


def test_the_firewall_closes_the_whole_range_from_the_start(tmp_path: Path) -> None:
    env(tmp_path, "all")
    code, rules = firewall(tmp_path)
    assert code == 0 and RANGE in rules and WHOLE not in rules
    assert rules.index(RANGE) < rules.index("-A WHERRY-IN -d 10.0.2.2/32 -j RETURN")
    assert not [rule for rule in rules if rule.startswith("-A WHERRY-HOST")]
    assert "-A PREROUTING -j WHERRY-IN" in rules and "-A DOCKER-USER -j WHERRY-HOST" in rules
    # Once more: the jumps are there, and what others have in DOCKER-USER stays.
    code, rules = firewall(tmp_path, "1234")
    assert code == 0 and RANGE in rules and not [rule for rule in rules if "PREROUTING" in rule or "DOCKER-USER" in rule]
    assert "-A WHERRY-IN -d 10.0.2.2/32 -p tcp -m tcp --dport 1234 -j DROP" in rules


def test_the_firewall_of_an_older_launcher_closes_all_until_the_port_is_told(tmp_path: Path) -> None:
    assert WHOLE in firewall(tmp_path)[1]
    rules = firewall(tmp_path, "1234")[1]
    assert WHOLE not in rules and "-A WHERRY-IN -d 10.0.2.2/32 -p tcp -m tcp --dport 1234 -j DROP" in rules


def test_the_firewall_and_host_access(tmp_path: Path) -> None:
    env(tmp_path, "none")
    closed = [
        "-A WHERRY-HOST ! -d 10.0.2.2/32 -j RETURN", "-A WHERRY-HOST -m conntrack --ctdir REPLY -j RETURN",
        "-A WHERRY-HOST -p tcp -j REJECT --reject-with tcp-reset", "-A WHERRY-HOST -j REJECT",
    ]  # fmt: skip

    def access(rules: list[str]) -> list[str]:
        return [rule for rule in rules if rule.startswith("-A WHERRY-HOST")]

    assert access(firewall(tmp_path)[1]) == closed
    code, rules = firewall(tmp_path, "80,5432", program="host-access")
    opened = [f"-A WHERRY-HOST -p {kind} -m {kind} --dport {port} -j RETURN" for port in (80, 5432) for kind in ("tcp", "udp")]
    assert code == 0 and access(rules) == [*closed[:2], *opened, *closed[2:]]
    # What was set while it runs stays when the rules are made again.
    assert access(firewall(tmp_path, "1234")[1]) == access(rules)
    assert firewall(tmp_path, "all", program="host-access")[0] == 0 and access(firewall(tmp_path)[1]) == []


@pytest.mark.parametrize("value", ["", "some", "0", "65536", "80,", ",80", "80,,81", "80 81", "80,-1", "100000", "80\n-F"])
def test_host_access_refuses_other_values(tmp_path: Path, value: str) -> None:
    assert firewall(tmp_path, value, program="host-access") == (2, [])
    assert not (tmp_path / "host-access").exists()


@pytest.mark.parametrize("trusted", [b"", b"-----BEGIN CERTIFICATE-----\nmine"])
def test_certificates_are_added_to_the_usual_ones(tmp_path: Path, trusted: bytes) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(b"usual\n")
    (tmp_path / "provision").mkdir()
    if trusted:
        (tmp_path / "provision" / "ca.pem").write_bytes(trusted)
    environment = {**os.environ, "WHERRY_RUN": str(tmp_path), "WHERRY_TRUST": str(bundle)}
    subprocess.run(["sh", "-eu", PROVISIONING / "boot.d" / "40-trust.sh"], env=environment, check=True)
    assert bundle.read_bytes() == b"usual\n" + (b"\n" + trusted if trusted else b"")


@pytest.mark.parametrize("port", ["", "0", "65536", "123456789012345678901234567890", "22x", "-1", "1 -j ACCEPT", "22\n-F"])
def test_ssh_port_refuses_what_is_no_port(tmp_path: Path, port: str) -> None:
    assert ssh_port(tmp_path, port) == 2
    assert not (tmp_path / "called").exists() and not (tmp_path / "ssh-port").exists()


def test_sshd_takes_the_key_only_and_one_address() -> None:
    lines = (ROOT / "iso" / "overlay" / "etc" / "ssh" / "sshd_config").read_text().splitlines()
    settings = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    assert settings["ListenAddress"] == "10.0.2.15" and settings["Port"] == "22"
    assert settings["AuthenticationMethods"] == "publickey" and settings["PasswordAuthentication"] == "no"
    assert settings["PermitRootLogin"] == "prohibit-password" and settings["UsePAM"] == "no"
    assert settings["MaxSessions"] == "1000" and settings["PerSourcePenalties"] == "no"


def test_nobody_has_a_password() -> None:
    for line in (ROOT / "iso" / "overlay" / "etc" / "shadow").read_text().splitlines():
        assert line.split(":")[1] in ("*", "!")


class Resting:
    """rest.sh in a root of its own."""

    def __init__(self, shell: list[str], root: Path) -> None:
        self.shell, self.root = shell, root
        for group in ("docker", "other"):
            (root / "sys/fs/cgroup" / group).mkdir(parents=True)
            (root / "sys/fs/cgroup" / group / "cgroup.freeze").write_text("0\n")
        for folder in ("run/wherry", "proc", "dev"):
            (root / folder).mkdir(parents=True)
        (root / "proc/meminfo").write_text("MemTotal:        2000 kB\nMemFree:          500 kB\n")
        text = re.sub(r"(?<![\w.])/(run|sys|proc|dev)/(?!null)", rf"{root}/\1/", REST.read_text())
        assert "alone=60\n" in text
        self.text = text

    def call(self, *words: str, stdin: bytes = b"", alone: int = 1000) -> str:
        text = self.text.replace("alone=60", f"alone={alone}")
        done = subprocess.run([*self.shell, "-c", text, "rest", *words], input=stdin, capture_output=True, check=True)
        assert not done.stderr
        return done.stdout.decode()

    @property
    def frozen(self) -> set[str]:
        return {group.read_text().strip() for group in self.root.glob("sys/fs/cgroup/*/cgroup.freeze")}


@pytest.mark.parametrize("shell", shells, ids=" ".join)
def test_containers_stand_still_until_they_are_woken(shell: list[str], tmp_path: Path) -> None:
    resting = Resting(shell, tmp_path)
    assert resting.call("quiet", "abc") == "1500\n"
    assert resting.frozen == {"1"}
    resting.call("wake", "abc", stdin=b"random\n")
    assert resting.frozen == {"0"} and (tmp_path / "dev/urandom").read_bytes() == b"random\n"
    assert (tmp_path / "run/wherry/rest").read_bytes() == b""


@pytest.mark.parametrize("shell", shells, ids=" ".join)
def test_they_go_on_alone_when_nobody_wakes_them(shell: list[str], tmp_path: Path) -> None:
    resting = Resting(shell, tmp_path)
    resting.call("quiet", "abc", alone=0)
    deadline = time.monotonic() + 30
    while resting.frozen != {"0"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
