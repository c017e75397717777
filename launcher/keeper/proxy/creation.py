"""One create request: its body rewritten, and the answer told to who chose ports for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from launcher.errors import WherryError
from launcher.keeper.proxy import create
from launcher.keeper.proxy.create import Rules
from launcher.keeper.proxy.refusal import Refusal

Tell = Callable[[int, bytes], None]  # to be told status and body of the engine's answer, status 0 when none came


class Ports(Protocol):
    """The published ports of the machine."""

    def before_create(self, settings: dict[str, Any], image: str, exposed: list[str]) -> tuple[bool, Tell]:
        """Choose ports in a HostConfig; whether it changed. `exposed` is what the request adds to the image's own.

        Raises WherryError.
        """


class Creation:
    def __init__(self, rules: Rules, ports: Ports | None) -> None:
        self._rules = rules
        self._ports = ports
        self._tell: Tell | None = None

    def rewrite(self, body: bytes) -> bytes:
        """Raises Refusal."""
        return create.rewrite(body, self._rules, self._publish)

    def answered(self, status: int, body: bytes) -> bytes:
        """To be called once, and harmless when called again: the engine's answer, status 0 for none. The body as it is."""
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(status, body)
        return body

    def _publish(self, settings: dict[str, Any], image: str, exposed: list[str]) -> bool:
        if self._ports is None:
            return False
        try:
            changed, self._tell = self._ports.before_create(settings, image, exposed)
        except WherryError as error:
            raise Refusal(500, f"{error.message.rstrip('.')}; the container was not created.\n        {error.hint}") from error
        return changed
