"""Small real Debian packages, and a mirror that serves them, for tests of the image build."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def make_deb(
    folder: Path,
    name: str,
    version: str,
    *,
    arch: str = "amd64",
    fields: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """A package built by dpkg-deb; its name is the one that apt gives to the file."""
    tree = folder / f".{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    control = {
        "Package": name,
        "Version": version,
        "Architecture": arch,
        "Maintainer": "nobody <n@example.org>",
        "Description": "x",
    }
    text = "".join(f"{key}: {value}\n" for key, value in {**control, **(fields or {})}.items())
    (tree / "DEBIAN/control").write_text(text)
    for path, content in (files or {f"usr/share/{name}": version}).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    target = folder / f"{name}_{version.replace(':', '%3a')}_{arch}.deb"
    # Times fixed: the same call gives the same bytes.
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(target)],
        check=True,
        capture_output=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
    )
    return target


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Mirror:
    """A Debian archive with one suite, changed at will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pool").mkdir(parents=True)
        self.line = ""

    def offer(self, *debs: Path, suite: str = "trixie") -> None:
        """The suite has these packages and no others from now on."""
        index = ""
        for deb in debs:
            pool = self.folder / "pool" / f"{sha256(deb)[:8]}.deb"
            pool.write_bytes(deb.read_bytes())
            control = subprocess.run(["dpkg-deb", "--field", str(deb)], check=True, capture_output=True, text=True).stdout
            index += f"{control}Filename: pool/{pool.name}\nSize: {pool.stat().st_size}\nSHA256: {sha256(deb)}\n\n"
        packages = self.folder / f"dists/{suite}/main/binary-amd64/Packages"
        packages.parent.mkdir(parents=True, exist_ok=True)
        packages.write_text(index)
        release = (
            f"Suite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: main\n"
            "Date: Thu, 01 Jan 2026 00:00:00 UTC\n"
            f"SHA256:\n {sha256(packages)} {packages.stat().st_size} main/binary-amd64/Packages\n"
        )
        (self.folder / f"dists/{suite}/Release").write_text(release)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def mirror(folder: Path) -> Iterator[Mirror]:
    """Serves the archive in a folder on the loopback."""
    made = Mirror(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.line = f"deb [trusted=yes] http://127.0.0.1:{server.server_port}/ trixie main"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
