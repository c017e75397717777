"""Which wherry keeps the machine: an older one's keeper is replaced while containers go on, a newer one's is left alone.

On the way of every proxied command: psutil and the comparison of versions are imported when a keeper is not ours.
"""

from __future__ import annotations

from typing import Any, Final

from launcher import __version__, control, release
from launcher.errors import ConnectionLost, NotRunning, Refused, WherryError
from launcher.machine import keepers
from launcher.report import Reporter
from launcher.running import ours
from launcher.store import MachineDir

_DIES_WITHIN: Final = 20.0  # seconds for a process to go after a kill


def serving(directory: MachineDir, report: Reporter) -> str | None:
    """What the keeper that we work with does: starting or running. None: there is none any more, and one may be started.

    The caller holds the lock for starting one. Waits for the end of a keeper that is about to end, and ends an older wherry's
    that runs the machine, unless it has sessions open. Raises Refused when a newer wherry made the keeper or a file of the
    machine, or the older one can neither be spoken to nor replaced; NoProgress for a keeper of ours that does not answer.
    """
    try:
        answer = control.status(directory.control_socket)
    except NotRunning:
        answer = {"status": "ended"}
    except WherryError as error:
        _end_silent(directory, error)
        answer = {"status": "ended"}
    else:
        refuse_newer(directory, answer)
        if not directory.keeper_lives():
            # The keeper of a folder that was deleted or moved: it notices, and stops. Or its lock file was removed.
            keepers.wait_gone(directory)
            return serving(directory, report)
    status = str(answer["status"])
    if status == "suspending":
        keepers.wait_suspended(directory)
        return serving(directory, report)
    if status == "suspended" and _wakes(directory, answer):
        return "starting"
    # A start under way is left to who began it.
    if status == "starting" or (status == "running" and (ours(answer) or not _let_go(directory, answer, report))):
        return status
    keepers.wait_gone(directory, alone=True)
    directory.check_state()
    return None


def _wakes(directory: MachineDir, answer: dict[str, Any]) -> bool:
    """Whether the keeper resumes a machine that sleeps by itself; else it ends, and the machine stays suspended."""
    try:
        if ours(answer):
            return bool(control.ask(directory.control_socket, "wake")["woken"])
        control.ask(directory.control_socket, "stop", force=False)
    except (NotRunning, ConnectionLost):
        pass
    return False


def refuse_newer(directory: MachineDir, answer: dict[str, Any]) -> None:
    """Raises Refused when the keeper that gave this answer to `status` is a newer wherry's."""
    wherry = str(answer.get("keeper", {}).get("wherry") or "")
    if release.is_newer(wherry):
        raise Refused(
            f"machine {directory.name!r} is run by wherry {wherry}; this is wherry {__version__}.",
            hint=f"Use wherry {wherry}, or a later one; or, to run it with this one: wherry stop {directory.name}",
        )


def _let_go(directory: MachineDir, answer: dict[str, Any], report: Reporter) -> bool:
    """Have the older keeper give the machine up; False when it goes on, since commands of its own still run."""
    keeper = answer.get("keeper", {})
    try:
        handed = control.handover(directory.control_socket)
    except NotRunning:  # it ended meanwhile
        return True
    except WherryError:  # it does not know the word, or does not answer: a keeper's death is no harm to the machine
        kill_keeper(directory, answer)
        return True
    if handed["released"]:
        return True
    if keeper.get("protocol") != control.PROTOCOL:
        raise Refused(
            f"machine {directory.name!r} is run by wherry {keeper.get('wherry')}, which this one cannot speak to, and"
            f" {handed['sessions']} of its commands still run.",
            hint=f"End them, or: wherry restart {directory.name}",
        )
    report.note(f"the keeper of wherry {keeper.get('wherry')} goes on until its commands have ended ({handed['sessions']} run)")
    return False


def _end_silent(directory: MachineDir, error: WherryError) -> None:
    """End a keeper that gives no answer, or none we understand, when it is an older wherry's. Raises `error` for any other."""
    state = directory.read_state()
    if not release.is_newer(__version__, state.wherry or "0"):
        raise error
    kill_keeper(directory, {"keeper_pid": state.keeper_pid})


def kill_keeper(directory: MachineDir, answer: dict[str, Any]) -> None:
    """Kill the keeper that gave this answer, when it is certain to be one: pid, start time, command and folder."""
    import psutil

    keeper = answer.get("keeper", {})
    try:
        process = psutil.Process(int(keeper.get("pid") or answer.get("keeper_pid") or 0))
        words = process.cmdline()
        known = "launcher.keeper" in words and words[-1] == directory.name and process.cwd() == str(directory.path.resolve())
        if not known or ("start" in keeper and abs(process.create_time() - keeper["start"]) > 2):
            raise WherryError(
                f"the keeper of machine {directory.name!r} does not answer and cannot be told from other processes.",
                hint=f"wherry logs keeper {directory.name}",
            )
        process.kill()
        process.wait(_DIES_WITHIN)
    except psutil.NoSuchProcess:
        return
    except psutil.Error as error:
        raise WherryError(f"the older keeper of machine {directory.name!r} cannot be ended: {error}.") from error
