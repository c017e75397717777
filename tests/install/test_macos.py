"""The packages for macOS, as far as Linux can look at them: by libarchive, by a reader of bills of its own, by ruby."""

from __future__ import annotations

import gzip
import hashlib
import plistlib
import re
import shutil
import struct
import subprocess
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from installers.context import Context
from installers.macos import bom, flatpkg, formula, tree
from installers.tools import BuildError
from tests.install.making import making

ROOT = Path(__file__).parent.parent.parent
HOME = "usr/local/lib/wherry"
bsdtar = pytest.mark.skipif(shutil.which("bsdtar") is None, reason="no bsdtar")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A Python that has the form of one for macOS, and an ISO; wheels are kept with the project's own builds."""
    python = tmp_path_factory.mktemp("python")
    for name in ("bin", "lib/python3.13/site-packages/pip", "lib/python3.13/test"):
        (python / name).mkdir(parents=True)
    (python / "bin/python3.13").write_bytes(b"\xcf\xfa\xed\xfe")
    (python / "bin/python3.13").chmod(0o755)
    (python / "bin/python3").symlink_to("python3.13")
    (python / "lib/python3.13/os.py").write_text("# os\n")
    (python / "lib/python3.13/test/big.py").write_text("# not needed\n")
    (python / "lib/python3.13/site-packages/pip/__init__.py").write_text("# not needed\n")
    iso = tmp_path_factory.mktemp("iso") / "wherry-arm64.iso"
    iso.write_bytes(b"an ISO")
    iso.with_suffix(".json").write_text("{}")
    pythons = {"macos-arm64": python, "macos-amd64": python}
    return making(tmp_path_factory.mktemp("macos"), pythons=pythons, isos={"arm64": iso})


@pytest.fixture(scope="module")
def packages(context: Context) -> dict[str, Path]:
    return {made.path.name.removeprefix(f"wherry-{context.version}-macos-"): made.path for made in flatpkg.build_all(context)}


def extracted(package: Path, folder: Path) -> Path:
    folder.mkdir()
    subprocess.run(["bsdtar", "-x", "-f", package, "-C", folder], check=True)
    return folder


def listing(archive: Path) -> dict[str, str]:
    """Path to mode and owner, of a cpio archive, by libarchive."""
    words = ["bsdtar", "--numeric-owner", "-t", "-v", "-f", archive]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split(None, 8) for line in lines]
    return {row[8].partition(" -> ")[0]: f"{row[0]} {row[2]}:{row[3]} {row[4]}" for row in rows}


@bsdtar
def test_a_package_is_whole(packages: dict[str, Path], context: Context, tmp_path: Path) -> None:
    assert set(packages) == {"arm64.pkg", "arm64-full.pkg", "amd64.pkg"}
    found = extracted(packages["arm64.pkg"], tmp_path / "pkg")
    assert sorted(path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()) == [
        "Distribution", "wherry.pkg/Bom", "wherry.pkg/PackageInfo", "wherry.pkg/Payload", "wherry.pkg/Scripts",
    ]  # fmt: skip
    files = listing(found / "wherry.pkg/Payload")
    assert files["./usr/local/bin/wherry"].startswith("lrwxr-xr-x 0:0 ")
    assert files[f"./{HOME}/python/bin/wherry"].startswith("-rwxr-xr-x 0:0 ")
    assert files[f"./{HOME}/python/lib/python3.13/site-packages/launcher/__main__.py"].startswith("-rw-r--r-- 0:0 ")
    assert f"./{HOME}/python/lib/python3.13/os.py" in files
    assert not [name for name in files if "/test/" in name or "/pip/" in name]
    assert set(listing(found / "wherry.pkg/Scripts")) == {".", "./postinstall", "./preinstall"}
    distribution = ET.parse(found / "Distribution").getroot()
    assert distribution.find("options").attrib["hostArchitectures"] == "arm64"  # type: ignore[union-attr]
    about = ET.parse(found / "wherry.pkg/PackageInfo").getroot()
    assert about.attrib["version"] == context.version
    assert int(about.find("payload").attrib["numberOfFiles"]) == len(files)  # type: ignore[union-attr]
    assert {element.attrib["id"] for element in distribution.iter("pkg-ref")} == {about.attrib["identifier"]}


@bsdtar
def test_the_full_edition_has_the_iso(packages: dict[str, Path], tmp_path: Path) -> None:
    small, full = (
        listing(extracted(packages[name], tmp_path / name) / "wherry.pkg/Payload") for name in ("arm64.pkg", "arm64-full.pkg")
    )
    assert full.keys() - small.keys() == {f"./{HOME}/iso", f"./{HOME}/iso/wherry-arm64.iso", f"./{HOME}/iso/wherry-arm64.json"}


