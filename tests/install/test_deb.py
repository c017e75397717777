"""The Debian package: built twice, then installed, used and removed beside this system, whose files stay as they are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from installers import __main__ as installers
from installers import targets, wheels
from installers.context import Context, Made
from installers.linux import deb
from launcher import __version__
from tests.install.making import making
from tests.tinyiso import iso_bytes

ROOT = Path(__file__).parent.parent.parent
USER = 65534
pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb")

# What happens on the system, in a mount namespace of its own: the layers above the tree and all mounts go with it.
ON_TOP = """
set -eu
mount -t tmpfs none "$2"
mkdir "$2/up" "$2/work" "$2/root"
mount -t overlay none -o "lowerdir=$1,upperdir=$2/up,workdir=$2/work" "$2/root"
mount -t proc none "$2/root/proc"
mount --rbind /dev "$2/root/dev"
mount -t tmpfs -o mode=1777 none "$2/root/tmp"
mkdir -p "$2/root/run"
cp "$3" "$2/root/tmp/wherry.deb"
cp "$4/tiny.iso" "$4/tiny.json" "$2/root/tmp/"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec env -i PATH=$PATH HOME=/tmp LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$2/root" sh -c "$5"
"""
# As a user who cannot write to what is installed, with an unfriendly environment.
AS_USER = f"setpriv --reuid={USER} --regid={USER} --clear-groups env PYTHONPATH=/tmp/mine WHERRY_HOME=/tmp/theirs"
USE = f"""
set -eu
mkdir /tmp/mine && echo 'raise SystemExit("a module of the user")' >/tmp/mine/click.py
list() {{ find / -xdev -path /var -prune -o -path '*wherry*' -print | grep -v '^/tmp/' | sort; }}
list >/tmp/before
dpkg -i /tmp/wherry.deb >&2
dpkg --verify wherry
find /usr/lib/wherry -name '*.pyc' | grep -q launcher || echo 'not compiled'
cd /tmp
{AS_USER} wherry --version
{AS_USER} wherry version --json
{AS_USER} wherry doctor --json || [ $? = 3 ]
{AS_USER} wherry -q iso import /tmp/tiny.iso >&2
{AS_USER} wherry init --json
{AS_USER} wherry list --json
bash -c '. /usr/share/bash-completion/completions/wherry && complete -p wherry'
{AS_USER} /usr/lib/wherry/bin/python3 -P -c 'import launcher.keeper, launcher.keeper.shares; print(launcher.__file__)'
dpkg --remove wherry >&2
list | diff /tmp/before - && echo 'nothing left'
test -e /tmp/theirs/machines/default && echo 'the machine is'
"""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Wheels are kept with the project's own builds."""
    return making(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="module")
def made(context: Context) -> dict[str, Made]:
    return {item.path.name.rpartition("_")[2]: item for item in deb.build_all(context)}


def field(package: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "--field", package, name], capture_output=True, text=True, check=True).stdout.strip()


