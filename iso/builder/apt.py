"""Gets packages: apt, configured by mmdebstrap, decides and downloads; the files are kept in a cache outside of any tree.

No mirror is named here. mmdebstrap writes its default source lines (or those of --mirror), the second suite is made from the
first of them. Nothing is installed: the trees are unpacked from the cached files by builder.debs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
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

# What the lock names and the cache lacks, where all of that can be had: then there is no plan. Else apt's own choice.
_FETCH = r"""
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" LC_ALL=C.UTF-8
cd "$1/wherry/debs"
: >../plan
[ -z "$SOURCES" ] || apt-get -y --download-only --tar-only source $SOURCES >&2
if [ -n "$AS_LOCKED" ]; then
    [ -s ../missing ] || exit 0
    if apt-get -y download $(cat ../missing) >&2; then exit 0; fi
    rm -f ./*.deb
fi
apt-get -s -y install $(cat ../names) >../plan 2>../errors || { cat ../errors ../plan >&2; exit 1; }
awk 'NR == FNR { skip[$1] = 1; next }
     $1 == "Inst" && !($2 in skip) { version = substr($3, 2); arch = ""
         for (i = 4; i <= NF; i++) if ($i ~ /^\[.*\]\)$/) arch = substr($i, 2, length($i) - 3)
         file = $2 "_" version "_" arch ".deb"; gsub(/:/, "%3a", file)
         print $2 ":" arch "=" version, file }' ../skip ../plan >../chosen
apt-get --print-uris download $(cut -d " " -f 1 ../chosen) >../uris
# A file in the cache counts when it has the SHA-256 of the signed index.
awk 'FILENAME == ARGV[1] { cached[$1 " SHA256:" $2] = 1; next }
     FILENAME == ARGV[2] { hash[$2] = $4; next }
     !(($2 " " hash[$2]) in cached) { print $1 }' ../cached ../uris ../chosen >../wanted
[ ! -s ../wanted ] || apt-get -y download $(cat ../wanted) >&2
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


def not_cached(packages: Iterable[Package]) -> list[Package]:
    """The locked packages that do not lie in the cache with the locked bytes."""
    folder = cache_folder()
    files = ((package, folder / package.file_name) for package in packages)
    return [package for package, file in files if not file.is_file() or sha256_of(file) != package.sha256]


def fetch(
    want: Want, locked: Sequence[Package] = (), mirrors: Sequence[str] = (), *, exact: bool = False
) -> tuple[Package, ...]:
    """The packages of a tree, in the cache, as apt chooses them: it keeps to the locked versions that it can have. With `exact`
    they are the locked ones, nothing else, as long as every one can be had. Raises BuildError when apt fails."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    missing = not_cached(locked) if exact else []
    chosen = _ask_apt(want, locked, mirrors, as_locked=missing) if missing else ()
    if not chosen and exact and not not_cached(locked):
        return tuple(locked)
    # A mirror may have other bytes under a locked version.
    return chosen or _ask_apt(want, locked, mirrors)


def _ask_apt(
    want: Want, locked: Sequence[Package], mirrors: Sequence[str], as_locked: Sequence[Package] = ()
) -> tuple[Package, ...]:
    """Fills the cache with `as_locked`; without these, or when they cannot be had, with what apt chooses, which is returned."""
    folder = cache_folder()
    with tempfile.TemporaryDirectory(prefix="wherry-fetch-") as name:
        staging = Path(name)
        staging.chmod(0o755)
        _write_request(staging, want, locked, as_locked)
        _mmdebstrap(staging, want, mirrors, as_locked=bool(as_locked))
        text = (staging / "plan").read_text(encoding="utf-8")
        sources = [_source(path, want) for path in sorted((staging / "debs").glob("*.orig.tar.xz"))]
        for fresh in sorted((staging / "debs").iterdir()):
            _move(fresh, folder / fresh.name)
    if not text and as_locked:
        return ()
    return tuple(sorted(replace(p, sha256=sha256_of(folder / p.file_name)) for p in [*_read_plan(text, want), *sources]))


def _source(tarball: Path, want: Want) -> Package:
    """The upstream part of a source package, NAME_VERSION.orig.tar.xz."""
    name, _, version = tarball.name.removesuffix(".orig.tar.xz").partition("_")
    return Package(name, version, "source", want.suite)


def _move(source: Path, target: Path) -> None:
    """Into the cache whole or not at all, also across file systems."""
    partial = target.with_suffix(f".{os.getpid()}.part")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _write_request(staging: Path, want: Want, locked: Sequence[Package], as_locked: Sequence[Package]) -> None:
    """The files that the hooks read."""
    for name, lines in {
        "names": want.names,
        "skip": sorted(want.skip),
        "cached": [f"{path.name} {sha256_of(path)}" for path in sorted(cache_folder().glob("*.deb"))],
        "missing": [f"{p.name}:{p.architecture}={p.version}" for p in as_locked if p.architecture != "source"],
        "preferences": [_preferences(want, locked)],
        "fetch": [_FETCH],
    }.items():
        (staging / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _preferences(want: Want, locked: Sequence[Package]) -> str:
    """apt's pins: the locked versions first, then each package's own suite; nothing else comes from the second one."""
    pins = [(p.name, f"version {p.version}", 1001) for p in locked if p.architecture != "source"]
    if want.second_suite:
        pins.append((" ".join(want.from_second), f"release a={want.second_suite}", 990))
        pins.append(("*", f"release a={want.second_suite}", -1))
    return "\n".join(f"Package: {name}\nPin: {pin}\nPin-Priority: {priority}\n" for name, pin, priority in pins)


def _mmdebstrap(staging: Path, want: Want, mirrors: Sequence[str], *, as_locked: bool) -> None:
    """One run that only resolves and downloads: the variant `custom` with nothing in it, and no output."""
    say(f"packages: asking apt for {want.architecture} ({len(want.names)} names and what they need)")
    quoted = shlex.quote(str(staging))
    command: list[str | Path] = [
        "mmdebstrap",
        "--variant=custom",
        "--format=null",
        "--skip=check/qemu",  # nothing of the foreign architecture runs
        f"--architectures={want.architecture}",
        # An index past its date is no danger here: signatures are checked all the same, and the lock holds the hashes.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        f"--setup-hook={_SETUP}",
        f"--setup-hook=upload {quoted}/preferences /etc/apt/preferences",
        *(
            f"--customize-hook=upload {quoted}/{name} /wherry/{name}"
            for name in ("names", "skip", "cached", "missing", "fetch")
        ),
        '--customize-hook=sh "$1/wherry/fetch" "$1"',
        f"--customize-hook=copy-out /wherry/debs /wherry/plan {quoted}",
        want.suite,
        "/dev/null",
        *mirrors,
    ]
    asked = {"SUITE": want.suite, "SECOND_SUITE": want.second_suite}
    try:
        run(command, env={**asked, "SOURCES": " ".join(want.sources), "AS_LOCKED": "1" if as_locked else ""})
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
