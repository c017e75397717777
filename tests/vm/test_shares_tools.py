"""What people run in a folder of theirs, run on a share from a container; the result is looked at here."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.build import build
from tests.vm.client import Client
from tests.vm.driver import SOAK, Driver
from tests.vm.workshop import Container, load, shared_folder

pytestmark = pytest.mark.vm
FILES = 2000 if SOAK else 200
INSERTS = 500 if SOAK else 60


@pytest.fixture(scope="module")
def client(machine: Driver) -> Client:
    made = Client(machine)
    load(made, build(), "workshop", "node")
    return made


@pytest.fixture(scope="module")
def folder(machine: Driver) -> Iterator[Path]:
    with shared_folder(machine) as made:
        yield made


@pytest.fixture(scope="module")
def workshop(client: Client, folder: Path) -> Iterator[Container]:
    with Container(client, "workshop", [f"{folder}:/code"]) as made:
        yield made


def git(*words: str, cwd: Path) -> str:
    own = ("-c", "user.name=Nobody", "-c", "user.email=n@example.org", "-c", "safe.directory=*")
    return subprocess.run(["git", *own, *words], cwd=cwd, check=True, capture_output=True, text=True).stdout


def test_git_clones_commits_and_pushes(workshop: Container, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(FILES):
        place = source / f"d{number % 20}" / f"f{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{number}\n" * (number % 50 + 1))
    (source / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (source / "run.sh").chmod(0o755)
    (source / "link").symlink_to("d1/f1.txt")
    git("init", "-q", "-b", "main", cwd=source)
    git("add", "-A", cwd=source)
    git("commit", "-q", "-m", "first", cwd=source)
    git("clone", "-q", "--bare", str(source), str(folder / "origin.git"), cwd=tmp_path)
    workshop("git", "clone", "-q", "/code/origin.git", "/code/clone")
    assert workshop("git", "status", "--porcelain", cwd="/code/clone") == ""
    assert workshop("./run.sh", cwd="/code/clone") == "ran\n"
    workshop.sh("echo more >>d3/f3.txt; git mv d4/f4.txt moved.txt; git commit -qam second; git push -q", cwd="/code/clone")
    git("fsck", "--strict", cwd=folder / "origin.git")
    assert git("log", "--format=%s", "main", cwd=folder / "origin.git").split() == ["second", "first"]
    clone = folder / "clone"
    assert git("status", "--porcelain", cwd=clone) == ""
    assert (clone / "d3" / "f3.txt").read_text().endswith("more\n") and os.access(clone / "run.sh", os.X_OK)
    assert os.readlink(clone / "link") == "d1/f1.txt"
    # A switch of branches on this computer is what git in the container sees next.
    git("checkout", "-q", "HEAD~1", cwd=clone)
    assert workshop("git", "status", "--porcelain", cwd="/code/clone") == ""
    assert workshop("git", "log", "-1", "--format=%s", cwd="/code/clone") == "first\n"


def wheel(folder: Path) -> None:
    """The smallest that pip takes, with a module, data and a command."""
    files = {
        "demo/__init__.py": "def main() -> None:\n    print('demo runs')\n",
        **{f"demo/data/{number}.txt": f"{number}\n" for number in range(100)},
        "demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
        "demo-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "demo-1.0.dist-info/entry_points.txt": "[console_scripts]\ndemo = demo:main\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, "demo-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(folder / "demo-1.0-py3-none-any.whl", "w") as archive:
        for name, text in {**files, "demo-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)


def test_pip_installs_a_wheel(workshop: Container, folder: Path) -> None:
    (folder / "wheels").mkdir()
    wheel(folder / "wheels")
    install = "python3 -m pip install --quiet --no-index --no-cache-dir --find-links /code/wheels --prefix /code/env demo"
    workshop.sh(install)
    site = next((folder / "env").rglob("demo/__init__.py")).parent.parent
    inside = f"/code/{site.relative_to(folder)}"
    [command] = (folder / "env").rglob("bin/demo")
    assert workshop("env", f"PYTHONPATH={inside}", f"/code/{command.relative_to(folder)}") == "demo runs\n"
    assert len(list((site / "demo" / "data").iterdir())) == 100
    assert os.access(command, os.X_OK) and command.stat().st_uid == os.getuid()
    # Compiled files of the interpreter too, which it writes by a rename.
    assert list((site / "demo" / "__pycache__").glob("*.pyc"))


def package(folder: Path, name: str, **more: object) -> str:
    files = {"package.json": json.dumps({"name": name, "version": "1.0.0", **more}), "cli.js": SAYS.replace("NAME", name)}
    with tarfile.open(folder / f"{name}-1.0.0.tgz", "w:gz") as archive:
        for path, text in {**files, **{f"lib/{number}.js": f"exports.n = {number}\n" for number in range(50)}}.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size, member.mode = len(text.encode()), 0o644
            archive.addfile(member, io.BytesIO(text.encode()))
    return f"file:../packages/{name}-1.0.0.tgz"


SAYS = "#!/usr/bin/env node\nconsole.log('NAME says ' + require('./lib/7.js').n)\n"


def test_npm_installs_with_bin_links(client: Client, folder: Path) -> None:
    (folder / "packages").mkdir()
    (folder / "app").mkdir()
    wanted = {name: package(folder / "packages", name, bin={name: "cli.js"}) for name in ("tool", "other")}
    scripts = {"start": "tool && other"}
    (folder / "app" / "package.json").write_text(json.dumps({"name": "app", "dependencies": wanted, "scripts": scripts}))
    with Container(client, "node", [f"{folder}:/code"]) as node:
        node("npm", "install", "--offline", "--no-audit", "--no-fund", "--loglevel=error", cwd="/code/app", timeout=1200)
        told = node("npm", "run", "--silent", "start", cwd="/code/app", timeout=600)
    assert told == "tool says 7\nother says 7\n"
    modules = folder / "app" / "node_modules"
    assert {name: os.readlink(modules / ".bin" / name) for name in wanted} == {
        "other": "../other/cli.js",
        "tool": "../tool/cli.js",
    }
    assert os.access(modules / "tool" / "cli.js", os.X_OK)
    assert (modules / "other" / "lib" / "49.js").read_text() == "exports.n = 49\n"
    assert json.loads((folder / "app" / "package-lock.json").read_text())["packages"]["node_modules/tool"]["version"] == "1.0.0"


def test_a_c_build_with_make(workshop: Container, folder: Path) -> None:
    project = folder / "c"
    project.mkdir()
    count = 8
    for number in range(count):
        (project / f"part{number}.c").write_text(f'#include "all.h"\nint part{number}(void) {{ return {number}; }}\n')
    (project / "all.h").write_text("".join(f"int part{number}(void);\n" for number in range(count)))
    sum_ = " + ".join(f"part{number}()" for number in range(count))
    main = f'#include <stdio.h>\n#include "all.h"\nint main(void) {{ printf("%d\\n", {sum_}); return 0; }}\n'
    (project / "main.c").write_text(main)
    objects = "main.o " + " ".join(f"part{number}.o" for number in range(count))
    (project / "Makefile").write_text(
        f"program: {objects}\n\t$(CC) -o $@ $^\n%.o: %.c all.h\n\t$(CC) -O1 -c -o $@ $<\n\t@echo built $@ >>log\n"
    )
    workshop("make", "-s", "-j2", cwd="/code/c", timeout=1200)
    assert workshop("./program", cwd="/code/c") == "28\n"
    assert len((project / "log").read_text().splitlines()) == count + 1
    assert workshop.run("make", "-q", cwd="/code/c").returncode == 0
    # Edited on this computer: exactly that part is built again.
    (project / "part5.c").write_text('#include "all.h"\nint part5(void) { return 105; }\n')
    workshop("make", "-s", cwd="/code/c", timeout=600)
    assert workshop("./program", cwd="/code/c") == "128\n"
    assert (project / "log").read_text().splitlines()[count + 1 :] == ["built part5.o"]
    assert (project / "program").read_bytes()[:4] == b"\x7fELF" and os.access(project / "program", os.X_OK)


def test_a_script_runs_as_it_is(workshop: Container, folder: Path) -> None:
    (folder / "script.sh").write_text('#!/bin/sh\necho "by $0 $1"\n')
    assert workshop.run("sh", "-c", "./script.sh", cwd="/code").returncode == 126
    (folder / "script.sh").chmod(0o755)
    assert workshop("./script.sh", "me", cwd="/code") == "by ./script.sh me\n"


def test_sqlite_in_its_default_mode(workshop: Container, folder: Path) -> None:
    workshop("sqlite3", "/code/db", "CREATE TABLE t (who TEXT, n INTEGER)")
    loop = (
        f"n=0; while [ $n -lt {INSERTS} ]; do echo \"INSERT INTO t VALUES ('$1', $n);\"; n=$((n + 1)); done"
        " | sqlite3 -cmd '.timeout 300000' /code/db"
    )
    # Two processes, a transaction for each row: locks, a journal, its removal.
    workshop.sh(f"one() {{ {loop}; }}; one a & first=$!; one b; wait $first", timeout=1800)
    assert workshop("sqlite3", "/code/db", "PRAGMA journal_mode; PRAGMA integrity_check") == "delete\nok\n"
    with sqlite3.connect(folder / "db") as here:
        assert here.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = here.execute("SELECT who, count(*), sum(n) FROM t GROUP BY who ORDER BY who").fetchall()
    here.close()
    assert rows == [(who, INSERTS, INSERTS * (INSERTS - 1) // 2) for who in "ab"]
    assert not (folder / "db-journal").exists()


def test_tar_keeps_what_it_packed(workshop: Container, folder: Path) -> None:
    tree = folder / "tree"
    for number in range(300):
        place = tree / f"d{number % 7}" / f"f{number}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(os.urandom(number * 31))
        os.utime(place, ns=(1_600_000_000_123_456_789 + number,) * 2)
    (tree / "d1" / "f1").chmod(0o751)
    os.link(tree / "d2" / "f2", tree / "hard")
    (tree / "soft").symlink_to("d2/f2")
    workshop.sh(
        "tar --format=posix -C /code/tree -cf /code/tree.tar . && mkdir /code/again && tar -C /code/again -xf /code/tree.tar"
    )
    again = folder / "again"
    for path in tree.rglob("*"):
        other = again / path.relative_to(tree)
        one, two = path.lstat(), other.lstat()
        assert stat.S_IFMT(one.st_mode) == stat.S_IFMT(two.st_mode), path
        if path.is_symlink():
            assert os.readlink(path) == os.readlink(other)
        elif path.is_file():
            assert (path.read_bytes(), one.st_mtime_ns) == (other.read_bytes(), two.st_mtime_ns), path
            assert (one.st_mode & 0o100, one.st_nlink) == (two.st_mode & 0o100, two.st_nlink), path
    assert (again / "hard").stat().st_ino == (again / "d2" / "f2").stat().st_ino


def test_files_of_any_user_belong_to_me_and_owners_are_remembered(client: Client, workshop: Container, folder: Path) -> None:
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    workshop("sh", "-c", "echo data >/code/open/file; chmod 640 /code/open/file", options=("-u", "1234:5678"))
    found = (folder / "open" / "file").stat()
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
    workshop("chown", "-R", "999:998", "/code/open")
    # What comes later has the owner of its folder, whoever makes it.
    workshop("sh", "-c", "umask 077; echo more >/code/open/later", options=("-u", "999:998"))
    assert {path.stat().st_uid for path in (folder / "open").iterdir()} == {os.getuid()}
    client("restart", "-t", "1", workshop.id)
    words = ("stat", "-c", "%u %g %a", "/code/open", "/code/open/file", "/code/open/later")
    assert workshop(*words) == "999 998 777\n999 998 640\n999 998 600\n"


def test_the_folder_that_is_gone_is_an_error(machine: Driver, client: Client, tmp_path: Path) -> None:
    """Not shared: the error names the folder and the command that shares it, and with that command it works."""
    (tmp_path / "data").write_text("mine\n")
    tried = client.run("run", "--rm", "-v", f"{tmp_path}:/x", "wherry.test/workshop", "cat", "/x/data")
    said = tried.stderr.decode()
    assert tried.returncode == 125 and str(tmp_path) in said and f"wherry share add {tmp_path}" in said, said
    try:
        assert machine.wherry("share", "add", f"{tmp_path}:ro").returncode == 0
        assert client("run", "--rm", "-v", f"{tmp_path}:/x", "wherry.test/workshop", "cat", "/x/data") == "mine\n"
        assert str(tmp_path) in machine.wherry("share", "list").stdout.decode()
        write = client.run("run", "--rm", "-v", f"{tmp_path}:/x", "wherry.test/workshop", "sh", "-c", "echo no >/x/data")
        assert write.returncode != 0 and "Read-only file system" in write.stderr.decode()
    finally:
        assert machine.wherry("share", "remove", str(tmp_path)).returncode == 0
    assert (tmp_path / "data").read_text() == "mine\n"
    shutil.rmtree(tmp_path)
