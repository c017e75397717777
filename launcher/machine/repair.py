"""What `broken` and a start that was refused point to: mends what can be mended, keeps the data."""

from __future__ import annotations

from launcher import readiness, store
from launcher.errors import NoSuchMachine, Refused
from launcher.machine.disk import repair_disk
from launcher.machine.stop import running
from launcher.report import Reporter


def repair(name: str, report: Reporter) -> list[str]:
    """Mend the machine; what was done, as sentences, none when nothing was to be done. Raises Refused while it runs."""
    directory = store.machine(name)
    if not directory.exists():
        raise NoSuchMachine(f"there is no machine {name!r}.", hint="wherry list")
    if running(directory):
        raise Refused(f"machine {name!r} is running.", hint=f"wherry stop {name}")
    done = []
    if str(directory.read_state().last_error.get("message", "")).startswith(readiness.DAMAGED_WORDS):
        done += repair_disk(name, report).notes
    return done
