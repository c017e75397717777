"""From running to saved: the guest comes to rest, its memory goes to a file, its disk gets the name that no start uses.

Until the disk has that name the machine can go on, and does when anything fails; from then on it is suspended, whatever ends.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from launcher import files, host, saved
from launcher.errors import WherryError, of_system
from launcher.keeper import identified, rest
from launcher.keeper.watch import Cancelled
from launcher.qemu import migration, sshport
from launcher.saved import Saved

if TYPE_CHECKING:
    from launcher.keeper.launch import Guest
    from launcher.keeper.supervisor import Supervisor
    from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper")

_HANGS_UP_WITHIN: Final = 2.0
_LOOKS_EVERY: Final = 0.02
_TELLS_EVERY: Final = 0.5  # seconds between two words on how far it is


def suspend(keeper: Supervisor) -> None:
    """Save the machine and end QEMU. Raises WherryError when that cannot be: the machine goes on; Cancelled when a stop came
    first. ConnectionLost when QEMU ended meanwhile, which is for who watches over it."""
    guest = keeper.guest
    assert guest is not None
    began = time.monotonic()
    description = identified.describe(keeper)  # refuses before anything is disturbed
    keeper.update(status="suspending")
    _tell(keeper, "quiet", began)
    try:
        expected = _rest(keeper, description.id)
        description = description._replace(at=_stop(guest))
        _tell(keeper, "memory", began)
        count = _save(keeper, description.id, expected)
        _tell(keeper, "disk", began)
        _commit(keeper, description)
    except BaseException as error:
        _undo(keeper, description.id)
        if isinstance(error, OSError):
            raise of_system(error) from error
        raise
    guest.quit()
    size = keeper.directory.memory_file.stat().st_size
    log.info("suspended in %.2f s: %d bytes of memory in %d", time.monotonic() - began, count, size)


def _rest(keeper: Supervisor, identity: str) -> int:
    """Connections and the guest; about how many bytes of memory are in use."""
    used = rest.quiet(keeper.connection(), identity)
    for part in keeper.parts.at_rest:
        part()
    keeper.link.drop()
    _hung_up(keeper)
    return used


def _hung_up(keeper: Supervisor) -> None:
    """Wait until the guest has seen its connections end. A resumed one would find out then, and end what served them at the
    cost of the first new connection, with all of that code to be translated anew."""
    guest = keeper.guest
    assert guest is not None
    began = time.monotonic()
    count = 0
    with suppress(WherryError):  # a QEMU that does not answer is met by the next step, too
        while (count := sshport.connections(guest.qmp)) and time.monotonic() - began < _HANGS_UP_WITHIN:
            time.sleep(_LOOKS_EVERY)
    log.info("connections ended in %.2f s%s", time.monotonic() - began, f"; {count} did not" if count else "")
    if count and keeper.idle_wanted:  # a user's own ssh client, of which we hear nothing else
        raise Woken("somebody is connected to the machine's sshd.")


def _stop(guest: Guest) -> float:
    """When, in seconds since the epoch: where the guest's clock goes on from."""
    guest.qmp.execute("stop")
    return time.time()


class Woken(WherryError):
    """Somebody needs the machine that was about to sleep."""


def _check(keeper: Supervisor) -> None:
    """Raises what ends the saving before it is done."""
    if keeper.stop_wanted:
        raise Cancelled
    if keeper.nap.woken:
        raise Woken("the machine is used again.")


def _save(keeper: Supervisor, identity: str, expected: int) -> int:
    """The guest's memory into its file. How many bytes it was."""
    from launcher import ramfile  # 17 ms of every start

    directory, guest = keeper.directory, keeper.guest
    assert guest is not None
    target = files.temporary(directory.memory_file)
    outcome: list[int | BaseException] = []
    source, sink = os.pipe()
    host.current().widen(sink)
    told = time.monotonic()

    def progress(count: int) -> None:
        nonlocal told
        _check(keeper)
        if time.monotonic() - told > _TELLS_EVERY:
            told = time.monotonic()
            keeper.journal.add({"event": "suspend-progress", "done": count, "total": max(count + 1, expected)})

    def pump() -> None:
        try:
            outcome.append(ramfile.write(source, target, identity, progress))
        except BaseException as error:
            outcome.append(error)
        finally:
            os.close(source)  # QEMU gives up when nobody reads

    writer = threading.Thread(target=pump, name="memory", daemon=True)
    writer.start()
    try:
        try:
            migration.send(guest.qmp, sink)
        finally:
            writer.join()
        result = outcome[0]
        if isinstance(result, BaseException):
            raise result
        migration.wait(guest.qmp)
        host.current().replace(target, directory.memory_file)
        host.current().sync_folder(directory.path)
        return result
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _commit(keeper: Supervisor, description: Saved) -> None:
    """From the last line on the machine is suspended. QEMU has given its disks up with the end of the transfer, and writes
    nothing any more. What state.json says comes with the end of the keeper: the files' names count."""
    directory = keeper.directory
    whole = identified.completed(directory, description)
    _check(keeper)
    saved.write(directory, whole)
    saved.put_away(directory)


def _undo(keeper: Supervisor, identity: str) -> None:
    """The machine goes on where it was stopped. Before that nothing tells any more that there is something to resume."""
    guest = keeper.guest
    assert guest is not None
    try:
        saved.discard(keeper.directory)
    except OSError as error:  # what tells is older than the disk from now on, and so not believed
        log.warning("what was saved is not removed: %s", error)
    keeper.update(status="running")
    go_on(keeper, identity)


def go_on(keeper: Supervisor, identity: str) -> None:
    """Let a guest run that was stopped to be saved; what it does not answer now it is asked with the next connection."""
    guest = keeper.guest
    assert guest is not None
    try:
        guest.qmp.execute("cont")
        keeper.link.drop()  # where it is there still: what was ended for the rest begins anew with the next one
        keeper.parts.greet = lambda connection: wake(keeper, connection, identity)
        keeper.connection()
    except WherryError as error:  # containers go on by themselves after a while
        log.warning("going on: %s", error.message)
        if not keeper.watch.ended:
            keeper.link.want("the machine could not be suspended")


def wake(keeper: Supervisor, connection: Connection, identity: str, behind: float | None = None) -> None:
    """The guest runs again: its clock, its random pool, its containers. Raises WherryError.

    `behind`: by how many seconds its clock is, where that is known: to set it in the same call saves 10 questions.
    """
    if behind is None:
        keeper.healer.set_clock(connection)
    if not rest.wake(connection, identity, behind) and behind is not None:
        keeper.healer.set_clock(connection)


def _tell(keeper: Supervisor, step: str, began: float) -> None:
    keeper.journal.add({"event": "suspend", "step": step, "seconds": round(time.monotonic() - began, 2)})
