"""Paths of a Windows share to handles.

A folder is opened by its whole path and then asked for its final path: when that is not, to the letter, the path of the share
with what was asked for behind it, on the same volume, a link led astray, or the spelling is another, and nothing was touched.
From there on everything is opened by one name, relative to that handle, and links are opened as links.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from launcher.host import ntfiles
from launcher.host.ntfiles import NtFiles
from launcher.host.ntformat import ATTRIBUTE_FOLDER, Info
from launcher.sftp.policy import Policy
from launcher.sftp.rules import OPEN, Node, Rules, hidden
from launcher.sftp.spelling import Spelling
from launcher.sftp.walk import Place, cleaned, fail
from launcher.sftp.windows_file import Ident, nanoseconds
from launcher.sftp.windows_names import SURROGATE, below, looked_up, same

_KNOWN: Final = 4096
# Their file ids hold how often they were given away. That, unlike the time of creation, no program changes.
_COUNTING: Final = ("NTFS", "ReFS")
_Known = tuple[int, Node | None, int]  # of a folder: its inode, its node and its rule
_PARTED: Final = "\\".encode("utf-16-le")


class Entry(NamedTuple):
    """An open entry, its rule and its node."""

    handle: int
    info: Info
    rule: int
    node: Node | None


class WindowsWalk:
    """The root of a share as a handle, and the way from there. For any number of threads."""

    def __init__(self, root: Path, policy: Policy, files: NtFiles) -> None:
        self.files = files
        self.root = files.root(str(root))
        try:
            self._path = files.final_path(self.root)
            self.drive_path = files.final_path(self.root, drive=True)
            self._volume = files.volume(self.root)
            # As os.stat has it, which the policy asks; a share has one device, as what is mounted in a folder is a link to us.
            self.device = os.stat(root).st_dev
            self._counts = files.file_system(self.root) in _COUNTING
        except BaseException:
            files.close(self.root)
            raise
        self._policy = policy
        self._judgements: tuple[Rules | None, dict[bytes, _Known]] = (None, {})  # as in walk.py
        self.spelling = Spelled(policy, files)

    def replace(self, policy: Policy) -> None:
        self._policy = policy

    def look_again(self) -> None:
        self._policy.look_again()

    def forget(self) -> None:
        self._judgements = (self._judgements[0], {})

    @contextmanager
    def to(self, path: bytes) -> Iterator[Place]:
        """The place of a path; the root is `.` in itself."""
        path = cleaned(path)
        head, _, name = path.rpartition(b"/")
        rules, ways = self._judged_by_now()
        if not head:
            node = rules.root
            yield Place(self.root, name or b".", node if name else None, node.rule or OPEN, rules, path)
            return
        folder, info = self._folder(head)
        try:
            known = ways.get(head)
            if known is None or known[0] != info.inode:
                known = self._judged(head, rules, ways)
                if known[0] != info.inode:
                    raise fail(errno.ENOENT, path)  # it was replaced in this moment
            yield Place(folder, name, known[1], known[2], rules, path)
        finally:
            self.files.close(folder)

    @contextmanager
    def look(self, place: Place, access: int = 0, *, share: int = ntfiles.SHARE_ALL) -> Iterator[Entry]:
        """What is at a place, open: a link itself. ENOENT for what is hidden, and for what is spelled otherwise."""
        name = b"" if place.name == b"." else looked_up(place.name)
        handle, _ = self.files.open(place.folder, name, access, share=share)
        try:
            info = self.files.info(handle)
            rule, node = place.rules.met(place.rule, place.named, self.device, info.inode)
            if hidden(rule, node) or (name and not self._spelled(handle, name)):
                raise fail(errno.ENOENT, place.path)
            yield Entry(handle, info, rule, node)
        finally:
            self.files.close(handle)

    def ident(self, info: Info) -> Ident:
        """What the owner of an entry is remembered by."""
        return Ident(self.device, info.inode, 0 if self._counts else nanoseconds(info.created))

    def close(self) -> None:
        self.files.close(self.root)

    def whole_path(self, folder: int) -> str:
        """`C:\\...` of a folder's handle, without the sign for long paths."""
        return plain_path(self.files.final_path(folder, drive=True))

    def _spelled(self, handle: int, name: bytes) -> bool:
        return self.files.final_path(handle).rpartition("\\")[2] == name.decode("utf-16-le", "surrogatepass")

    def _folder(self, path: bytes) -> tuple[int, Info]:
        names = [looked_up(name) for name in path[1:].split(b"/")]
        handle, _ = self.files.open(self.root, _PARTED.join(names), 0, options=ntfiles.FOLDER | ntfiles.AS_IT_IS)
        try:
            info = self.files.info(handle)
            if info.tag & SURROGATE or not info.attributes & ATTRIBUTE_FOLDER:
                raise fail(errno.ENOTDIR, path)
            asked = _PARTED.join(names).decode("utf-16-le", "surrogatepass")
            found = below(self.files.final_path(handle), self._path)
            if found != asked:
                raise fail(errno.ENOENT if found is not None and same(found, asked) else errno.ELOOP, path)
            if self.files.volume(handle) != self._volume:
                raise fail(errno.ELOOP, path)
        except BaseException:
            self.files.close(handle)
            raise
        return handle, info

    def _judged(self, head: bytes, rules: Rules, ways: dict[bytes, _Known]) -> _Known:
        """Step by step: the folder's index, its node and its rule."""
        node: Node | None = rules.root
        rule = rules.root.rule or OPEN
        names = head[1:].split(b"/")
        index = 0
        for count, name in enumerate(names, 1):
            handle, info = self._folder(b"/" + b"/".join(names[:count]))
            self.files.close(handle)
            index = info.inode
            rule, node = rules.met(rule, rules.named(node, name), self.device, index)
            if hidden(rule, node):
                raise fail(errno.ENOENT, head)
        if len(ways) >= _KNOWN:
            ways.clear()
        ways[head] = known = (index, node, rule)
        return known

    def _judged_by_now(self) -> tuple[Rules, dict[bytes, _Known]]:
        rules = self._policy.rules()
        judged_by, ways = self._judgements
        if rules is not judged_by:
            ways = {}
            self._judgements = (rules, ways)
        return rules, ways


class Spelled(Spelling):
    """Asks the volume whether a name is taken, also by another spelling or by a short name (`PROGRA~1`)."""

    def __init__(self, policy: Policy, files: NtFiles) -> None:
        super().__init__(policy.names)
        self._files = files

    def clash(self, folder: int, name: bytes) -> bool:
        try:
            handle, _ = self._files.open(folder, looked_up(name), 0)
        except OSError as error:
            return error.errno == errno.EBUSY
        self._files.close(handle)
        return True


def plain_path(path: str) -> str:
    if path.startswith("\\\\?\\UNC\\"):
        return "\\" + path[7:]
    return path.removeprefix("\\\\?\\")
