"""A machine with a home of its own: what is private stays so whatever root in the guest says, a kill of the keeper is no end
for a container, and databases run on folders of the home through all restarts."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator

import pytest

from tests.images.build import build
from tests.shares.attack import ATTACKS
from tests.shares.scene import Scene, Swapper
from tests.vm.client import Client
from tests.vm.driver import SOAK, Driver
from tests.vm.test_life import keeper_of
from tests.vm.workshop import TOOLS, Container, load

pytestmark = pytest.mark.vm
HANDLES = 10_000 if SOAK else 4_300  # more than the 4,096 that may be open
RUN = "/proc/1/root/run/wherry"  # the guest's own, as a container that sees its processes has it
KILLS = 10 if SOAK else 2
LONGEST = 10  # seconds that a call may hang, as promised


class House(Driver):
    """Its home is that of a user who has private things, and whose machine has the home, as it is by default."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(self.path)
        self.environment["HOME"] = str(self.scene.home)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    driver = House()
    try:
        driver.up()
        yield driver
    finally:
        driver.close()


@pytest.fixture(scope="module")
def client(house: House) -> Client:
    made = Client(house)
    load(made, build(), "workshop")
    return made


@pytest.fixture(scope="module")
def workshop(client: Client, house: House) -> Iterator[Container]:
    code = house.scene.home / "code"
    with Container(client, "workshop", [f"{code}:/code", f"{house.scene.home}:/user"]) as made:
        yield made


def test_the_home_is_there_at_its_own_path(house: House, workshop: Container) -> None:
    code = house.scene.home / "code"
    assert workshop("cat", "/code/main.py") == "print('hello')\n"
    assert house.ssh(f"cat {code}/main.py") == "print('hello')\n"
    done = house.wherry(
        "docker", "run", "--rm", "-v", f"{code}:{code}", "-w", str(code), "wherry.test/workshop", "python3", "main.py", cwd=code
    )
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr.decode()


def test_private_folders_are_not_there(house: House, client: Client, workshop: Container) -> None:
    scene = house.scene
    assert ".ssh" not in workshop("ls", "-A", "/user").split()
    for path in (".ssh", ".ssh/secret", ".config/google-chrome"):
        assert workshop.run("ls", f"/user/{path}").returncode != 0
    for source in (scene.home / ".ssh", scene.home / ".gnupg" / "secret"):
        tried = client.run("run", "--rm", "-v", f"{source}:/x", "wherry.test/workshop", "ls", "-A", "/x")
        said = tried.stderr.decode()
        assert tried.returncode == 125 and "wherry share add" in said and ":ro" in said, said
        assert scene.marker not in tried.stdout.decode()
    # The command that the error names does it, live, and it is listed.
    assert house.wherry("share", "add", f"{scene.home}/.gnupg:ro").returncode == 0
    try:
        assert ".gnupg" in house.wherry("share", "list").stdout.decode()
        words = ("run", "--rm", "-v", f"{scene.home}/.gnupg:/x:ro", "wherry.test/workshop", "cat", "/x/secret")
        assert client(*words).strip() == scene.marker
    finally:
        assert house.wherry("share", "remove", f"{scene.home}/.gnupg").returncode == 0
    assert client.run(*words).returncode == 125


def test_places_that_run_code_can_be_read_and_not_written(house: House, workshop: Container) -> None:
    before = house.scene.state()
    assert workshop("cat", "/user/.bashrc") == "# mine\n"
    for script in (
        "echo x >>/user/.bashrc",
        "rm /user/.profile",
        "mv /user/.bashrc /user/gone",
        "echo x >/user/new && mv /user/new /user/.profile",
        "ln /user/.bashrc /user/hard && echo x >>/user/hard",
        "echo x >/user/.zshrc",
        "ln -s /code /user/.zshrc",
        "echo x >/user/.config/autostart/new.desktop",
        "mv /user/.config /user/elsewhere",
        "rm -rf /user/.local",
        "echo x >/user/.local/bin/tool",
    ):
        assert workshop.run("sh", "-euc", script).returncode != 0, script
    assert house.scene.state() == before