def test_the_same_bytes_whatever_the_umask(made: dict[str, Made], context: Context, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        again = making(tmp_path)
        package = deb.build(
            deb.Deb(again.version, "amd64", again.targets["linux-amd64"].pythons, again.wheels("linux-amd64")), again
        )
    finally:
        os.umask(before)
    assert package.read_bytes() == made["amd64.deb"].path.read_bytes()


def test_what_it_says_of_itself(made: dict[str, Made], context: Context) -> None:
    assert set(made) == {"amd64.deb", "arm64.deb"}
    package = made["amd64.deb"].path
    assert field(package, "Version") == deb.debian_version(context.version)
    assert field(package, "Depends") == "python3 (>= 3.11), python3 (<< 3.14~), libc6 (>= 2.28)"
    assert field(made["arm64.deb"].path, "Recommends").startswith("qemu-system-arm ")
    listing = subprocess.run(["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True).stdout
    assert not [line for line in listing.splitlines() if " root/root " not in line or line[7] == "w" or line[3] in "sS"]


@pytest.mark.parametrize(("ours", "theirs"), [("1.0rc1", "1.0~rc1"), ("1.0.dev3", "1.0~dev3"), ("1.2.3", "1.2.3")])
def test_versions_sort_as_debian_sorts_them(ours: str, theirs: str) -> None:
    assert deb.debian_version(ours) == theirs


def test_modules_are_for_its_architecture(made: dict[str, Made], tmp_path: Path) -> None:
    machines = {"amd64.deb": 0x3E, "arm64.deb": 0xB7}  # e_machine, elf(5)
    for arch, item in made.items():
        subprocess.run(["dpkg-deb", "--extract", item.path, tmp_path / arch], check=True)
        modules = list((tmp_path / arch).rglob("*.so"))
        assert len(modules) > 10
        assert {int.from_bytes(module.read_bytes()[18:20], "little") for module in modules} == {machines[arch]}, arch


def tiny_iso(folder: Path, arch: str) -> Path:
    """The folder with tiny.iso and its manifest."""
    folder.mkdir()
    content = iso_bytes(f"WHERRY_{arch.upper()}")
    manifest = {
        "format": 1, "version": __version__, "architecture": arch, "size": len(content), "kernel": "6.12.1",
        "sha256": hashlib.sha256(content).hexdigest(), "engine": "28.5.2", "packages": [],
    }  # fmt: skip
    (folder / "tiny.iso").write_bytes(content)
    (folder / "tiny.json").write_text(json.dumps(manifest))
    return folder


def on(tree: Path, package: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    scratch.mkdir()
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ON_TOP, "sh", tree, scratch, package]
    words += [tiny_iso(scratch.parent / "iso", package.stem.rpartition("_")[2]), USE]
    return subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def answers(text: str) -> list[dict[str, object]]:
    """The JSON objects among the lines, each of which begins and ends with a brace alone."""
    objects = "\n".join(line for line in text.splitlines() if line[:1] in ("{", "}", " "))
    return [json.loads(part + "}") for part in objects.split("\n}") if part.strip()]


def check(done: subprocess.CompletedProcess[str], version: str) -> None:
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    lines = done.stdout.splitlines()
    assert lines[0] == f"wherry {version}", told
    assert lines[-2:] == ["nothing left", "the machine is"]
    assert "complete -o nosort -F _wherry_completion wherry" in lines
    assert "/usr/lib/wherry/lib/python3" in done.stdout
    versions, doctor, init, machines = answers(done.stdout)
    assert [answer["ok"] for answer in (versions, doctor, init, machines)] == [True] * 4, told
    checks = {item["name"]: item for item in doctor["data"]["checks"]}  # type: ignore[index]
    assert "(/usr/lib/wherry/bin/python3)" in checks["wherry"]["text"]
    assert checks["qemu"]["status"] == "ok", checks["qemu"]


here = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")


@here
@pytest.mark.skipif(not Path("/etc/debian_version").exists(), reason="not Debian")
def test_installed_used_and_removed_here(made: dict[str, Made], context: Context, tmp_path: Path) -> None:
    arch = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    check(on(Path("/"), made[f"{arch}.deb"].path, tmp_path / "layers"), context.version)


@pytest.fixture(params=["bookworm", "trixie"])
def tree(request: pytest.FixtureRequest, made: dict[str, Made], tmp_path: Path) -> Iterator[Path]:
    """A bare Debian of another version, with what the package recommends."""
    recommended = [word.split()[0] for word in field(made["amd64.deb"].path, "Recommends").split(",")]
    words = ["mmdebstrap", "--variant=minbase", f"--include=python3,{','.join(recommended)}", request.param, tmp_path / "tree"]
    subprocess.run(words, check=True, capture_output=True)
    yield tmp_path / "tree"


@here
@pytest.mark.soak
def test_installed_used_and_removed_on_each_debian(tree: Path, made: dict[str, Made], context: Context, tmp_path: Path) -> None:
    check(on(tree, made["amd64.deb"].path, tmp_path / "layers"), context.version)


@pytest.mark.parametrize("target", targets.load().values(), ids=lambda target: target.name)
def test_every_python_of_a_target_has_every_package(target: targets.Target) -> None:
    pins = wheels.read_lock().wheels[target.name]
    for python in target.pythons:
        served = {pin.name for pin in pins if wheels.serves(pin.file, python)}
        assert served == {pin.name for pin in pins}, f"Python {python}"


def test_a_changed_wheel_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = targets.load()["linux-amd64"]
    pin = wheels.read_lock().wheels[target.name][0]
    (tmp_path / pin.file).write_bytes(b"another")
    with pytest.raises(installers.BuildError, match=r"is not the file that is pinned"):
        wheels.fetch(targets.Target(target.name, target.system, (), ()), wheels.read_lock(), tmp_path)
    assert not (tmp_path / pin.file).exists()
