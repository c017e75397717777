"""Where the packages of an image come from, and the SBOM that says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from builder import sbom
from builder.control import Origin, licences, read_origin
from builder.debs import unpack
from builder.lock import Package
from builder.manifest import Part
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.debian import make_deb, sha256

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb")

DEP5 = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: somebody
License: GPL-2+ or Artistic
 You may do this
 .
 and that.

Files: debian/*
Copyright: somebody else
License: Expat

License: Unused-Full-Text
 Words.
"""


def origin(tmp_path: Path, version: str = "2.0-1+b3", **fields: str) -> Origin:
    deb = make_deb(tmp_path, "tool", version, fields={key.replace("_", "-"): value for key, value in fields.items()})
    return read_origin(tmp_path, Package("tool", version, "amd64", "trixie", sha256(deb)))


def test_a_package_without_a_source_field_is_its_own_source(tmp_path: Path) -> None:
    assert origin(tmp_path, "1:2.0-1") == Origin("tool", "1:2.0-1")


def test_a_source_with_another_name_has_the_same_version(tmp_path: Path) -> None:
    assert origin(tmp_path, Source="suite") == Origin("suite", "2.0-1+b3")


def test_a_rebuilt_package_names_its_source_version(tmp_path: Path) -> None:
    assert origin(tmp_path, Source="suite (1:2.0-1)") == Origin("suite", "1:2.0-1")


def test_what_is_linked_in_is_named_once(tmp_path: Path) -> None:
    found = origin(tmp_path, Built_Using="glibc (= 2.41-12)", Static_Built_Using="golang-x (= 0.1~git-1), glibc (= 2.41-12)")
    assert found.built_using == (("glibc", "2.41-12"), ("golang-x", "0.1~git-1"))


def test_licences_are_those_of_the_files() -> None:
    assert licences(DEP5) == ("Expat", "GPL-2+ or Artistic")


@pytest.mark.parametrize(
    "text", ["", "This package is free software.\nLicense: GPL\n", "Format: something\n\nFiles: *\nLicense: X\n"]
)
def test_other_copyright_files_say_nothing(text: str) -> None:
    assert licences(text) == ()


def test_unpacking_brings_the_copyright_file_that_the_image_leaves_out(tmp_path: Path) -> None:
    name = "usr/share/doc/tool/copyright"
    deb = make_deb(tmp_path, "tool", "1", files={name: DEP5, "usr/bin/tool": "x", "usr/share/doc/other/copyright": "no"})
    package = Package("tool", "1", "amd64", "trixie", sha256(deb))
    found = unpack([package], tmp_path, tmp_path / "tree", lambda _package, path: not path.startswith("usr/share/doc"))
    assert found == {"tool": DEP5}
    assert (tmp_path / "tree/usr/bin/tool").exists()
    assert not (tmp_path / "tree" / name).exists()


RUNC = Package("runc", "1.3.6+ds1-1+b2", "amd64", "testing", "ab" * 32)
SOURCE = Package("iptables", "1.8.11", "source", "trixie", "cd" * 32)
PACKAGES = {
    RUNC: Origin("runc-src", "1.3.6+ds1-1", (("golang-1.27", "1.27.1-2"),), ("Apache-2.0", "GPL-3+ or Apache-2.0")),
    SOURCE: Origin("iptables", "1.8.11"),
}
PARTS = [
    Part("/usr/sbin/xtables-legacy-multi", "1.8.11", "ef" * 32, (SOURCE,)),
    Part("/usr/lib/wherry/start", "0.1.0", "01" * 32),
]


def manifest(sha: str = "12" * 32) -> dict[str, Any]:
    return {"architecture": "amd64", "version": "0.1.0", "sha256": sha, "rebuild": {"source_date_epoch": 1795496753}}


def rendered(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(sbom.render(manifest(**changes), PACKAGES, PARTS))
    return document


def test_the_sbom_is_valid() -> None:
    text = sbom.render(manifest(), PACKAGES, PARTS).decode()
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(text) is None


def test_the_same_image_gives_the_same_bytes() -> None:
    backwards = dict(reversed(PACKAGES.items()))
    assert sbom.render(manifest(), PACKAGES, PARTS) == sbom.render(manifest(), backwards, PARTS[::-1])


def test_serial_number_and_time_are_those_of_the_image() -> None:
    first, second = rendered(), rendered(sha="34" * 32)
    assert first["serialNumber"] != second["serialNumber"]
    assert first["metadata"]["timestamp"] == "2026-11-24T05:05:53+00:00"
    assert first["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": "12" * 32}]


def test_a_package_has_its_hash_its_licences_and_its_source() -> None:
    [runc] = [part for part in rendered()["components"] if part["name"] == "runc"]
    assert runc["purl"] == (
        "pkg:deb/debian/runc@1.3.6%2Bds1-1%2Bb2?arch=amd64&distro=testing&upstream=runc-src%401.3.6%2Bds1-1"
    )
    assert runc["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert [entry["license"]["name"] for entry in runc["licenses"]] == ["Apache-2.0", "GPL-3+ or Apache-2.0"]
    [ancestor] = runc["pedigree"]["ancestors"]
    assert (ancestor["name"], ancestor["version"]) == ("runc-src", "1.3.6+ds1-1")
    assert ancestor["purl"] == "pkg:deb/debian/runc-src@1.3.6%2Bds1-1?arch=source"


def test_what_is_made_of_what() -> None:
    tree = {entry["ref"]: entry.get("dependsOn", []) for entry in rendered()["dependencies"]}
    assert tree["runc:amd64"] == ["linked:golang-1.27@1.27.1-2"]
    assert tree["/usr/sbin/xtables-legacy-multi"] == ["iptables:source"]
    assert set(tree["iso"]) == {"runc:amd64", "iptables:source", *(part.path for part in PARTS)}
