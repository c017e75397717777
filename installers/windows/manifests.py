"""What winget and Scoop are told: where setup.exe and the zip are, and their SHA-256.

winget wants three files in a folder of the version (manifest schema 1.6.0: version, installer, defaultLocale); each of their
lines is a key and JSON, which is YAML. Scoop wants one JSON file in a bucket.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from installers.context import Context, Made
from installers.tools import say, sha256

IDENTIFIER: Final = "Wherry.Wherry"
_SCHEMA: Final = "1.6.0"
_ABOUT: Final = "Docker on this computer, in a small virtual machine"
_LICENSE: Final = "Apache-2.0"
# What helper.py and the setup program answer beside 0.
_CODES: Final = {1: "cancelledByUser", 2: "packageInUse"}


def build_all(context: Context) -> list[Made]:
    """The manifests of what is in the output folder. Raises BuildError."""
    stem = f"wherry-{context.version}-windows-amd64"
    setup, archive = context.output / f"{stem}-setup.exe", context.output / f"{stem}.zip"
    if not setup.exists() or not archive.exists():
        say(f"no manifests for winget and Scoop: {setup.name} and {archive.name} are not in {context.output}")
        return []
    written = [_scoop(archive, context), *(_winget(kind, fields, context) for kind, fields in _kinds(setup, context).items())]
    return [Made(path, ()) for path in written]


def _scoop(archive: Path, context: Context) -> Path:
    manifest = {
        "version": context.version,
        "description": _ABOUT,
        "homepage": context.folder,
        "license": _LICENSE,
        "architecture": {"64bit": {"url": f"{context.folder}/{archive.name}", "hash": sha256(archive)}},
        "bin": "bin\\wherry.exe",
        "pre_uninstall": '& "$dir\\bin\\wherry.exe" uninstall --keep',
        "notes": "Begin with:  wherry up",
    }
    target = context.output / "wherry.scoop.json"
    target.write_text(json.dumps(manifest, indent=4) + "\n", encoding="utf-8")
    return target


def _kinds(setup: Path, context: Context) -> dict[str, dict[str, Any]]:
    """The three files by their kind, without what all of them have."""
    installer = {
        "Architecture": "x64",
        "InstallerUrl": f"{context.folder}/{setup.name}",
        "InstallerSha256": sha256(setup).upper(),
    }
    return {
        "version": {"DefaultLocale": "en-US"},
        "installer": {
            "InstallerType": "nullsoft",
            "Scope": "user",
            "InstallModes": ["interactive", "silent"],
            "InstallerSwitches": {"Silent": "/S", "SilentWithProgress": "/S"},
            "UpgradeBehavior": "install",
            "Commands": ["wherry"],
            "ReleaseDate": datetime.fromtimestamp(context.epoch, UTC).date().isoformat(),
            "ExpectedReturnCodes": [{"InstallerReturnCode": code, "ReturnResponse": text} for code, text in _CODES.items()],
            "AppsAndFeaturesEntries": [{"DisplayName": "Wherry", "ProductCode": "Wherry"}],
            "Installers": [installer],
        },
        "defaultLocale": {
            "PackageLocale": "en-US",
            "Publisher": "The Wherry authors",
            "PackageName": "Wherry",
            "License": _LICENSE,
            "ShortDescription": _ABOUT,
            "Tags": ["containers", "docker", "qemu"],
        },
    }


def _winget(kind: str, fields: dict[str, Any], context: Context) -> Path:
    everywhere = {"PackageIdentifier": IDENTIFIER, "PackageVersion": context.version}
    last = {"ManifestType": kind, "ManifestVersion": _SCHEMA}
    name = {"version": IDENTIFIER, "installer": f"{IDENTIFIER}.installer", "defaultLocale": f"{IDENTIFIER}.locale.en-US"}[kind]
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in {**everywhere, **fields, **last}.items()]
    target = context.output / f"{name}.yaml"
    target.write_text("".join(lines), encoding="utf-8")
    return target