def test_keeper_killed_and_the_same_container_goes_on(
    house: House, workshop: Container, record_property: Callable[[str, object], None]
) -> None:
    """Open files of before are lost, at once and with an error; names work again, without a new bind."""
    code = house.scene.home / "code"
    for number in range(KILLS):
        (code / f"made{number}").write_text(f"{number}\n")
        keeper = keeper_of(house)
        keeper.kill()
        keeper.wait(30)
        # What is asked while nobody serves ends with an error or with an answer: it never hangs.
        began = time.monotonic()
        assert house.wherry("status").returncode in (0, 1, 3, 4)
        assert house.wherry("docker", "ps", "-q", "--filter", f"id={workshop.id}").stdout.strip()
        house.wait_until(lambda: workshop.run("cat", "/code/main.py").stdout == b"print('hello')\n", "files again")
        record_property("table", f"keeper killed: files are read again after {time.monotonic() - began:.1f} s")
        assert f"made{number}" in workshop("ls", "/code").split()
        assert workshop("cat", f"/code/made{number}") == f"{number}\n"
        workshop("sh", "-c", f"echo back >/code/back{number}")
        assert (code / f"back{number}").read_text() == "back\n"


HANGS = """
import errno, os, sys, time
file, worst, errors = open('/code/held', 'w+b', buffering=0), 0.0, set()
while not os.path.exists('/tmp/over'):
    for call in (lambda: os.stat('/code/nothing'), lambda: os.listdir('/code'), lambda: open('/code/main.py').read(),
                 lambda: file.write(b'x')):
        began = time.monotonic()
        try:
            call()
        except OSError as error:
            errors.add(errno.errorcode[error.errno])
        worst = max(worst, time.monotonic() - began)
    time.sleep(0.05)
assert open('/code/main.py').read() == "print('hello')\\n"
with open('/tmp/part', 'w') as out:
    print(worst, sorted(errors), file=out)
os.rename('/tmp/part', '/tmp/told')
"""


def test_nothing_hangs_while_nobody_serves(
    house: House, workshop: Container, record_property: Callable[[str, object], None]
) -> None:
    """The keeper is killed and brought back 20 s later, while a program looks, lists, reads and writes all the time."""
    # Detached: what the keeper carries ends with it.
    workshop("python3", "-c", HANGS, options=("-d",))
    house.wait_until(lambda: (house.scene.home / "code" / "held").exists(), "it has begun")
    keeper = keeper_of(house)
    keeper.kill()
    keeper.wait(30)
    time.sleep(20)  # this is what is tried: nobody serves for so long
    assert house.wherry("docker", "ps", "-q").returncode == 0
    house.wait_until(lambda: workshop.run("cat", "/code/main.py").stdout == b"print('hello')\n", "files again")
    workshop("touch", "/tmp/over")
    house.wait_until(lambda: workshop.run("test", "-e", "/tmp/told").returncode == 0, "it has ended", 120)
    out = workshop("cat", "/tmp/told")
    worst, errors = out.split(" ", 1)
    record_property("table", f"keeper away for 20 s: the longest call took {float(worst):.1f} s; errors {errors.strip()}")
    assert float(worst) < LONGEST + 5, out  # 5 for a guest that is emulated
    assert "ENOTCONN" not in errors and "EIO" in errors


