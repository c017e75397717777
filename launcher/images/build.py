"""Building an ISO here, by iso/build.py of the checkout or of the wheel."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from launcher import __version__, guestfiles, host, proc, store
from launcher.errors import IsoProblem, MissingOnHost
from launcher.images import verify
from launcher.images.cache import Iso
from launcher.images.importer import import_file
from launcher.report import Reporter

_STDERR: Final = 2
_TAIL: Final = 20  # lines of a build that failed


@dataclass(frozen=True)
class Rebuilt:
    """The outcome of a second build."""

    expected: str
    sha256: str
    notes: tuple[str, ...]  # why the two may differ

    @property
    def same(self) -> bool:
        return self.sha256 == self.expected


def build(arch: str, report: Reporter, *, shown: bool, fast: bool = False) -> Iso:
    """Build the ISO and take it into the cache. A checkout keeps it in build/, else it is built in the cache folder.

    `shown`: what the build says goes to our standard error as it comes. Raises MissingOnHost, IsoProblem.
    """
    checkout = guestfiles.checkout()
    output = checkout / "build" if checkout else store.cache_dir() / "build"
    words = ["--version", __version__] if checkout is None else []
    _run(arch, output, [*words, *(["--fast"] if fast else [])], shown=shown)
    return import_file(output / f"wherry-{arch}.iso", arch, "checkout" if checkout else "file", report)


def rebuild(said: dict[str, Any], report: Reporter, *, shown: bool) -> Rebuilt:
    """Build once more what a manifest describes, by the locks of this wherry, in a folder of its own that goes afterwards."""
    notes = []
    if said.get("unlocked") is True:
        notes.append("it was built from other packages than its lock named (unlocked)")
    facts = said.get("rebuild")
    if isinstance(facts, dict) and facts.get("fast") is True:
        notes.append("it was built with light compression (--fast)")
    differ = verify.lock_differences(said, guestfiles.guest_root() / "iso" / "locks")
    if differ:
        notes.append(f"this wherry's lock has other packages, {len(differ)} in all: {', '.join(differ[:5])}")
    if said["version"] != __version__:
        notes.append(f"it is of wherry {said['version']}, this is {__version__}")
    with tempfile.TemporaryDirectory(prefix="wherry-rebuild-") as folder:
        _run(said["architecture"], Path(folder), ["--locked", "--force"], shown=shown)
        found = verify.digest(Path(folder) / f"wherry-{said['architecture']}.iso", report)
    return Rebuilt(said["sha256"], found, tuple(notes))


def _run(arch: str, output: Path, options: list[str], *, shown: bool) -> None:
    if host.current().NAME != "linux":
        raise MissingOnHost("an ISO is built on Linux.", hint="wherry iso pull")
    script = guestfiles.guest_root() / "iso" / "build.py"
    words: list[str | Path] = [sys.executable, script, "--arch", arch, "--output", output, *options]
    with _output(shown) as said:
        process = proc.spawn(words, stdout=said, stderr=said)
        try:
            code = process.wait()
        except BaseException:
            # Ctrl-C reached it as well; it tidies up after itself.
            process.wait()
            raise
        if code != 0:
            detail = None
            if not isinstance(said, int):
                said.seek(0)
                detail = "\n".join(said.read().decode(errors="replace").splitlines()[-_TAIL:])
            raise IsoProblem(f"the build of the ISO for {arch} failed.", detail=detail, hint="The lines above say why.")


@contextlib.contextmanager
def _output(shown: bool) -> Iterator[int | IO[bytes]]:
    if shown:
        yield _STDERR
        return
    with tempfile.TemporaryFile() as log:
        yield log
