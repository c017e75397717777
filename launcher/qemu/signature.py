"""What of a QEMU's command line decides whether another QEMU can go on with its guest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

# Words whose next one is of one start alone, or says what the guest has long read.
_OWN: Final = frozenset({"-name", "-kernel", "-initrd", "-incoming"})
_FLAGS: Final = frozenset({"-S"})
# Values within a word: descriptors, and places of files. A doubled comma belongs to the value.
_VALUE: Final = re.compile(r"\b(fd|filename|path|file)=(?:[^,]|,,)*")
_NODE: Final = re.compile(r"\bfile=(?:iso|data-file)(?=,|$)")


def of(argv: Sequence[str]) -> list[str]:
    """The words after the program's name that count, in order."""
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word in _FLAGS:
            continue
        if word in _OWN:
            next(rest, None)
            continue
        words.append(word if _NODE.search(word) else _VALUE.sub(r"\1=", word))
    return words


def difference(saved: Sequence[str], now: Sequence[str]) -> str:
    """How two of them differ, in a few words; empty when they do not."""
    gone = [word for word in saved if word not in now]
    come = [word for word in now if word not in saved]
    if gone or come:
        return f"{' '.join(gone) or 'nothing'} then, {' '.join(come) or 'nothing'} now"
    return "" if list(saved) == list(now) else "the same words in another order"


def hardware(argv: Sequence[str]) -> tuple[int, int]:
    """CPUs, and memory in MiB, of the guest. Raises ValueError for a command line that is none of ours."""
    words = list(argv)
    return int(words[words.index("-smp") + 1]), int(words[words.index("-m") + 1])
