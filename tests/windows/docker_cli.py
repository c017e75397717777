"""docker.exe, Docker's own client for Windows: Debian 13's source of it, compiled by Debian 13's Go, kept in build/docker-cli/.

Debian's packages lack what only Windows needs: go-winio, which opens pipes, and hcsshim. So the modules that it is made of come
from Go's proxy, of the versions and with the hashes in the client's own vendor.mod and vendor.sum; but the engine, which the
proxy does not have in that version, is Debian's source too.

`PYTHONPATH=iso python -m tests.windows.docker_cli` makes it and prints where it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from builder.apt import Want, cache_folder, fetch
from builder.debs import unpack
from builder.log import BuildError
from builder.packages import host_arch

from tests.windows.wine import ROOT

CACHE: Final = ROOT / "build/docker-cli"
_SUITE: Final = "trixie"
_GO: Final = "1.24"
_SKIP: Final = frozenset({f"golang-{_GO}-doc"})  # none of what it depends on; `fetch` wants one name
_SECONDS: Final = 2400  # a hang guard: 110 s on two busy processors
_ENGINE: Final = "github.com/docker/docker"
_VERSION: Final = "github.com/docker/cli/cli/version.Version"


class Unavailable(Exception):
    """What it is made of cannot be had here: programs, packages or modules."""


@cache
def docker() -> Path:
    """The program, made now if it is not there. Raises Unavailable, and CalledProcessError where it does not compile."""
    made = CACHE / hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16] / "docker.exe"
    CACHE.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(CACHE / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not made.exists():
            for old in CACHE.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            with tempfile.TemporaryDirectory(prefix="wherry-docker-", dir=CACHE) as folder:
                _make(Path(folder), made)
    finally:
        os.close(descriptor)
    return made


def _make(work: Path, target: Path) -> None:
    version = _sources(work)
    environment = _environment(work)
    go = str(work / f"go/usr/lib/go-{_GO}/bin/go")

    def run(*words: str) -> None:
        subprocess.run(
            [go, *words], cwd=work / "cli", env=environment, check=True, capture_output=True, text=True, timeout=_SECONDS
        )

    run("mod", "edit", f"-replace={_ENGINE}=../engine")
    try:
        run("list", "-deps", "./cmd/docker")  # gets the modules that are needed, and no others
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"Go modules: {error.stderr.strip().splitlines()[-1:]}") from error
    run("build", "-trimpath", f"-ldflags=-s -w -X {_VERSION}={version}", "-o", str(work / "docker.exe"), "./cmd/docker")
    target.parent.mkdir()
    (work / "docker.exe").rename(target)


def _sources(work: Path) -> str:
    """Go, the client and the engine in folders of those names; the version."""
    if missing := [name for name in ("mmdebstrap", "dpkg-deb") if shutil.which(name) is None]:
        raise Unavailable(f"there is no {' and no '.join(missing)}: .ci/setup installs it where it can")
    try:
        packages = fetch(Want(_SUITE, host_arch(), (f"golang-{_GO}-go",), _SKIP, sources=("docker.io",)))
    except BuildError as error:
        raise Unavailable(str(error)) from error
    unpack([one for one in packages if one.architecture != "source"], cache_folder(), work / "go", lambda *_: True)
    source = next(one for one in packages if one.architecture == "source")
    for archive in (source.file_name, source.file_name.replace(".orig.", ".orig-cli.")):
        # Their outermost folder has a name of its own; the client's is called cli in it.
        words = ["tar", "-x", "-f", cache_folder() / archive, "-C", work, "--no-same-owner", "--exclude=*/vendor/*"]
        words += ["--transform=s,^\\./[^/]*/engine/,engine/,"]
        subprocess.run(words, check=True)
    for name in ("mod", "sum"):
        (work / f"cli/vendor.{name}").rename(work / f"cli/go.{name}")
    (work / "engine/go.mod").write_text(f"module {_ENGINE}\n\ngo 1.21\n", encoding="ascii")
    return source.version


def _environment(work: Path) -> dict[str, str]:
    """The caller's way to the network, and nothing of the caller's own Go."""
    network = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE")
    kept = {name: value for name, value in os.environ.items() if name in network or not name.startswith(("GO", "CGO_"))}
    return {
        **kept,
        "HOME": str(work),
        "GOROOT": str(work / f"go/usr/lib/go-{_GO}"),
        "GOPATH": str(work / "modules"),
        "GOCACHE": str(work / "compiled"),
        "GOENV": "off",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",
        "CGO_ENABLED": "0",
        "GOOS": "windows",
        "GOARCH": "amd64",
    }


if __name__ == "__main__":
    print(docker())
