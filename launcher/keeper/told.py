"""What a client is told of while the machine starts, stops or is saved: the journal's events, one by one, then how it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from launcher.errors import NotRunning, WherryError, from_json
from launcher.keeper import starter
from launcher.keeper.supervisor import Supervisor

Send = Callable[[dict[str, Any]], object]
_PORTS_WITHIN: Final = 20.0  # seconds after it is ready; what keeps them away is told by `status`


def start(keeper: Supervisor, send: Send) -> dict[str, Any]:
    """The start's events from its beginning, then its result; of a machine that was just resumed when its published ports are
    back, too. Raises its error."""
    for event in keeper.journal.follow():
        if event["event"] == "ready":
            keeper.parts.urgent_done.wait(_PORTS_WITHIN)
            data: dict[str, Any] = event["data"]
            return data
        if event["event"] == "failed":
            raise starter.error_of(event)
        if event["event"] == "stopped":
            raise WherryError("the machine was stopped while it started.", hint="wherry up")
        send(event)
    raise AssertionError("a journal never ends")


def stop(keeper: Supervisor, send: Send, *, force: bool) -> dict[str, Any]:
    """Ask for the machine's end; its steps, then whether it was forced."""
    keeper.request_stop(force=force)
    begun = False
    for event in keeper.journal.follow():
        if event["event"] == "stopped":
            return {"forced": event["forced"]}
        begun = begun or event["event"] == "stop"  # what came before belongs to the start
        if begun and event["event"] in ("stop", "note", "warning"):
            send(event)
    raise AssertionError("a journal never ends")


def suspend(keeper: Supervisor, send: Send) -> dict[str, Any]:
    """Ask for the machine to be saved; its steps. Raises why it was not, NotRunning when a stop came first."""
    since = keeper.journal.end
    keeper.wait_ready()
    keeper.request_suspend()
    for event in keeper.journal.follow(since):
        if event["event"] == "unsuspended":
            raise from_json(event["error"])
        if event["event"] == "stopped":
            if keeper.status == "suspended":
                return {}
            raise NotRunning("the machine was stopped before it was suspended.", hint="wherry up")
        if event["event"] in ("suspend", "suspend-progress", "warning"):
            send(event)
    raise AssertionError("a journal never ends")
