"""`wherry run`: docker run with the defaults that a person wants and a script does not notice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from launcher.cli.dockerflags import RUN
from launcher.cli.words import scan

HELLO: Final = "wherry/hello"
# A name that no registry can answer for: the image is inside the machine.
HELLO_IMAGE: Final = "wherry.internal/hello"


def docker_words(words: Sequence[str], *, terminal: bool) -> list[str]:
    """The words for the docker client. `terminal`: standard input and output are both one."""
    read = scan(words, RUN)
    if not read.arguments:
        return ["run", *words]  # --help, or a mistake that docker explains
    added: list[str] = []
    detached = read.is_on("-d", "--detach")
    if not read.has("--init"):
        added.append("--init")
    # Whoever names one of them has decided about both.
    if terminal and not detached and not read.has("-i", "--interactive", "-t", "--tty", "-a", "--attach"):
        added.append("-it")
    if not detached and not read.has("--name", "--restart", "--cidfile", "--rm"):
        added.append("--rm")
    image = read.arguments[0]
    changed = list(words)
    if words[image] in (HELLO, f"{HELLO}:latest"):
        changed[image] = words[image].replace(HELLO, HELLO_IMAGE)
        if not read.has("--pull"):
            added += ["--pull", "never"]
    return ["run", *added, *changed]
