"""The hello image as a docker-archive: one layer with busybox, written here so that its bytes depend on nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from datetime import UTC, datetime

_FORMAT = tarfile.USTAR_FORMAT
NAME = "wherry.internal/hello:latest"


class _Tar:
    """A tar whose entries all have the same owner and time."""

    def __init__(self, epoch: int) -> None:
        self._buffer = io.BytesIO()
        self._epoch = epoch
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=_FORMAT)

    def add(self, name: str, data: bytes = b"", *, mode: int = 0o644, kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
        """One entry."""
        info = tarfile.TarInfo(name)
        info.mtime, info.mode, info.type, info.linkname = self._epoch, mode, kind, target
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))

    def content(self) -> bytes:
        """The finished archive."""
        self._tar.close()
        return self._buffer.getvalue()


def _layer(busybox: bytes, applets: list[str], files: dict[str, bytes], epoch: int) -> bytes:
    """The one layer: busybox under all its names, and the files of iso/hello/."""
    tar = _Tar(epoch)
    for name, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("www", 0o755)):
        tar.add(name, mode=mode, kind=tarfile.DIRTYPE)
    tar.add("bin/busybox", busybox, mode=0o755)
    for name in sorted(applets):
        tar.add(f"bin/{name}", mode=0o777, kind=tarfile.SYMTYPE, target="busybox")
    for name, data in sorted(files.items()):
        tar.add(name, data, mode=0o755 if data.startswith(b"#!") else 0o644)
    return tar.content()


def hello_image(
    architecture: str, busybox: bytes, applets: list[str], files: dict[str, bytes], epoch: int, name: str = NAME
) -> bytes:
    """The whole archive, as `docker load` and POST /images/load take it."""
    layer = _layer(busybox, applets, files, epoch)
    config = {
        "architecture": architecture,
        "config": {"Cmd": ["/bin/hello"], "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "created": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "history": [{"created": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "created_by": "wherry"}],
        "os": "linux",
        "rootfs": {"diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()], "type": "layers"},
    }
    config_bytes = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    config_name = hashlib.sha256(config_bytes).hexdigest() + ".json"
    manifest = [{"Config": config_name, "Layers": ["layer.tar"], "RepoTags": [name]}]
    tar = _Tar(epoch)
    tar.add(config_name, config_bytes)
    tar.add("layer.tar", layer)
    tar.add("manifest.json", json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode())
    return tar.content()
