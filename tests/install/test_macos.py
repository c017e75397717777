"""The packages for macOS, as far as Linux can look at them: by libarchive, by a reader of bills of its own, by ruby."""

from __future__ import annotations

import gzip
import hashlib
import plistlib
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from installers.context import Context
from installers.macos import bom, flatpkg, formula, macho, tree
from installers.tools import BuildError
from tests.install.making import making
from tests.macos import fixture

ROOT = Path(__file__).parent.parent.parent
HOME = "usr/local/lib/wherry"
LIB = f"python/lib/python3.{sys.version_info.minor}"
bsdtar = pytest.mark.skipif(shutil.which("bsdtar") is None, reason="no bsdtar")


needs_python = pytest.mark.skipif(fixture.missing() is not None, reason=fixture.missing() or "")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """With the tests' own Pythons, and a file in place of an ISO; wheels are kept with the project's own builds."""
    iso = tmp_path_factory.mktemp("iso") / "wherry-arm64.iso"
    iso.write_bytes(b"an ISO")
    iso.with_suffix(".json").write_text("{}")
    pythons = {f"macos-{arch}": folder for arch, folder in fixture.pythons().items()} if not fixture.missing() else {}
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
@needs_python
def test_a_package_is_whole(packages: dict[str, Path], context: Context, tmp_path: Path) -> None:
    assert set(packages) == {"arm64.pkg", "arm64-full.pkg", "amd64.pkg"}
    found = extracted(packages["arm64.pkg"], tmp_path / "pkg")
    assert sorted(path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()) == [
        "Distribution", "wherry.pkg/Bom", "wherry.pkg/PackageInfo", "wherry.pkg/Payload", "wherry.pkg/Scripts",
    ]  # fmt: skip
    files = listing(found / "wherry.pkg/Payload")
    assert files["./usr/local/bin/wherry"].startswith("lrwxr-xr-x 0:0 ")
    assert files[f"./{HOME}/python/bin/wherry"].startswith("-rwxr-xr-x 0:0 ")
    assert files[f"./{HOME}/{LIB}/site-packages/launcher/__main__.py"].startswith("-rw-r--r-- 0:0 ")
    assert f"./{HOME}/{LIB}/os.py" in files
    assert not [name for name in files if "/test/" in name or "/pip/" in name]
    assert set(listing(found / "wherry.pkg/Scripts")) == {".", "./postinstall", "./preinstall"}
    distribution = ET.parse(found / "Distribution").getroot()
    assert distribution.find("options").attrib["hostArchitectures"] == "arm64"  # type: ignore[union-attr]
    about = ET.parse(found / "wherry.pkg/PackageInfo").getroot()
    assert about.attrib["version"] == context.version
    assert int(about.find("payload").attrib["numberOfFiles"]) == len(files)  # type: ignore[union-attr]
    assert {element.attrib["id"] for element in distribution.iter("pkg-ref")} == {about.attrib["identifier"]}


@bsdtar
@needs_python
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
@needs_python
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


@needs_python
def test_the_same_bytes(packages: dict[str, Path], context: Context, tmp_path: Path) -> None:
    """For both processors; arm64's has QEMU in it."""
    again = flatpkg.build_all(making(tmp_path, pythons=context.pythons))
    assert [made.path.name.rpartition("-")[2] for made in again] == ["arm64.pkg", "amd64.pkg"]
    for made in again:
        assert made.path.read_bytes() == packages[made.path.name.rpartition("-")[2]].read_bytes()


def test_a_python_of_another_version_is_refused(tmp_path: Path) -> None:
    python = tmp_path / "python"
    (python / "bin").mkdir(parents=True)
    (python / "bin/python3").touch()
    (python / "lib/python3.9").mkdir(parents=True)
    with pytest.raises(BuildError, match=r"is Python 3\.9, for which wheels\.toml has no wheels"):
        flatpkg.build_all(making(tmp_path / "made", pythons={"macos-arm64": python}))


