"""Gets packages: apt, configured by mmdebstrap, decides and downloads; the files are kept in a cache outside of any tree.

No mirror is named here. mmdebstrap writes its default source lines (or the user's), the second suite is made from the first of
them. Nothing is installed: the trees are unpacked from the cached files by builder.debs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builder.lock import Package
from builder.log import BuildError, run, say

# The hooks are handed over whole: in mmdebstrap's unshare mode they run as another user, who may not see a checkout.
_SETUP = r"""
set -eu
list="$1/etc/apt/sources.list"
[ -s "$list" ] || { echo "mmdebstrap wrote no sources.list" >&2; exit 1; }
if [ -n "$SECOND_SUITE" ]; then
    sed -n "s/ $SUITE / $SECOND_SUITE /p" "$list" | head -n 1 >"$1/etc/apt/sources.list.d/second.list"
fi
[ -z "$SOURCES" ] || sed -n 's/^deb /deb-src /p' "$list" >"$1/etc/apt/sources.list.d/source.list"
mkdir -p "$1/wherry/debs"
"""

_FETCH = r"""
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" LC_ALL=C.UTF-8
cd "$1/wherry/debs"
apt-get -s -y install $(cat ../names) >../plan 2>../errors || { cat ../errors ../plan >&2; exit 1; }
awk 'NR == FNR { skip[$1] = 1; next }
     $1 == "Inst" { version = substr($3, 2); arch = ""
         for (i = 4; i <= NF; i++) if ($i ~ /^\[.*\]\)$/) arch = substr($i, 2, length($i) - 3)
         file = $2 "_" version "_" arch ".deb"; gsub(/:/, "%3a", file)
         if (!($2 in skip) && !(file in skip)) print $2 ":" arch "=" version }' ../skip ../plan >../wanted
[ ! -s ../wanted ] || apt-get -y download $(cat ../wanted) >&2
[ -z "$SOURCES" ] || apt-get -y --download-only --tar-only source $SOURCES >&2
"""

_INST = re.compile(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) (.*) \[(\S+)\]\)")


@dataclass(frozen=True)
class Want:
    """What one tree is made of, before apt has decided on versions."""

    suite: str
    architecture: str
    names: tuple[str, ...]
    skip: frozenset[str]
    second_suite: str = ""
    from_second: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Tells whether a lock was made for this request."""
        lists = [sorted(names) for names in (self.names, self.skip, self.from_second, self.sources)]
        return hashlib.sha256(repr((self.suite, self.architecture, self.second_suite, lists)).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Where downloaded packages stay between builds."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "wherry-build" / "debs"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def all_cached(packages: Iterable[Package]) -> bool:
    """Whether every locked package lies in the cache with the locked bytes."""
    folder = cache_folder()
    return all((folder / p.file_name).is_file() and sha256_of(folder / p.file_name) == p.sha256 for p in packages)


def fetch(want: Want, locked: Sequence[Package]) -> tuple[Package, ...]:
    """Lets apt choose (the locked versions where they can still be had) and download what the cache lacks."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wherry-fetch-") as name:
        staging = Path(name)
        staging.chmod(0o755)
        _write_request(staging, want, locked, folder)
        _mmdebstrap(staging, want)
        plan = _read_plan((staging / "plan").read_text(encoding="utf-8"), want)
        plan += [_source(path, want) for path in sorted((staging / "debs").glob("*.orig.tar.xz"))]
        for fresh in sorted((staging / "debs").iterdir()):
            _move(fresh, folder / fresh.name)
    return tuple(sorted(replace(p, sha256=sha256_of(folder / p.file_name)) for p in plan))


def _source(tarball: Path, want: Want) -> Package:
    """The upstream part of a source package, NAME_VERSION.orig.tar.xz."""
    name, _, version = tarball.name.removesuffix(".orig.tar.xz").partition("_")
    return Package(name, version, "source", want.suite)


def _move(source: Path, target: Path) -> None:
    """Into the cache whole or not at all, also across file systems."""
    partial = target.with_suffix(f".{os.getpid()}.part")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _write_request(staging: Path, want: Want, locked: Sequence[Package], folder: Path) -> None:
    """The files that the hooks read."""
    cached = sorted(path.name for path in folder.glob("*.deb"))
    (staging / "names").write_text("\n".join(want.names) + "\n", encoding="utf-8")
    (staging / "skip").write_text("\n".join([*sorted(want.skip), *cached]) + "\n", encoding="utf-8")
    (staging / "fetch").write_text(_FETCH, encoding="utf-8")
    (staging / "preferences").write_text(_preferences(want, locked), encoding="utf-8")


def _preferences(want: Want, locked: Sequence[Package]) -> str:
    """apt's pins: the locked versions first, then each package's own suite; nothing else comes from the second one."""
    pins = [(p.name, f"version {p.version}", 1001) for p in locked if p.architecture != "source"]
    if want.second_suite:
        pins.append((" ".join(want.from_second), f"release a={want.second_suite}", 990))
        pins.append(("*", f"release a={want.second_suite}", -1))
    return "\n".join(f"Package: {name}\nPin: {pin}\nPin-Priority: {priority}\n" for name, pin, priority in pins)


def _mmdebstrap(staging: Path, want: Want) -> None:
    """One run that only resolves and downloads: the variant `custom` with nothing in it, and no output."""
    say(f"packages: asking apt for {want.architecture} ({len(want.names)} names and what they need)")
    command: list[str | Path] = [
        "mmdebstrap",
        "--variant=custom",
        "--format=null",
        "--skip=check/qemu",  # nothing of the foreign architecture runs
        f"--architectures={want.architecture}",
        # An index past its date is no danger here: signatures are checked all the same, and the lock holds the hashes.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        f"--setup-hook={_SETUP}",
        f"--setup-hook=upload {staging}/preferences /etc/apt/preferences",
        *(f"--customize-hook=upload {staging}/{name} /wherry/{name}" for name in ("names", "skip", "fetch")),
        '--customize-hook=sh "$1/wherry/fetch" "$1"',
        f"--customize-hook=copy-out /wherry/debs /wherry/plan {staging}",
        want.suite,
        "/dev/null",
    ]
    try:
        run(command, env={"SUITE": want.suite, "SECOND_SUITE": want.second_suite, "SOURCES": " ".join(want.sources)})
    except BuildError as error:
        lines = [line for line in str(error).splitlines() if not line.strip().startswith(("I:", "W:"))]
        hint = "\nThe engine of Debian stable may still be had: --suite-engine stable" if want.second_suite else ""
        suites = f"{want.suite} {want.second_suite}".strip()
        raise BuildError(f"the packages of {suites} could not be had: " + "\n".join(lines) + hint) from error


def _read_plan(text: str, want: Want) -> list[Package]:
    """apt's simulation as packages, without those that the recipe skips."""
    packages = []
    for line in text.splitlines():
        match = _INST.match(line)
        if match and match[1] not in want.skip:
            second = want.second_suite and f":{want.second_suite}" in match[3] and f"/{want.suite}" not in match[3]
            suite = want.second_suite if second else want.suite
            packages.append(Package(match[1], match[2], match[4], suite))
    if not packages:
        raise BuildError("apt's plan names no package")
    return packages
