"""Whom we trust: the system's own store, and what is said when a certificate does not pass.

A company's proxy that opens TLS shows certificates of its own: so the issuer that was seen is named.
"""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from launcher.errors import IsoProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.x509 import Certificate, Name

# X509_V_ERR_* of OpenSSL's x509_vfy.h; truststore passes other systems' numbers on, then the certificate itself is asked.
_EXPIRED: Final = {9, 10}
_OTHER_NAME: Final = {62, 64}


def context(ca: str) -> ssl.SSLContext:
    """Verifies with the certificates of the system (OpenSSL's, the keychain, Windows' store), and those in the file `ca`."""
    import truststore

    made = cast(ssl.SSLContext, truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    if ca:
        try:
            made.load_verify_locations(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise IsoProblem(f"the certificates in {ca} cannot be read: {error}.", hint="A PEM file is wanted.") from error
    return made


class Peek:
    """Looks at the certificate that a server shows, whatever it is worth. The handshake is broken off: nothing is sent."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.context.sslsocket_class = _peeking(self.seen.append)


def _peeking(see: Callable[[bytes], None]) -> type[ssl.SSLSocket]:
    class Peeking(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            see(self.getpeercert(binary_form=True) or b"")
            raise ConnectionAbortedError("seen")

    return Peeking


def complaint(
    host: str, error: ssl.SSLCertVerificationError, certificate: bytes | None, now: datetime | None = None
) -> IsoProblem:
    """What is wrong with the certificate (DER) of a server, as one sentence and a next step."""
    code = getattr(error, "verify_code", 0)
    shown = _parse(certificate)
    if shown is None:
        return _untrusted(host, getattr(error, "verify_message", "") or str(error), "an unknown issuer")
    now = now or datetime.now(UTC)
    ends = shown.not_valid_after_utc
    if code in _EXPIRED or not shown.not_valid_before_utc <= now <= ends:
        when = f"is valid from {shown.not_valid_before_utc:%Y-%m-%d} to {ends:%Y-%m-%d}"
        return IsoProblem(
            f"the certificate of {host} {when}, and today is {now:%Y-%m-%d}.",
            hint="Is this computer's clock right? Else the server's certificate has to be renewed.",
        )
    names = _names(shown)
    if code in _OTHER_NAME:
        return IsoProblem(
            f"the certificate of {host} is for {', '.join(names) or 'no host at all'}: this is another server.",
            hint="Check the address, and whether a proxy or a login page of the network answers in its place.",
        )
    issuer = "itself" if shown.issuer == shown.subject else _say(shown.issuer)
    return _untrusted(host, "", issuer)


def _untrusted(host: str, why: str, issuer: str) -> IsoProblem:
    return IsoProblem(
        f"the certificate of {host} is not trusted: it was issued by {issuer}{f' ({why})' if why else ''}.",
        hint="If that is your company's proxy, make this computer trust its certificate, or name it in SSL_CERT_FILE.",
    )


def _parse(certificate: bytes | None) -> Certificate | None:
    from cryptography import x509

    try:
        return x509.load_der_x509_certificate(certificate) if certificate else None
    except ValueError:
        return None


def _names(shown: Certificate) -> list[str]:
    from cryptography import x509

    try:
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [str(name.value) for name in names]
    except (x509.ExtensionNotFound, ValueError):
        return []


def _say(name: Name) -> str:
    """The common name and the organization, as far as they are there: "Corp Root CA (Corp Inc.)"."""
    from cryptography.x509.oid import NameOID

    def part(oid: Any) -> str:
        found = name.get_attributes_for_oid(oid)
        return str(found[0].value) if found else ""

    common, organization = part(NameOID.COMMON_NAME), part(NameOID.ORGANIZATION_NAME)
    if common and organization:
        return f"{common!r} ({organization})"
    return repr(common or organization or name.rfc4514_string())


def find(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """The failed verification among the causes of an error."""
    return next((cause for cause in causes(error) if isinstance(cause, ssl.SSLCertVerificationError)), None)


def causes(error: BaseException | None) -> list[BaseException]:
    """The error and all that led to it: requests wraps urllib3's, which wrap ours of the standard library, each in its way."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        now = waiting.pop(0)
        if isinstance(now, BaseException) and now not in found:
            found.append(now)
            waiting += [now.__cause__, now.__context__, getattr(now, "reason", None), *now.args]
    return found


def is_name_failure(error: BaseException) -> bool:
    return any(isinstance(cause, socket.gaierror) for cause in causes(error))
