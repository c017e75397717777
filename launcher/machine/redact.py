"""Taking secrets out of what is shown to others."""

from __future__ import annotations

import re
from typing import Any, Final

MASK: Final = "***"
# user:password@ in an address, whatever the scheme.
_IN_URL: Final = re.compile(r"(?<=://)[^/\s\"'<>]*@")
_NAMED: Final = re.compile(
    r"""(?P<name>[\w-]*(?:passw(?:or)?d|passphrase|secret|token|credential|authorization|api[-_]?key|private[-_]?key)[\w-]*
    ["']?\s*[:=]\s*(?:(?:basic|bearer)\s+)?)(?:(?P<quote>["'])(?:(?!(?P=quote)).)*|[^\s,;"'\]}]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_PEM: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
# QEMU's name, which ends in the token of one start.
_QEMU: Final = re.compile(r"\b(wherry-[a-z0-9-]+-)[0-9a-f]{16}\b")
_SECRET_KEY: Final = re.compile(r"passw|secret|token|credential|auth|api[-_]?key|private", re.IGNORECASE)
# Keys of [engine] that sound like it and hold no secret.
_HARMLESS: Final = frozenset({"authorization-plugins"})


def redact(text: str, *known: str) -> str:
    """The text without passwords in addresses, values behind names that tell of a secret, private keys, our own tokens, and the
    secrets that are `known`."""
    for secret in known:
        if secret:
            text = text.replace(secret, MASK)
    text = _PEM.sub(MASK, text)
    text = _IN_URL.sub(f"{MASK}@", text)
    text = _QEMU.sub(rf"\g<1>{MASK}", text)
    return _NAMED.sub(lambda found: f"{found['name']}{found['quote'] or ''}{MASK}", text)


def redact_values(value: Any, *known: str) -> Any:
    """The same for values of TOML or JSON: what stands under a key that tells of a secret goes whole."""
    if isinstance(value, dict):
        return {
            key: MASK if _SECRET_KEY.search(key) and key not in _HARMLESS else redact_values(inner, *known)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [redact_values(inner, *known) for inner in value]
    return redact(value, *known) if isinstance(value, str) else value
