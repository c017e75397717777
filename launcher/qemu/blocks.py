"""The data disk as a running QEMU has it (QEMU docs/interop/qemu-qmp-ref, "Block devices")."""

from __future__ import annotations

from typing import Any, Final, Protocol

NODE: Final = "data"  # as command.disk_args names it


class Monitor(Protocol):
    def execute(self, command: str, /, *, timeout: float = 30, **arguments: Any) -> Any: ...


def size(monitor: Monitor) -> int:
    """Bytes that the guest sees. Raises WherryError."""
    return int(_node(monitor)["image"]["virtual-size"])


def resize(monitor: Monitor, wanted: int) -> None:
    """Make it larger under the running guest, which is told. Raises WherryError with QEMU's words."""
    monitor.execute("block_resize", **{"node-name": NODE, "size": wanted}, timeout=60)


def written(monitor: Monitor) -> int:
    """Bytes that the guest has written to it since QEMU started. The guest is not woken for that. Raises WherryError."""
    for device in monitor.execute("query-blockstats"):
        if device.get("node-name") == NODE:
            return int(device["stats"]["wr_bytes"])
    return 0


def _node(monitor: Monitor) -> dict[str, Any]:
    for node in monitor.execute("query-named-block-nodes", flat=True):
        if node.get("node-name") == NODE:
            found: dict[str, Any] = node
            return found
    return {"image": {"virtual-size": 0}}
