"""The manifest's content as CycloneDX, by cyclonedx-python-lib: the only module of the build that needs more than Python.

The same packages and the same version of the library give the same bytes: the serial number comes from the ISO's SHA-256, the
time is the lock's.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot7
from packageurl import PackageURL

from builder.control import Origin
from builder.lock import Package
from builder.manifest import Part


def render(manifest: Mapping[str, Any], packages: Mapping[Package, Origin], parts: Sequence[Part]) -> bytes:
    """The document, JSON. Packages hang below the ISO; below a package or a part of ours is what is linked into it."""
    bom = _empty(manifest)
    linked = {used: _source(*used, f"linked:{'@'.join(used)}") for origin in packages.values() for used in origin.built_using}
    binary = {package: _binary(package, origin) for package, origin in packages.items()}
    made = {part.path: _made(part) for part in parts}
    bom.components.update(linked.values(), binary.values(), made.values())
    for package, origin in packages.items():
        bom.register_dependency(binary[package], [linked[used] for used in origin.built_using])
    for part in parts:
        bom.register_dependency(made[part.path], [binary[package] for package in part.made_of])
    if bom.metadata.component:
        bom.register_dependency(bom.metadata.component, [*binary.values(), *made.values()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the library warns of a document that does not hang together
        return (JsonV1Dot7(bom).output_as_string(indent=1) + "\n").encode()


def _empty(manifest: Mapping[str, Any]) -> Bom:
    """The document with what it says of the ISO as a whole."""
    iso = Component(
        name=f"wherry-{manifest['architecture']}.iso",
        version=manifest["version"],
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref="iso",
        hashes=_sha256(manifest["sha256"]),
    )
    builder = Component(
        name="wherry iso/build.py", version=manifest["version"], type=ComponentType.APPLICATION, bom_ref="builder"
    )
    return Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, f"wherry-iso:{manifest['sha256']}"),
        metadata=BomMetaData(
            timestamp=datetime.fromtimestamp(manifest["rebuild"]["source_date_epoch"], UTC),
            component=iso,
            tools=ToolRepository(components=[builder]),
            lifecycles=[PredefinedLifecycle(phase=LifecyclePhase.BUILD)],
        ),
    )


def _binary(package: Package, origin: Origin) -> Component:
    """A Debian package. Scanners find its source in the qualifier `upstream`, as syft writes it."""
    source = package.architecture == "source"
    upstream = {} if source else {"upstream": f"{origin.source}@{origin.source_version}"}
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        supplier=OrganizationalEntity(name="Debian"),
        bom_ref=f"{package.name}:{package.architecture}",
        purl=_purl(package.name, package.version, package.architecture, {"distro": package.suite, **upstream}),
        hashes=_sha256(package.sha256),
        licenses=[DisjunctiveLicense(name=name) for name in origin.licences],
        pedigree=None if source else Pedigree(ancestors=[_source(origin.source, origin.source_version)]),
    )


def _source(name: str, version: str, ref: str | None = None) -> Component:
    """A Debian source package."""
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        supplier=OrganizationalEntity(name="Debian"),
        bom_ref=ref,
        purl=_purl(name, version, "source", {}),
    )


def _made(part: Part) -> Component:
    """A file that this build made."""
    return Component(
        name=part.path, version=part.version, type=ComponentType.FILE, bom_ref=part.path, hashes=_sha256(part.sha256)
    )


def _sha256(digest: str) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=digest)]


def _purl(name: str, version: str, architecture: str, more: Mapping[str, str]) -> PackageURL:
    return PackageURL("deb", "debian", name, version, {"arch": architecture, **more})
