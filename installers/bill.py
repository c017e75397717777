"""What is in the installers, as CycloneDX, and their SHA-256 sums. The same files give the same bytes."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot7
from packageurl import PackageURL

from installers.context import Made, Part
from installers.metadata import read
from installers.tools import sha256

BILL: Final = "wherry-installers.cdx.json"
SUMS: Final = "SHA256SUMS"


def write_bill(made: Sequence[Made], version: str, epoch: int, output: Path) -> Path:
    """The document in `output`: below each installer what it has."""
    wherry = Component(name="wherry", version=version, type=ComponentType.APPLICATION, bom_ref="wherry")
    seed = " ".join(sha256(item.path) for item in made)
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, f"wherry-installers:{seed}"),
        metadata=BomMetaData(
            timestamp=datetime.fromtimestamp(epoch, UTC),
            component=wherry,
            tools=ToolRepository(
                components=[
                    Component(name="wherry installers", version=version, type=ComponentType.APPLICATION, bom_ref="builder")
                ]
            ),
            lifecycles=[PredefinedLifecycle(phase=LifecyclePhase.BUILD)],
        ),
    )
    wheels = {path.name: _wheel(path) for path in sorted({wheel for item in made for wheel in item.wheels})}
    parts = {part: _part(part) for part in sorted({part for item in made for part in item.parts})}
    files = {item.path.name: _file(item.path, version) for item in made}
    bom.components.update(wheels.values(), parts.values(), files.values())
    for item in made:
        used = [*(wheels[wheel.name] for wheel in item.wheels), *(parts[part] for part in item.parts)]
        bom.register_dependency(files[item.path.name], used)
    bom.register_dependency(wherry, [*files.values(), *wheels.values(), *parts.values()])
    target = output / BILL
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the library warns of a document that does not hang together
        target.write_text(JsonV1Dot7(bom).output_as_string(indent=1) + "\n", encoding="utf-8")
    return target


def _wheel(path: Path) -> Component:
    about = read(path)
    return Component(
        name=about.name,
        version=about.version,
        type=ComponentType.LIBRARY,
        bom_ref=path.name,
        purl=PackageURL("pypi", None, about.name.lower().replace("_", "-"), about.version, {"file_name": path.name}),
        hashes=_sha256(path),
        licenses=[DisjunctiveLicense(name=about.license)] if about.license else None,
    )


def _part(part: Part) -> Component:
    """A Python, a QEMU or an ISO; the digest is that of its main file."""
    digest = _sha256(part.file)
    return Component(
        name=part.name,
        version=part.version or None,
        type=ComponentType.APPLICATION,
        bom_ref=f"{part.name}:{digest[0].content[:16]}",
        hashes=digest,
    )


def _file(path: Path, version: str) -> Component:
    return Component(name=path.name, version=version, type=ComponentType.FILE, bom_ref=path.name, hashes=_sha256(path))


def _sha256(path: Path) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256(path))]


def write_sums(files: Iterable[Path], output: Path) -> Path:
    """As `sha256sum -c` reads it, run in `output`."""
    target = output / SUMS
    target.write_text("".join(f"{sha256(path)}  {path.name}\n" for path in sorted(files)), encoding="utf-8")
    return target