@pytest.fixture(scope="module")
def payloads(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each processor's Mac gets, unpacked."""
    found = {}
    for arch in ("arm64", "amd64"):
        archive = extracted(packages[f"{arch}.pkg"], tmp_path_factory.mktemp("unpacked") / arch) / "wherry.pkg/Payload"
        found[arch] = archive.parent / "root"
        found[arch].mkdir()
        subprocess.run(["bsdtar", "-x", "-p", "-f", archive, "-C", found[arch]], check=True)
    return found


def programs(root: Path) -> dict[str, bytes]:
    """All Mach-O files of a payload."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(root)): data for path in files if (data := path.read_bytes())[:4] == b"\xcf\xfa\xed\xfe"}


@bsdtar
@needs_python
@pytest.mark.parametrize(("arch", "cpu", "oldest"), [("arm64", 0x0100000C, "15.0"), ("amd64", 0x01000007, "10.15")])
def test_what_a_mac_would_run(payloads: dict[str, Path], packages: dict[str, Path], arch: str, cpu: int, oldest: str) -> None:
    """One processor's files alone; Python's program, library and modules, and QEMU's where a wheel has one."""
    found = programs(payloads[arch])
    assert not [path for path in payloads[arch].rglob("*") if path.is_file() and path.read_bytes()[:4] == b"\xca\xfe\xba\xbe"]
    assert {struct.unpack_from("<I", data, 4)[0] for data in found.values()} == {cpu}
    minor = sys.version_info.minor
    for name in (
        "python/bin/python3",
        f"python/lib/libpython3.{minor}.dylib",
        f"{LIB}/lib-dynload/_ssl.cpython-3{minor}-darwin.so",
    ):
        assert f"{HOME}/{name}" in found
    assert sum("/site-packages/" in name for name in found) > 5
    assert (f"{HOME}/qemu/bin/qemu-system-aarch64" in found, f"{HOME}/qemu/bin/qemu-img" in found) == (arch == "arm64",) * 2
    assert (payloads[arch] / HOME / "qemu/share/qemu/keymaps").exists() is (arch == "arm64"), "beside bin, where QEMU looks"
    distribution = subprocess.run(
        ["bsdtar", "-x", "-O", "-f", packages[f"{arch}.pkg"], "Distribution"], capture_output=True, text=True, check=True
    )
    assert f'<os-version min="{oldest}"/>' in distribution.stdout


def blobs(data: bytes) -> dict[int, bytes]:
    """The parts of an embedded signature by their slots (xnu, osfmk/kern/cs_blobs.h)."""
    signature = macho.read(data).signature
    assert signature is not None
    start = signature[0]
    magic, _, count = struct.unpack_from(">3I", data, start)
    assert magic == 0xFADE0CC0
    places = [struct.unpack_from(">2I", data, start + 12 + 8 * number) for number in range(count)]
    sizes = {offset: struct.unpack_from(">I", data, start + offset + 4)[0] for _, offset in places}
    return {slot: data[start + offset : start + offset + sizes[offset]] for slot, offset in places}


def check_pages(data: bytes, directory: bytes, name: str) -> int:
    """Each page against its digest; older systems want SHA-1 beside SHA-256. Returns which it is."""
    hashes, _, _, pages, limit = struct.unpack_from(">5I", directory, 16)
    size, kind, _, page = struct.unpack_from("4B", directory, 36)
    digest = {1: hashlib.sha1, 2: hashlib.sha256}[kind]
    for number in range(pages):
        part = data[number << page : min((number + 1) << page, limit)]
        told = directory[hashes + size * number : hashes + size * (number + 1)]
        assert digest(part).digest() == told, f"{name}, page {number}"
    return kind


@bsdtar
@needs_python
def test_every_page_is_as_it_was_signed(payloads: dict[str, Path]) -> None:
    """Else macOS ends the program when it comes to that page: Apple silicon lets none run that is not signed."""
    found = programs(payloads["arm64"])
    for name, data in found.items():
        directories = [blob for blob in blobs(data).values() if blob[:4] == b"\xfa\xde\x0c\x02"]
        assert 2 in [check_pages(data, directory, name) for directory in directories], f"{name}: none with SHA-256"
    assert b"com.apple.security.hypervisor" in blobs(found[f"{HOME}/qemu/bin/qemu-system-aarch64"])[5]


def loadable(*commands: bytes, cpu: int = 0x0100000C) -> bytes:
    """A Mach-O file as far as its commands."""
    body = b"".join(commands)
    return struct.pack("<8I", 0xFEEDFACF, cpu, 0, 6, len(commands), len(body), 0, 0) + body


def library(name: str, kind: int = 0xC) -> bytes:
    text = name.encode() + bytes(8 - len(name) % 8)
    return struct.pack("<6I", kind, 24 + len(text), 24, 0, 0, 0) + text


SIGNED = struct.pack("<4I", 0x1D, 16, 0, 0)
FOR_12_3 = struct.pack("<6I", 0x32, 24, 1, 0x000C0300, 0x000C0300, 0)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (loadable(SIGNED, cpu=0x01000007), "x.so is for other processors than arm64"),
        (loadable(FOR_12_3), "x.so is not signed"),
        (loadable(SIGNED, library("@loader_path/gone.dylib")), "x.so needs @loader_path/gone.dylib, which is neither"),
        (loadable(SIGNED, library("@rpath/x.so")), "x.so needs @rpath/x.so, which is neither"),
        (
            loadable(SIGNED, library("/Library/Frameworks/Python.framework/Versions/3.13/Python")),
            "x.so needs /Library/Frameworks",
        ),
        (loadable(SIGNED, FOR_12_3)[:-4], "a Mach-O file is cut short"),
    ],
    ids=["processor", "signature", "beside it", "on a path", "where it was built", "cut short"],
)
def test_what_would_not_run_is_refused(data: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(data)
    with pytest.raises(BuildError, match=re.escape(why)):
        macho.settle(tmp_path, "arm64")


def test_what_runs_is_settled(tmp_path: Path) -> None:
    """Out of a file for two processors the one; the newest of the oldest systems; a missing weak library does not matter."""
    rpath = struct.pack("<3I", 0x8000001C, 32, 12) + b"@loader_path/.".ljust(20, b"\0")
    needs = [library(name) for name in ("/usr/lib/libSystem.B.dylib", "@rpath/x.so", "@executable_path/x.so")]
    ours = loadable(SIGNED, rpath, FOR_12_3, *needs, library("@loader_path/gone.dylib", 0x80000018))
    theirs = loadable(cpu=0x01000007)
    head = struct.pack(">12I", 0xCAFEBABE, 2, 0x01000007, 0, 48, len(theirs), 0, 0x0100000C, 0, 48 + len(theirs), len(ours), 0)
    (tmp_path / "x.so").write_bytes(head + theirs + ours)
    (tmp_path / "y.so").write_bytes(loadable(SIGNED, struct.pack("<4I", 0x24, 16, 0x000B0000, 0)))
    (tmp_path / "of java.class").write_bytes(b"\xca\xfe\xba\xbe\0\0\0\x41")
    assert macho.settle(tmp_path, "arm64") == (12, 3)
    assert (tmp_path / "x.so").read_bytes() == ours


def test_a_signature_may_come_later(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(loadable(FOR_12_3))
    assert macho.settle(tmp_path, "arm64", signed_later=True) == (12, 3)


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
