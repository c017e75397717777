"""The tree of a share, as this system needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

from launcher import host
from launcher.sftp import served
from launcher.sftp.policy import Policy
from launcher.sftp.remembered import Remembered


class Tree(served.Tree, Protocol):
    """What a session needs, and what whoever made it does."""

    def replace(self, policy: Policy, /) -> None: ...
    def close(self) -> None: ...


def any_tree(root: Path, policy: Policy, owners: Remembered) -> Tree:
    """Raises OSError when there is no such folder."""
    # A tree is given files of its own only; that their types say more than the protocol's is no conflict.
    if host.current().NAME == "windows":
        from launcher.sftp.windows_tree import WindowsTree

        return cast(Tree, WindowsTree(root, policy, owners))
    from launcher.sftp.tree import Tree as PosixTree

    return cast(Tree, PosixTree(root, policy, owners))
