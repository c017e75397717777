"""Two builds on differing set-ups give the same bytes: the ISO, its manifest and its SBOM."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from builder.apt import cache_folder
from builder.packages import host_arch

from launcher import __version__
from tests.conftest import SOAK

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="no mmdebstrap")

# What a caller's environment may hold and a build must not hear of.
STRANGE = {
    "LC_ALL": "tr_TR.UTF-8",
    "LANG": "tr_TR.UTF-8",
    "TZ": "Asia/Kolkata",
    "CFLAGS": "-O0 -g",
    "CPPFLAGS": "-fno-inline",
    "LDFLAGS": "-Wl,--build-id=sha1",
    "MAKEFLAGS": "-j7",
    "ZSTD_CLEVEL": "1",
    "ZSTD_NBTHREADS": "4",
    "TAR_OPTIONS": "--mode=0",
    "GZIP": "-1",
    "PYTHONHASHSEED": "17",
}
USER = 54321  # nobody's
SUFFIXES = (".iso", ".json", ".cdx.json")


def build(argv: Sequence[str | Path], environment: Mapping[str, str] | None = None, umask: int = 0o022) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [os.fspath(word) for word in argv],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
    )
    assert done.returncode == 0, done.stderr
    print(f"{argv[0]}: {time.monotonic() - started:.0f} s")


def digests(folder: Path, arch: str) -> dict[str, str]:
    return {end: hashlib.sha256((folder / f"wherry-{arch}{end}").read_bytes()).hexdigest() for end in SUFFIXES}


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder with a space in its name, on another file system where there is one: its folders list in another order."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30
    # Not below pytest's own folder, which other users may not enter.
    folder = Path(tempfile.mkdtemp(prefix="wherry rebuild ", dir=memory if roomy else None))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def other_python() -> list[str | Path]:
    """The system's own Python where it is recent enough, as a user who is not root where user namespaces are allowed."""
    recent = ["-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if shutil.which("/usr/bin/python3") is None or subprocess.run(["/usr/bin/python3", *recent], check=False).returncode:
        return [sys.executable]
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    allowed = [*user, "unshare", "--map-root-user", "--mount", "true"]
    if (
        os.geteuid() != 0
        or shutil.which("setpriv") is None
        or subprocess.run(allowed, capture_output=True, check=False).returncode
    ):
        return ["/usr/bin/python3"]
    return [*user, "/usr/bin/python3"]


def copy_of_the_library(target: Path) -> Path:
    """What writes the SBOM, for another Python: none of it needs a compiled module."""
    [site] = (path for path in map(Path, sys.path) if path.name == "site-packages" and (path / "cyclonedx").is_dir())
    shutil.copytree(site, target, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return target


def copy_of_the_recipe(elsewhere: Path) -> Path:
    """iso/ as another checkout has it: names made in another order, other times, other modes."""
    for source in sorted((ROOT / "iso").rglob("*"), reverse=True):
        if source.is_file() and "__pycache__" not in source.parts:
            target = elsewhere / "check out" / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(0o640)
    return elsewhere / "check out/iso/build.py"


@pytest.mark.parametrize("arch", ["amd64", "arm64"] if SOAK else [host_arch()])
def test_two_builds_give_the_same_bytes(arch: str, tmp_path: Path, elsewhere: Path) -> None:
    """With light compression unless in the soak. The second one has a tools tree of its own, made from nothing, one CPU and,
    where that can be, another user."""
    fast = [] if SOAK else ["--fast"]
    build(
        [
            sys.executable,
            ROOT / "iso/build.py",
            "--arch",
            arch,
            "--output",
            tmp_path,
            "--tools",
            ROOT / "build",
            *fast,
            "--force",
        ]
    )
    script = copy_of_the_recipe(elsewhere)
    environment = {
        **STRANGE,
        "XDG_CACHE_HOME": str(elsewhere / "cache"),
        "PYTHONPATH": str(copy_of_the_library(elsewhere / "site")),
    }
    shutil.copytree(cache_folder(), elsewhere / "cache/wherry-build/debs")
    output, python = elsewhere / "out put", other_python()
    if "setpriv" in python:
        for path in [elsewhere, *elsewhere.rglob("*")]:
            os.chown(path, USER, USER, follow_symlinks=False)
    pinned = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), *python]
    build([*pinned, script, "--arch", arch, "--output", output, *fast, "--version", __version__], environment, 0o077)
    told = f"{' '.join(map(str, python))}: {compare(output, tmp_path, arch)}"
    assert digests(output, arch) == digests(tmp_path, arch), told
    print(arch, digests(output, arch))


def compare(one: Path, other: Path, arch: str) -> str:
    """Which part of the manifest differs, as a first hint."""
    first, second = (json.loads((folder / f"wherry-{arch}.json").read_text()) for folder in (one, other))
    return ", ".join(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


@pytest.fixture
def debian13(tmp_path: Path) -> Iterator[Path]:
    """A bare Debian 13 that can build, with the kernel's file systems in it."""
    tree = tmp_path / "trixie"
    tools = "python3,mmdebstrap,debian-archive-keyring,gpgv,util-linux,ca-certificates"
    build(["mmdebstrap", "--variant=minbase", f"--include={tools}", "trixie", tree])
    mounts = [tree / name for name in ("proc", "dev", "sys")]
    for mount in mounts:
        subprocess.run(["mount", "--rbind", f"/{mount.name}", mount], check=True)
        subprocess.run(["mount", "--make-rslave", mount], check=True)
    yield tree
    for mount in mounts:
        subprocess.run(["umount", "--recursive", mount], check=True)


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a chroot with /proc in it")
@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_debian_13_builds_the_same_bytes(arch: str, tmp_path: Path, debian13: Path) -> None:
    """With its own Python, mmdebstrap, dpkg, tar and shell; the SBOM's library is the one of this environment."""
    here = tmp_path / "here"
    build(
        [
            sys.executable,
            ROOT / "iso/build.py",
            "--arch",
            arch,
            "--output",
            here,
            "--tools",
            ROOT / "build",
            "--fast",
            "--force",
        ]
    )
    shutil.copytree(ROOT / "iso", debian13 / "srv/iso", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(cache_folder(), debian13 / "root/.cache/wherry-build/debs")
    copy_of_the_library(debian13 / "srv/site")
    words = ["python3", "iso/build.py", "--arch", arch, "--output", "/srv/out", "--fast", "--version", __version__]
    command = f"cd /srv && PYTHONPATH=/srv/site exec {shlex.join(words)}"
    build(["chroot", debian13, "/usr/bin/env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin", "sh", "-c", command])
    assert digests(debian13 / "srv/out", arch) == digests(here, arch), compare(debian13 / "srv/out", here, arch)
