"""The published ports of one connection's requests: had before a start goes on, shown in answers as they are here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

from launcher.errors import WherryError
from launcher.keeper.proxy import creation
from launcher.keeper.proxy.refusal import Refusal

log = logging.getLogger("wherry.proxy")


class Ports(creation.Ports, Protocol):
    """The published ports of the machine."""

    def before_start(
        self, reference: str, *, restart: bool = False, check: Callable[[dict[str, Any]], None]
    ) -> Callable[[int], None]:
        """Have all ports of a container that is about to be started, or started anew, when `check` of its description raises
        no Refusal. What it returns is told the status of the engine's answer, 0 when none came. Raises WherryError when one
        cannot be had."""

    def shown(self, body: bytes) -> bytes:
        """An answer about containers, with ports as they are here."""


class Published:
    """Of one connection; without `ports` it does nothing. `check` looks at what a container that is to start needs besides."""

    def __init__(self, ports: Ports | None, check: Callable[[dict[str, Any]], None]) -> None:
        self.ports = ports
        self._check = check
        self._started: Callable[[int], None] | None = None  # to be told how the engine answers a start

    def hold(self, container: str, restart: bool) -> None:
        """Have the ports of a container whose start, or restart, is asked for; `tell` is to follow. Raises Refusal."""
        if self.ports is None:
            return
        try:
            self._started = self.ports.before_start(container, restart=restart, check=self._check)
        except Refusal:
            raise
        except WherryError as error:
            # As the engine answers it, whose clients know: 500, and docker run ends with 125.
            what = f"the container was not {'restarted' if restart else 'started'}"
            raise Refusal(500, f"{error.message.rstrip('.')}; {what}.\n        {error.hint}") from error
        except Exception:  # what is wrong with the request the engine says itself
            log.exception("the ports of %s", container)

    def tell(self, status: int) -> None:
        """The engine's answer, 0 for none; harmless when no start is under way."""
        started, self._started = self._started, None
        if started is not None:
            started(status)

    def shown(self, status: int, body: bytes) -> bytes:
        """The body of an answer about containers."""
        if self.ports is None or status != HTTPStatus.OK:
            return body
        try:
            return self.ports.shown(body)
        except Exception:  # the engine's own words are better than none
            log.exception("an answer about containers")
            return body