def bill(data: bytes) -> dict[str, tuple[int, int, int]]:
    """Path to mode, size and checksum, as lsbom prints them; read from the format and not from what writes it."""
    assert data[:8] == b"BOMStore"
    _, blocks, index_at, index_size, names_at, names_size = struct.unpack_from(">IIIIII", data, 8)
    places = list(struct.iter_unpack(">II", data[index_at + 4 : index_at + 4 + 8 * (blocks + 1)]))
    assert index_at + index_size == len(data)
    assert names_at + names_size == index_at

    def block(number: int) -> bytes:
        start, size = places[number]
        return data[start : start + size]

    names, at = {}, names_at + 4
    for _ in range(struct.unpack_from(">I", data, names_at)[0]):
        number, size = struct.unpack_from(">IB", data, at)
        names[data[at + 5 : at + 5 + size].decode()] = number
        at += 5 + size
    assert set(names) == {"BomInfo", "Paths", "HLIndex", "VIndex", "Size64"}
    kind, version, page, _size, paths, _ = struct.unpack(">4sIIIIB", block(names["Paths"]))
    assert (kind, version) == (b"tree", 1)
    while True:  # down to the first leaf
        leaf, _, _, _ = struct.unpack_from(">HHII", block(page))
        if leaf:
            break
        page = struct.unpack_from(">I", block(page), 12)[0]
    found, whole = {}, {0: ""}
    while page:
        _, count, following, _ = struct.unpack_from(">HHII", block(page))
        for described, name_block in struct.iter_unpack(">II", block(page)[12 : 12 + 8 * count]):
            number, about = struct.unpack(">II", block(described))
            above = struct.unpack_from(">I", block(name_block))[0]
            name = block(name_block)[4:].rstrip(b"\0").decode()
            whole[number] = f"{whole[above]}/{name}" if above else name
            _, _, _, mode, _, _, _, size, _, checksum, _ = struct.unpack_from(">BBHHIIIIBII", block(about))
            found[whole[number]] = (mode, size, checksum)
        page = following
    assert len(found) == paths
    return found


@bsdtar
def test_the_bill_says_what_the_payload_has(packages: dict[str, Path], tmp_path: Path) -> None:
    found = extracted(packages["amd64.pkg"], tmp_path / "pkg")
    told = bill((found / "wherry.pkg/Bom").read_bytes())
    payload = tmp_path / "payload"
    payload.mkdir()
    subprocess.run(["bsdtar", "-x", "-p", "-f", found / "wherry.pkg/Payload", "-C", payload], check=True)
    there = {entry.name: entry for entry in tree.read(payload)}
    assert told.keys() == there.keys()
    assert len(told) > 256, "more than one leaf"
    for name, (mode, size, checksum) in told.items():
        assert (mode, size) == (there[name].mode, len(there[name].content)), name
        assert checksum == (0 if there[name].is_folder else bom.cksum(there[name].content)), name
    one = next(path for path in payload.rglob("*.py") if path.stat().st_size)
    said = subprocess.run(["cksum", one], capture_output=True, text=True, check=True).stdout
    assert told[f"./{one.relative_to(payload)}"][2] == int(said.split()[0])


def test_the_same_bytes(packages: dict[str, Path], context: Context, tmp_path: Path) -> None:
    again = making(tmp_path, pythons=context.pythons, isos=context.isos)
    for made in flatpkg.build_all(again):
        assert made.path.read_bytes() == (context.output / made.path.name).read_bytes()


def test_a_python_of_another_version_is_refused(tmp_path: Path) -> None:
    python = tmp_path / "python"
    (python / "bin").mkdir(parents=True)
    (python / "bin/python3").touch()
    (python / "lib/python3.9").mkdir(parents=True)
    with pytest.raises(BuildError, match=r"python3\.9, for which wheels\.toml has no wheels"):
        flatpkg.build_all(making(tmp_path / "made", pythons={"macos-arm64": python}))


@pytest.fixture(scope="module")
def brewed(context: Context) -> Path:
    formula.build_all(context)
    return context.output / "wherry.rb"


def test_the_formula_names_what_is_there(brewed: Path, context: Context) -> None:
    text = brewed.read_text()
    assert "@" not in text.replace("python@3.13", "").replace("#{", "")
    pairs = re.findall(r'url "([^"]+)"\s+sha256 "([0-9a-f]{64})"', text)
    assert len(pairs) == 2
    for address, digest in pairs:
        assert address.startswith(f"https://releases.wherry.invalid/{context.version}/")
        archive = context.output / address.rpartition("/")[2]
        assert hashlib.sha256(archive.read_bytes()).hexdigest() == digest
        with tarfile.open(archive) as members:
            names = members.getnames()
        assert {name.partition("/")[0] for name in names} == {f"wherry-{context.version}"}
        assert f"wherry-{context.version}/site-packages/launcher/__main__.py" in names


@pytest.mark.skipif(shutil.which("ruby") is None, reason="no ruby")
def test_the_formula_is_ruby(brewed: Path) -> None:
    done = subprocess.run(["ruby", "-wc", brewed], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Syntax OK\n", "")


def test_wheels_of_a_mac_are_for_its_processor(brewed: Path, context: Context, tmp_path: Path) -> None:
    """By the Mach-O headers (loader.h): thin files of that processor, or fat ones that have it."""
    for arch, processor in (("arm64", 0x0100000C), ("amd64", 0x01000007)):
        modules = 0
        with tarfile.open(context.output / f"wherry-{context.version}-macos-{arch}.tar.gz") as members:
            for member in members:
                if member.name.endswith(".so"):
                    data = members.extractfile(member).read()  # type: ignore[union-attr]
                    modules += 1
                    assert processor in processors(data), member.name
        assert modules > 5


def processors(data: bytes) -> set[int]:
    if data[:4] == b"\xca\xfe\xba\xbe":
        count = struct.unpack_from(">I", data, 4)[0]
        return {struct.unpack_from(">I", data, 8 + 20 * number)[0] for number in range(count)}
    assert data[:4] == b"\xcf\xfa\xed\xfe"
    return {struct.unpack_from("<I", data, 4)[0]}


def test_what_qemu_is_signed_with() -> None:
    entitlements = plistlib.loads((ROOT / "installers/macos/hypervisor.plist").read_bytes())
    assert entitlements["com.apple.security.hypervisor"] is True


def test_archives_have_no_time_of_their_own(brewed: Path, context: Context) -> None:
    for archive in context.output.glob("*.tar.gz"):
        assert archive.read_bytes()[4:8] == bytes(4)
        with gzip.open(archive) as file:
            assert file.read(1)
