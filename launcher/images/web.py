"""Web requests by requests, whose errors become ours: one that is final for this address, or a hiccup that is worth a retry."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy, should_bypass_proxies

from launcher import __version__
from launcher.errors import IsoProblem
from launcher.images import trust
from launcher.images.transport import Transport

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MOST_REDIRECTS: Final = 10
_TRY_AGAIN: Final = (408, 429, 500, 502, 503, 504)
_CHUNK: Final = 64 * 1024
_BROKEN_OFF: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_LOOK: Final = "Check the address in a browser."


class Unavailable(IsoProblem):
    """This address will not give the file, however often it is asked."""


class Hiccup(Exception):
    """Something that may pass; `wait` is what the server asked for, in seconds."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.wait = wait


class Web:
    """A session with the system's trust and its proxies."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"wherry/{__version__}"
        # The bytes of the file itself: a part of something packed could not be gone on with.
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.mount("https://", _Adapter(trust.context(transport.ca)))

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @contextmanager
    def open(self, url: str, **headers: str) -> Iterator[requests.Response]:
        """The answer to GET behind all redirects: 200, 206 or 416. Raises Unavailable, Hiccup."""
        seen = url
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._get(seen, headers)
            with response:
                if response.status_code not in _REDIRECTS:
                    self._check(response, seen)
                    yield response
                    return
                seen = _redirected(seen, response.headers.get("Location", ""))
        raise Unavailable(f"{host(url)} redirects in circles.", hint=_LOOK)

    def chunks(self, response: requests.Response, url: str) -> Iterator[bytes]:
        """The body as it comes. Raises Hiccup when it does not come, or not whole."""
        while True:
            try:
                # read1: what is there, so that a slow line shows progress and a broken one loses nothing.
                data = response.raw.read1(_CHUNK, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise self._translated(error, url) from error
            if not data:
                return
            yield data

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        try:
            return self._session.get(
                url, headers=headers, stream=True, allow_redirects=False, proxies=self._proxies(url),
                timeout=(self._transport.connect, self._transport.stall),
            )  # fmt: skip
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, UnicodeError) as error:
            raise self._translated(error, url) from error

    def _check(self, response: requests.Response, url: str) -> None:
        status = response.status_code
        if status in (200, 206, 416):
            return
        said = f"{host(url)} answered {status} {response.reason or ''}".rstrip()
        if status in _TRY_AGAIN:
            raise Hiccup(said, _retry_after(response.headers.get("Retry-After", "")))
        hints = {
            401: "It wants a login: a line in ~/.netrc gives it one.",
            403: "It does not let you have the file.",
            404: "Check the address.",
            407: "The proxy wants a login: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
        }
        raise Unavailable(f"{said} for {without_password(url)}.", hint=hints.get(status, _LOOK))

    def _proxies(self, url: str) -> dict[str, str]:
        """Ours where it was set and NO_PROXY does not name the host; else requests looks in the environment and the system."""
        if not self._transport.proxy or should_bypass_proxies(url, no_proxy=None):
            return {}
        return {"http": self._transport.proxy, "https": self._transport.proxy}

    def _translated(self, error: Exception, url: str) -> Unavailable | Hiccup:
        verification = trust.find(error)
        if verification is not None:
            found = trust.complaint(host(url), verification, self._shown_certificate(url))
            return Unavailable(found.message, hint=found.hint)
        causes = trust.causes(error)
        if any(isinstance(cause, urllib3.exceptions.ProxyError | requests.exceptions.InvalidProxyURL) for cause in causes):
            return self._proxy_problem(url, causes)
        if trust.is_name_failure(error):
            return Unavailable(f"the name {host(url)} is not known here.", hint="Check the address and the network.")
        if any(isinstance(cause, ssl.SSLError) and not isinstance(cause, _BROKEN_OFF) for cause in causes):
            return Unavailable(f"{host(url)} and this computer do not agree on TLS: {_innermost(causes)}.", hint=_LOOK)
        return _hiccup(host(url), causes, self._transport) or Unavailable(f"{host(url)} cannot be asked: {_innermost(causes)}.")

    def _proxy_problem(self, url: str, causes: list[BaseException]) -> Unavailable:
        used = requests.utils.get_environ_proxies(url, no_proxy=None) | self._proxies(url)
        text = str(_innermost(causes))
        login = "It wants a login: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT" if "407" in text else None
        return Unavailable(
            f"the proxy {without_password(select_proxy(url, used) or '')} does not connect to {host(url)}: {text}.",
            hint=login or "Check HTTPS_PROXY, or name the host in NO_PROXY if it needs none.",
        )

    def _shown_certificate(self, url: str) -> bytes | None:
        """The certificate that the server shows, in DER, by the same way as the request went."""
        peek = trust.Peek()
        with requests.Session() as session:
            session.mount("https://", _Adapter(peek.context))
            try:
                session.get(url, verify=False, timeout=self._transport.connect, proxies=self._proxies(url)).close()
            except (requests.RequestException, OSError):
                pass
        return peek.seen[-1] if peek.seen else None


class _Adapter(HTTPAdapter):
    """Connects with a context of ours; requests would add the certificates of certifi."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=self._context)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        address, options = super().build_connection_pool_key_attributes(request, verify, cert)
        options["cert_reqs"] = self._wanted()
        return address, options

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        if isinstance(verify, str):  # REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
        conn.cert_reqs = self._wanted()

    def _wanted(self) -> Literal["CERT_REQUIRED", "CERT_NONE"]:
        return "CERT_NONE" if self._context.verify_mode == ssl.CERT_NONE else "CERT_REQUIRED"


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    scheme = urlsplit(target).scheme
    if not location or scheme not in ("http", "https"):
        raise Unavailable(f"{host(url)} redirects to {without_password(location) or 'nowhere'}, which is not followed.")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise Unavailable(f"{host(url)} redirects from https to {without_password(target)}, which is not followed.")
    return target


def _hiccup(name: str, causes: list[BaseException], transport: Transport) -> Hiccup | None:
    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    # Of a request that got no answer it is not told which of the two times ran out.
    if has(requests.ConnectTimeout, requests.ReadTimeout):
        return Hiccup(f"{name} does not answer")
    if has(urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return Hiccup(f"{name} sent nothing for {transport.stall:g} s")
    if has(ConnectionRefusedError):
        return Hiccup(f"{name} refuses the connection")
    if has(ConnectionError):
        return Hiccup(f"{name} reset the connection")
    if has(urllib3.exceptions.ProtocolError):
        return Hiccup(f"{name} ended the transfer early")
    if has(OSError, requests.ConnectionError):
        return Hiccup(f"{name} cannot be reached: {_innermost(causes)}")
    return None


def _innermost(causes: list[BaseException]) -> BaseException:
    return next((cause for cause in reversed(causes) if str(cause)), causes[0])


def _retry_after(value: str) -> float | None:
    """Seconds, or a date (RFC 9110, 10.2.3)."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2] or url