def test_root_in_the_guest_reaches_nothing_by_raw_requests(
    house: House, client: Client, workshop: Container, record_property: Callable[[str, object], None]
) -> None:
    """It ends the share's process and takes its place; see tests/shares/attack.py."""
    scene, before = house.scene, house.scene.state()
    share = "home"
    plan = scene.plan(handles=HANDLES, every=1 if SOAK else 20, socket=f"{RUN}/shares/{share}", share=share)
    with Container(client, "workshop", [], options=["--privileged", "--pid", "host"]) as root:
        client("cp", str(TOOLS), f"{root.id}:/tools")
        keeper = keeper_of(house)
        with Swapper(scene) as swapper:
            # What starts the share's process again is ended first, so that the socket stays ours.
            root.sh(f"kill -9 $(cat {RUN}/share/keepers/{share}) $(cat {RUN}/share/pids/{share})")
            out = root("python3", "/tools/attack.py", json.dumps(plan), timeout=3600)
        told = json.loads(out)
        for name, found in told.items():
            record_property("table", f"{name:<36} {found['tried']:>6} tried, {found['refused']:>6} refused")
        assert {name: found for name, found in told.items() if found["leaks"] or found["broken"]} == {}
        assert scene.state() == before
        assert set(told) == set(ATTACKS) and swapper.swaps > 100
        assert keeper.is_running() and keeper_of(house).pid == keeper.pid
        # The share is served again as soon as its own process is back.
        root.sh(f"rm -f {RUN}/shares/{share}; echo >{RUN}/share/bell")
    house.wait_until(lambda: house.wherry("ssh", f"cat {scene.home}/code/main.py").returncode == 0, "the share again", 120)
    with Container(client, "workshop", [f"{scene.home}/code:/code"]) as again:
        assert again("cat", "/code/main.py") == "print('hello')\n"


def postgres(client: Client, name: str, query: str) -> str:
    return client("exec", name, "psql", "-qtAc", query).strip()


def mariadb(client: Client, name: str, query: str) -> str:
    words = ("mariadb", "--no-defaults", "-S", "/run/mysqld/mysqld.sock", "-NBe", query)
    return client("exec", name, *words).strip()


# As entry points of well-known images do: root gives the folder to the server's user, who then runs it.
POSTGRES = (
    "mkdir -p /data/cluster && chown -R postgres:postgres /data && chmod 700 /data /data/cluster "
    "&& exec su postgres -s /bin/sh -c /usr/bin/entry"
)
DATABASES: dict[str, tuple[list[str], Callable[[Client, str, str], str], str]] = {
    "postgres": (["-u", "0", "--entrypoint", "sh", "wherry.test/postgres", "-c", POSTGRES], postgres, ""),
    "mariadb": (["wherry.test/mariadb"], mariadb, "CREATE DATABASE d; "),
}


# Three to seven minutes each, emulated; what they need of a share is tried each time by fsx, fio, sqlite and the POSIX table.
@pytest.mark.soak
@pytest.mark.parametrize("kind", [*DATABASES])
def test_a_database_on_a_folder_of_the_home(
    kind: str, house: House, client: Client, record_property: Callable[[str, object], None]
) -> None:
    load(client, build(), kind)
    folder = house.scene.home / f"{kind}-data"
    folder.mkdir()
    words, ask, first = DATABASES[kind]
    table = "d.t" if kind == "mariadb" else "t"

    def answers() -> bool:
        try:
            return ask(client, kind, "SELECT 1") == "1"
        except AssertionError:
            return False

    def lives_on(what: str, rows: int) -> None:
        began = time.monotonic()
        house.wait_until(answers, f"{kind} answers after {what}", 600)
        record_property("table", f"{kind} answers {time.monotonic() - began:.0f} s after {what}")
        assert ask(client, kind, f"SELECT count(*) FROM {table}") == str(rows)
        ask(client, kind, f"INSERT INTO {table} VALUES ({rows})")

    client("run", "-d", "--name", kind, "--restart", "unless-stopped", "-v", f"{folder}:/data", *words)
    try:
        house.wait_until(answers, f"{kind} answers", 900)
        ask(client, kind, f"{first}CREATE TABLE {table} (n INTEGER)")
        ask(client, kind, f"INSERT INTO {table} VALUES (0)")
        assert {path.stat().st_uid for path in folder.rglob("*")} == {os.getuid()}
        client("restart", "-t", "60", kind, timeout=300)
        lives_on("a restart of its container", 1)
        keeper = keeper_of(house)
        keeper.kill()
        keeper.wait(30)
        assert house.wherry("status").returncode in (0, 1, 3, 4)
        assert house.wherry("docker", "restart", "-t", "60", kind, timeout=600).returncode == 0
        lives_on("the keeper was killed", 2)
        assert house.wherry("stop", timeout=600).returncode == 0
        house.up()
        lives_on("a restart of the machine", 3)
    finally:
        client.run("rm", "-f", kind)
    shutil.rmtree(folder)
