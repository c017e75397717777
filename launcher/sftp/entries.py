"""An entry of a share before something is done to it: what it is, and whether that may be done."""

from __future__ import annotations

import errno
import os

from launcher.sftp.policy import refusal
from launcher.sftp.rules import HIDDEN, OPEN, READ_ONLY, Node, hidden
from launcher.sftp.spelling import Spelling
from launcher.sftp.walk import Place, fail


def look(place: Place, spelling: Spelling) -> tuple[os.stat_result, int, Node | None]:
    """What is there, its rule and its node. ENOENT for what is hidden, and for what is spelled otherwise."""
    found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
    rule, node = place.rules.met(place.rule, place.named, found.st_dev, found.st_ino)
    if hidden(rule, node) or (not place.rules.exact and place.name != b"." and not spelling.right(place.folder, place.name)):
        raise fail(errno.ENOENT, place.path)
    return found, rule, node


def may_make(place: Place, spelling: Spelling, *, folder: bool = False) -> None:
    """Raise OSError unless a new entry of that name may come: EROFS or EACCES; EEXIST when it is there in another spelling."""
    if place.rule != OPEN:
        raise fail(errno.EACCES if place.rule == HIDDEN else refusal(place.rule), place.path)
    named = place.named
    # A folder on the way to a place may be made, and is as good as the missing one; anything else would be the place's way out.
    if named is not None and not (folder and named.rule is None) and named.rule != OPEN:
        raise fail(errno.EROFS if named.rule == READ_ONLY else errno.EACCES, place.path)
    if spelling.clash(place.folder, place.name):
        raise fail(errno.EEXIST, place.path)


def may_move(place: Place, rule: int, node: Node | None) -> None:
    """Raise OSError unless an entry that was looked at may go, be replaced or renamed. EBUSY for what holds a place."""
    if place.rule != OPEN:
        raise fail(errno.EACCES if place.rule == HIDDEN else refusal(place.rule), place.path)
    if rule != OPEN:
        raise fail(errno.EACCES if rule == HIDDEN else refusal(rule), place.path)
    if node is not None:
        raise fail(errno.EBUSY, place.path)


def may_change(place: Place, rule: int) -> None:
    """Raise OSError unless the content, mode or times of an entry may be changed."""
    if rule != OPEN:
        raise fail(errno.EACCES if rule == HIDDEN else refusal(rule), place.path)
