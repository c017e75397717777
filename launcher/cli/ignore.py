""".dockerignore: Docker's patterns (moby/patternmatcher), as a pure function of text and paths."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pattern:
    """One line of the file: what it matches, and whether it brings back (`!`) what an earlier one took."""

    text: str
    brings_back: bool
    expression: re.Pattern[str]

    def matches(self, path: str) -> bool:
        """Whether the pattern matches the path itself or one of its parents, which takes everything below with it."""
        while path:
            if self.expression.fullmatch(path):
                return True
            path = posixpath.dirname(path)
        return False


def parse(text: str) -> list[Pattern]:
    """The patterns of a .dockerignore; `#` at the very start of a line is a comment, blank lines say nothing."""
    found = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#"):
            continue
        word = line.strip()
        brings_back = word.startswith("!")
        word = word[1:].strip() if brings_back else word
        if not word:
            continue
        word = posixpath.normpath(word).lstrip("/")
        # "." and "/" as a whole say nothing, as with docker: nobody means to send nothing.
        if word and word != ".":
            found.append(Pattern(word, brings_back, re.compile(_expression(word), re.DOTALL)))
    return found


def _expression(pattern: str) -> str:
    """Go's filepath.Match with `**` for any number of folders."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                at += 1
                out.append("(?:.*/)?")
            else:
                out.append(".*")
            continue
        if char == "[":
            piece, at = _character_class(pattern, at)
            out.append(piece)
            continue
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            out.append(re.escape(pattern[at]))
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)))
        at += 1
    return "".join(out)


def _character_class(pattern: str, at: int) -> tuple[str, int]:
    end = pattern.find("]", at + 2)
    if end < 0:
        return re.escape("["), at + 1
    body = pattern[at + 1 : end]
    negated = body.startswith("^")
    body = body[1:] if negated else body
    return "[" + ("^" if negated else "") + re.sub(r"([\\\[\]^&~|])", r"\\\1", body) + "]", end + 1


class Ignore:
    """Decides what stays out of a build context."""

    def __init__(self, patterns: Sequence[Pattern], always: Iterable[str] = ()) -> None:
        self._patterns = patterns
        self._always = frozenset(always)  # sent whatever the patterns say: the Dockerfile, .dockerignore, secrets

    def excludes(self, path: str) -> bool:
        """Whether the path (relative, with slashes) stays out; the last pattern that matches decides."""
        if path in self._always:
            return False
        out = False
        for pattern in self._patterns:
            if out == pattern.brings_back and pattern.matches(path):
                out = not pattern.brings_back
        return out

    def enters(self, folder: str) -> bool:
        """Whether an excluded folder must be looked into, because something below it may be sent all the same."""
        below = f"{folder}/"
        if any(path.startswith(below) for path in self._always):
            return True
        return any(pattern.brings_back and _reaches(pattern.text, folder) for pattern in self._patterns)


def _reaches(pattern: str, folder: str) -> bool:
    """Whether the pattern could match something below the folder; in doubt yes."""
    parts, parents = pattern.split("/"), folder.split("/")
    for part, parent in zip(parts, parents, strict=False):
        if "**" in part:
            return True
        if not re.fullmatch(_expression(part), parent):
            return False
    return True
