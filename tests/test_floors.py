"""Ages and floors of ISOs, and Debian's order of versions against dpkg's own."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from launcher import floors
from launcher.floors import compare, judge

VERSIONS = """
1.0 1.0-1 1.0-0 1:0.1 0:1.0 1.0~rc1 1.0~~ 1.0~ 1.0a 1.0+b 1.0+ds1-1 1.0+dfsg1-2 1.0-1+deb13u1 1.0-1+deb13u10 1.0-1~bpo1 1.00
1.0.0 10.0 2.0 28.5.2+dfsg4-5 28.5.2+dfsg4-3 28.3.3 1:10.0p1-7+deb13u4 1:10.0p1-7 1:9.9p2-2 6.12.117-1 6.12.85-1 6.1.192-2
2.1.9+ds1-5 2.1.4~ds2-8 1:1.3.dfsg+really1.3.1-1+deb13u1 1.47.2-3+b12 7.6.q-36 0 0.0 a 1-1-1 1.0-a 1.0-1a 20250419+deb13u1
""".split()


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is Debian's")
def test_debians_order_is_dpkgs() -> None:
    pairs = list(itertools.combinations(VERSIONS, 2))
    # One shell for all of them: a dpkg takes a few milliseconds, a process from here more.
    script = "is() { dpkg --compare-versions $1 $2 $3; }\n" + "\n".join(
        f"is {a} lt {b} && echo lt || {{ is {a} eq {b} && echo eq || echo gt; }}" for a, b in pairs
    )
    said = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True).stdout.split()
    for (a, b), word in zip(pairs, said, strict=True):
        result = compare(a, b)
        assert {"lt": result < 0, "eq": result == 0, "gt": result > 0}[word], (a, b, word, result)
        assert (compare(b, a) > 0) == (result < 0)


@pytest.mark.parametrize(
    ("one", "other", "sign"),
    [
        ("1.0~rc1", "1.0", -1),
        ("1.0", "1.0+b", -1),
        ("1:0.1", "99", 1),
        ("1.9", "1.10", -1),
        ("1.0", "1.0-0", 0),
        ("1.0a", "1.0+", -1),
    ],
)
def test_debians_order_by_its_manual(one: str, other: str, sign: int) -> None:
    result = compare(one, other)
    assert (result > 0) - (result < 0) == sign


def manifest(**versions: str) -> dict[str, Any]:
    packages = {floor.package.replace("*", "6.12-cloud-amd64"): floor.version for floor in floors.data()[1]} | versions
    return {
        "built": "2026-11-24T05:05:53Z",
        "packages": [{"name": name, "version": version} for name, version in packages.items()],
    }


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_an_iso_at_its_floors_is_good() -> None:
    assert judge(manifest(), at("2026-11-24T06:00:00")) == floors.Judgement("2026-11-24T05:05:53Z", 0, False, ())


def test_what_is_below_its_floor_is_named() -> None:
    (below,) = judge(manifest(runc="1.3.2+ds1-1")).below
    assert str(below).startswith("runc 1.3.2+ds1-1 is older than 1.3.3+ds1-1 (CVE-2025-31133")
    (below,) = judge(manifest(**{"linux-image-6.12-cloud-amd64": "6.12.84-1"})).below
    assert below.name == "kernel"
    assert [below.name for below in judge(manifest(**{"openssh-server": "1:9.9p2-2", "docker.io": "26.1.5"})).below] == [
        "engine", "OpenSSH",
    ]  # fmt: skip


def test_an_iso_grows_old() -> None:
    assert judge(manifest(), at("2027-01-23T05:05:52")).days == 59
    assert not judge(manifest(), at("2027-01-23T05:05:52")).old
    assert judge(manifest(), at("2027-01-23T05:05:53")).old
    assert judge(manifest(), at("2026-11-22T05:05:53")).days == -2


def test_an_iso_without_a_manifest_is_not_called_good() -> None:
    judgement = judge({"architecture": "amd64"})
    assert judgement.days is None and [below.have for below in judgement.below] == [""] * len(floors.data()[1])
    assert "not known" in str(judgement.below[0])


def test_the_data_file_has_the_five_floors_with_their_reasons() -> None:
    days, found = floors.data()
    assert days > 0 and [floor.name for floor in found] == ["engine", "containerd", "runc", "kernel", "OpenSSH"]
    assert all(floor.reason for floor in found)


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_what_the_checkout_builds_is_above_its_floors(arch: str) -> None:
    built = Path(__file__).parent.parent / "build" / f"wherry-{arch}.json"
    if not built.exists():
        pytest.skip("no ISO is built yet")
    assert judge(json.loads(built.read_text())).below == ()
