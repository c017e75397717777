"""One file of a known SHA-256 from one of several addresses: resumed, retried, checked while it comes."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from launcher.errors import IsoProblem
from launcher.images.partial import Partial
from launcher.images.transport import Transport
from launcher.images.web import Hiccup, Unavailable, Web, host, without_password
from launcher.report import Reporter

if TYPE_CHECKING:
    import requests

# What is read at most of an ISO whose size nobody told us; ours have 0.12 GB.
MOST: Final = 2 << 30
# However much each attempt brings: a server that breaks off more often than this is given up.
_MOST_ATTEMPTS: Final = 100
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(?P<first>\d+)-\d+|\*)/(?P<total>\d+|\*)")
_ANOTHER_FILE: Final = "Another address may have it; an old release's file is not what this wherry wants."


@dataclass(frozen=True)
class Wanted:
    """What the file has to be; `size` in bytes, None when only the hash is known."""

    sha256: str
    size: int | None

    @property
    def limit(self) -> int:
        return MOST if self.size is None else self.size


def download(urls: Sequence[str], wanted: Wanted, partial: Partial, transport: Transport, report: Reporter) -> str:
    """Make `partial` the wanted file and return the address that it came from. Raises IsoProblem when no address gives it;
    `partial` then holds what may be gone on with, or nothing."""
    problems: list[tuple[str, IsoProblem]] = []
    with Web(transport) as web:
        for url in urls:
            try:
                _Download(web, url, wanted, partial, transport, report).run()
                return url
            except Unavailable as error:
                problems.append((url, error))
    raise _no_address(problems)


def _no_address(problems: list[tuple[str, IsoProblem]]) -> IsoProblem:
    if len(problems) == 1:
        error = problems[0][1]
        return IsoProblem(f"the ISO cannot be fetched: {error.message}", hint=error.hint)
    detail = "\n".join(f"{without_password(url)}: {error.message}" for url, error in problems)
    hint = next((error.hint for _, error in problems if error.hint), None)
    return IsoProblem(f"none of {len(problems)} addresses gives the ISO.", detail=detail, hint=hint)


class _Download:
    """One address."""

    def __init__(self, web: Web, url: str, wanted: Wanted, partial: Partial, transport: Transport, report: Reporter) -> None:
        self._web, self._url, self._wanted, self._partial = web, url, wanted, partial
        self._transport, self._report = transport, report
        self._host = host(url)
        self._ranges = True  # whether to ask for the rest only
        self._anew = False  # whether all was fetched a second time

    def run(self) -> None:
        """Raises Unavailable."""
        # The command that fetched the last byte may have been killed before it could look at it.
        ended = self._partial.size == self._wanted.size
        while not (ended and self._verified()):
            self._patiently()
            ended = True

    def _verified(self) -> bool:
        """What does not verify is thrown away, and fetched once more if it was pieced together."""
        found, pieced = self._partial.sha256, self._partial.pieced
        if found == self._wanted.sha256:
            return True
        self._partial.restart()
        if pieced and not self._anew:
            self._anew = True
            return False
        raise Unavailable(
            f"{self._host} has another file: its SHA-256 is {found}, wanted is {self._wanted.sha256}.", hint=_ANOTHER_FILE
        )

    def _patiently(self) -> None:
        """The rest of the file, in as many attempts as it takes."""
        failures = 0
        for attempt in range(1, _MOST_ATTEMPTS + 1):
            before = self._partial.size
            try:
                self._attempt()
                return
            except Hiccup as trouble:
                failures = 1 if self._partial.size > before else failures + 1
                if failures >= self._transport.attempts or attempt == _MOST_ATTEMPTS:
                    tried = f", also at attempt {attempt}" if attempt > 1 else ""
                    raise Unavailable(f"{trouble.message}{tried}.", hint="Try again later.") from trouble
                wait = self._transport.first_wait * 2 ** (failures - 1) if trouble.wait is None else trouble.wait
                time.sleep(min(wait, self._transport.longest_wait))

    def _attempt(self) -> None:
        """One request, to the end of its answer. Raises Hiccup, Unavailable."""
        with self._web.open(self._url, **self._range()) as response:
            if response.status_code == 416 and self._nothing_is_left(response):
                return
            total = self._begin(response)
            for data in self._web.chunks(response, self._url):
                self._take(data, total)
        if self._partial.size < (total or self._wanted.size or 0):
            raise Hiccup(f"{self._host} ended the transfer early")

    def _range(self) -> dict[str, str]:
        if not self._ranges or self._partial.size == 0:
            return {}
        headers = {"Range": f"bytes={self._partial.size}-"}
        validator = self._partial.validator(self._url)
        return headers | ({"If-Range": validator} if validator else {})

    def _begin(self, response: requests.Response) -> int | None:
        """Check what the answer promises, and return the size of the whole file, None when it is not told."""
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise Unavailable(f"{self._host} sends the file packed by {encoding}, which was not asked for.", hint=_ANOTHER_FILE)
        validator = response.headers.get("ETag", "")
        strong = "" if validator.startswith("W/") else validator
        if response.status_code == 206:
            total = self._begin_part(response, strong)
            self._check_total(total)
        else:
            total = _number(response.headers.get("Content-Length"))
            self._check_total(total)
            self._partial.restart()
        self._partial.begin_piece(self._url, strong)
        return total

    def _begin_part(self, response: requests.Response, validator: str) -> int | None:
        sent = response.request.headers
        if "Range" not in sent:
            raise Unavailable(
                f"{self._host} answered with a part of the file when all of it was asked for.", hint=_ANOTHER_FILE
            )
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        changed = "If-Range" in sent and validator != sent["If-Range"]
        if match is None or match["first"] is None or int(match["first"]) != self._partial.size or changed:
            self._ranges = False
            raise Hiccup(f"{self._host} answered with another part of the file than was asked for", wait=0)
        return _number(match["total"])

    def _nothing_is_left(self, response: requests.Response) -> bool:
        """Whether what we have is the whole file, in the words of a server that has nothing more."""
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = _number(match["total"]) if match else None
        self._check_total(total)
        if total == self._partial.size:
            return True
        if "Range" not in response.request.headers:
            raise Unavailable(f"{self._host} answered 416 when all of the file was asked for.", hint=_ANOTHER_FILE)
        self._ranges = False
        raise Hiccup(f"{self._host} does not have the rest of the file", wait=0)

    def _check_total(self, total: int | None) -> None:
        if total is None:
            return
        if self._wanted.size is not None and total != self._wanted.size:
            raise Unavailable(
                f"{self._host} has another file: {total} bytes, wanted are {self._wanted.size}.", hint=_ANOTHER_FILE
            )
        if total > self._wanted.limit:
            raise Unavailable(f"{self._host} has {total} bytes for us, more than any ISO of wherry.", hint=_ANOTHER_FILE)

    def _take(self, data: bytes, total: int | None) -> None:
        if self._partial.size + len(data) > self._wanted.limit:
            self._partial.restart()
            raise Unavailable(f"{self._host} sends more than the {self._wanted.limit} bytes of the file.", hint=_ANOTHER_FILE)
        self._partial.write(data)
        total = total or self._wanted.size
        if total is not None:
            self._report.progress("download", self._partial.size, total)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
