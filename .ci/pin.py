"""Writes the pins of a release into launcher/release.toml, out of the ISOs in build/: make pin."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import tomlkit

from launcher import __version__
from launcher.config import ARCHES

ROOT = Path(__file__).resolve().parent.parent


def checked(iso: Path) -> dict[str, Any]:
    """The pin of an ISO that may be handed out. Raises ValueError for one that may not."""
    text = iso.with_suffix(".json").read_bytes()
    manifest = json.loads(text)
    with iso.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if (sha256, iso.stat().st_size) != (manifest["sha256"], manifest["size"]):
        raise ValueError(f"{iso} is not the one that its manifest describes")
    if manifest["version"] != __version__:
        raise ValueError(f"{iso} is of version {manifest['version']}, this is {__version__}")
    if manifest["unlocked"] is not False:
        raise ValueError(f"{iso} was not built from what the lock names: make iso LOCKED=1")
    return {"file": iso.name, "sha256": sha256, "size": manifest["size"], "manifest": hashlib.sha256(text).hexdigest()}


def write(build: Path, release: Path) -> None:
    """All or none; comments and mirrors stay."""
    document = tomlkit.parse(release.read_text(encoding="utf-8"))
    pins = tomlkit.table(is_super_table=True)
    for arch in ARCHES:
        pin = tomlkit.table()
        pin.update(checked(build / f"wherry-{arch}.iso"))
        pins.append(arch, pin)
    document["iso"] = pins
    release.write_text(tomlkit.dumps(document), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make pin", description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="where the ISOs and their manifests are")
    parser.add_argument("--release", type=Path, default=ROOT / "launcher" / "release.toml", help="the file to write")
    options = parser.parse_args()
    try:
        write(options.build, options.release)
    except (OSError, ValueError, KeyError) as error:
        print(f"pin: {error}; nothing is written", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
