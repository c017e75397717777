"""The ISO cache, with small ISOs made here."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher import __version__, guestfiles, images, isofile
from launcher.errors import IsoProblem, Usage
from launcher.images import Iso, by_sha, resolve
from launcher.report import SilentReporter
from tests.tinyiso import INITRD, KERNEL, ROOT, iso_bytes

SILENT = SilentReporter()
MakeIso = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WHERRY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(guestfiles, "checkout", lambda: None)
    return tmp_path / "home"


@pytest.fixture
def make_iso(tmp_path: Path) -> MakeIso:
    """Writes NAME.iso and, unless `manifest` is None, NAME.json with its values laid over the right ones."""

    def make(name: str = "wherry-amd64", manifest: dict[str, Any] | None = {}, **options: Any) -> Path:  # noqa: B006
        data = iso_bytes(**options)
        path = tmp_path / "build" / f"{name}.iso"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        path.with_suffix(".json").unlink(missing_ok=True)
        if manifest is not None:
            right = {
                "format": 1,
                "version": __version__,
                "architecture": "amd64",
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
                "kernel": "6.12",
                "packages": [],
            }
            path.with_suffix(".json").write_text(json.dumps({**right, **manifest}))
        return path

    return make


def cached(home: Path) -> list[str]:
    return sorted(os.listdir(home / "cache" / "iso"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_import_is_whole_checked_and_taken_apart(make_iso: MakeIso, home: Path) -> None:
    file = make_iso()
    iso = resolve("amd64", file, SILENT)
    assert (iso.sha256, iso.arch, iso.version) == (sha256(file), "amd64", __version__)
    assert iso.path == home / "cache" / "iso" / iso.sha256 / "wherry.iso"
    assert iso.path.read_bytes() == file.read_bytes()
    assert iso.manifest["kernel"] == "6.12"
    folder = {"wherry.iso", "manifest.json", "vmlinuz", "initrd", "extent.json", "origin.json"}
    assert set(os.listdir(iso.path.parent)) == folder
    assert iso.kernel().read_bytes() == KERNEL
    assert iso.initrd().read_bytes() == INITRD
    offset, size = iso.root_extent()
    assert iso.path.read_bytes()[offset:][: len(ROOT)] == ROOT
    assert len(ROOT) <= size < len(ROOT) + isofile.SECTOR and size % 512 == 0
    assert by_sha(iso.sha256) == iso


def test_progress_is_told_up_to_the_end(make_iso: MakeIso) -> None:
    seen: list[tuple[str, int, int]] = []

    class Reporter(SilentReporter):
        def progress(self, name: str, done: int, total: int) -> None:
            seen.append((name, done, total))

    size = make_iso().stat().st_size
    resolve("amd64", make_iso(), Reporter())
    assert seen[-1] == ("iso", size, size)


def test_parts_that_were_tidied_away_are_made_again(make_iso: MakeIso) -> None:
    iso = resolve("amd64", make_iso(), SILENT)
    extent = iso.root_extent()
    for name in ("vmlinuz", "initrd", "extent.json"):
        (iso.path.parent / name).unlink()
    assert (iso.kernel().read_bytes(), iso.initrd().read_bytes(), iso.root_extent()) == (KERNEL, INITRD, extent)


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"size": 5}])
def test_an_iso_that_is_not_the_one_of_its_manifest_is_refused(make_iso: MakeIso, home: Path, change: dict[str, Any]) -> None:
    with pytest.raises(IsoProblem, match="does not verify") as caught:
        resolve("amd64", make_iso(manifest=change), SILENT)
    assert caught.value.exit_code == 7
    assert cached(home) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2"),
        ({"architecture": "riscv64"}, "architecture is missing or wrong"),
        ({"sha256": None}, "sha256 is missing or wrong"),
        ({"version": 1, "size": "5"}, "version, size is missing or wrong"),
    ],
)
def test_a_manifest_that_cannot_be_used(make_iso: MakeIso, change: dict[str, Any], message: str) -> None:
    with pytest.raises(IsoProblem, match=message):
        resolve("amd64", make_iso(manifest=change), SILENT)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_manifest_that_is_damaged(make_iso: MakeIso, text: str) -> None:
    file = make_iso()
    file.with_suffix(".json").write_text(text)
    with pytest.raises(IsoProblem, match="cannot be read"):
        resolve("amd64", file, SILENT)


def test_the_architecture_has_to_fit(make_iso: MakeIso, home: Path) -> None:
    with pytest.raises(IsoProblem, match="is for arm64, not for amd64") as caught:
        resolve("amd64", make_iso(manifest={"architecture": "arm64"}), SILENT)
    assert caught.value.hint == "--arch arm64"
    with pytest.raises(IsoProblem, match="is for amd64, not for arm64"):
        resolve("arm64", make_iso(manifest=None), SILENT)


def test_without_a_manifest_the_volume_id_tells_the_architecture(make_iso: MakeIso) -> None:
    iso = resolve("arm64", make_iso(manifest=None, volume="WHERRY_ARM64"), SILENT)
    assert (iso.arch, iso.version) == ("arm64", "unknown")
    assert by_sha(iso.sha256) == iso


@pytest.mark.parametrize("content", [iso_bytes(volume="DEBIAN"), b"", b"x" * 100_000], ids=["foreign", "empty", "no iso"])
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "some.iso"
    file.write_bytes(content)
    with pytest.raises(IsoProblem, match=r"is no ISO of wherry \(there is no some\.json"):
        resolve("amd64", file, SILENT)


def test_a_truncated_iso_with_a_manifest_of_its_own_is_refused(make_iso: MakeIso, home: Path) -> None:
    file = make_iso()
    data = file.read_bytes()[:20000]
    file.write_bytes(data)
    manifest = json.loads(file.with_suffix(".json").read_text())
    manifest |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    file.with_suffix(".json").write_text(json.dumps(manifest))
    with pytest.raises(IsoProblem):
        resolve("amd64", file, SILENT)
    assert cached(home) == []


def test_a_root_that_is_no_squashfs_is_refused(make_iso: MakeIso, home: Path) -> None:
    with pytest.raises(IsoProblem, match=r"/live/root\.squashfs in .* is no squashfs"):
        resolve("amd64", make_iso(root=b"none" * 1000), SILENT)
    assert cached(home) == []


def test_an_iso_without_a_kernel_is_refused(make_iso: MakeIso, home: Path) -> None:
    with pytest.raises(IsoProblem, match="is no ISO of wherry"):
        resolve("amd64", make_iso(kernel=None), SILENT)
    assert cached(home) == []


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(IsoProblem, match="cannot be imported"):
        resolve("amd64", tmp_path / "none.iso", SILENT)


def test_an_unchanged_file_is_not_read_again(make_iso: MakeIso) -> None:
    file = make_iso()
    first = resolve("amd64", file, SILENT)
    found = file.stat()
    file.write_bytes(bytes(found.st_size))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert resolve("amd64", file, SILENT) == first
    os.utime(file, ns=(1, 1))
    with pytest.raises(IsoProblem, match="does not verify"):
        resolve("amd64", file, SILENT)


def test_a_rebuilt_file_is_another_iso_and_the_old_one_stays(make_iso: MakeIso, home: Path) -> None:
    old = resolve("amd64", make_iso(), SILENT)
    new = resolve("amd64", make_iso(root=ROOT + b"more" * 2000), SILENT)
    assert cached(home) == sorted([old.sha256, new.sha256])
    assert by_sha(old.sha256) == old


def test_a_damaged_copy_in_the_cache_is_replaced(make_iso: MakeIso) -> None:
    file = make_iso()
    iso = resolve("amd64", file, SILENT)
    iso.path.chmod(0o644)
    iso.path.write_bytes(b"half")
    with pytest.raises(IsoProblem, match="is damaged: 4 bytes instead of"):
        by_sha(iso.sha256)
    assert resolve("amd64", file, SILENT).path.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"size": "x"}'])
def test_a_damaged_manifest_in_the_cache(make_iso: MakeIso, text: str) -> None:
    iso = resolve("amd64", make_iso(), SILENT)
    iso.path.with_name("manifest.json").write_text(text)
    with pytest.raises(IsoProblem, match="is damaged") as caught:
        by_sha(iso.sha256)
    assert str(iso.path.parent) in (caught.value.hint or "")


def test_an_iso_that_is_not_in_the_cache_says_how_to_get_it() -> None:
    with pytest.raises(IsoProblem, match="abababababab") as caught:
        by_sha("ab" * 32)
    assert "wherry iso import FILE" in (caught.value.hint or "")


def test_imports_at_the_same_time_give_one_iso(make_iso: MakeIso, home: Path) -> None:
    file = make_iso()
    found: list[Iso] = []
    threads = [threading.Thread(target=lambda: found.append(resolve("amd64", file, SILENT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len({iso.sha256 for iso in found}) == 1
    assert cached(home) == [found[0].sha256]


def test_the_newest_import_of_this_version_is_taken(make_iso: MakeIso, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100, 200))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    first = make_iso("one")
    one = resolve("amd64", first, SILENT)
    two = resolve("amd64", make_iso("two", root=ROOT + b"x" * 4096), SILENT)
    resolve("amd64", make_iso("old", root=ROOT + b"y" * 4096, manifest={"version": "0.0.1"}), SILENT)
    resolve("arm64", make_iso("arm", volume="WHERRY_ARM64", manifest={"architecture": "arm64"}), SILENT)
    assert resolve("amd64", None, SILENT) == two
    resolve("amd64", first, SILENT)
    assert resolve("amd64", None, SILENT) == one


def test_none_anywhere_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(IsoProblem) as caught:
        resolve("amd64", None, SILENT)
    assert caught.value.hint == "wherry iso import FILE"
    monkeypatch.setattr(guestfiles, "checkout", lambda: tmp_path)
    for arch, hint in (("amd64", "make iso"), ("arm64", "make iso ARCH=arm64")):
        with pytest.raises(IsoProblem) as caught:
            resolve(arch, None, SILENT)
        assert caught.value.hint == hint


def test_a_checkout_gives_what_it_built_last(make_iso: MakeIso, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guestfiles, "checkout", lambda: tmp_path)
    built = make_iso()
    assert resolve("amd64", None, SILENT).sha256 == sha256(built)
    built = make_iso(root=ROOT + b"new" * 4096)
    assert resolve("amd64", None, SILENT).sha256 == sha256(built)


def test_what_the_user_imported_comes_before_the_checkout(
    make_iso: MakeIso, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guestfiles, "checkout", lambda: tmp_path)
    make_iso()
    resolve("amd64", None, SILENT)
    own = resolve("amd64", make_iso("own", root=ROOT + b"own" * 4096), SILENT)
    assert resolve("amd64", None, SILENT) == own


def test_a_warm_cache_needs_no_pycdlib(make_iso: MakeIso) -> None:
    iso = resolve("amd64", make_iso(), SILENT)
    code = (
        "import sys; from launcher import images; from launcher.report import SilentReporter\n"
        "iso = images.resolve('amd64', None, SilentReporter()); iso.kernel(), iso.initrd(), iso.root_extent()\n"
        "print(iso.sha256, 'pycdlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [iso.sha256, "False"]
    assert "pycdlib" not in vars(images)


def test_what_speaks_http_is_not_imported_without_need(make_iso: MakeIso) -> None:
    resolve("amd64", make_iso(), SILENT)
    code = (
        "import sys; from launcher import images; from launcher.report import SilentReporter\n"
        "images.resolve('amd64', None, SilentReporter())\n"
        "print([name for name in ('requests', 'urllib3', 'truststore', 'cryptography', 'ssl') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("https://x/a.iso", "needs the SHA-256", "https://x/a.iso#sha256="),
        ("http://x/a.iso#sha256=12", "is no SHA-256", "http://x/a.iso#sha256="),
        ("ftp://x/a.iso#sha256=" + "a" * 64, "by https or http", ""),
        ("file:///a.iso", "by https or http", ""),
    ],
)
def test_an_address_needs_its_hash(text: str, says: str, hint: str) -> None:
    with pytest.raises(Usage, match=says) as caught:
        resolve("amd64", text, SILENT)
    assert hint in (caught.value.hint or "")


def test_a_killed_import_is_cleaned_up_by_the_next(make_iso: MakeIso, home: Path) -> None:
    left = home / "cache" / "iso" / ".import-left"
    left.mkdir(parents=True)
    (left / "wherry.iso").write_bytes(b"half")
    iso = resolve("amd64", make_iso(), SILENT)
    assert cached(home) == [iso.sha256]


def test_a_killed_note_of_where_an_iso_came_from_is_cleaned_up_by_the_next(make_iso: MakeIso, home: Path) -> None:
    file = make_iso()
    folder = resolve("amd64", file, SILENT).path.parent
    before = set(os.listdir(folder))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = folder / f".origin.json.{ended.pid}-0123abcd"
    for touched in (False, True):
        left.write_bytes(b"half")
        if touched:
            os.utime(file)  # read whole again, and found to be the same
        resolve("amd64", file, SILENT)
        assert set(os.listdir(folder)) == before, touched


def test_the_list_of_contents_is_kept_when_it_is_the_manifests(make_iso: MakeIso) -> None:
    sbom = b'{"bomFormat": "CycloneDX"}'
    file = make_iso(manifest={"sbom": {"sha256": hashlib.sha256(sbom).hexdigest()}})
    file.with_suffix(".cdx.json").write_bytes(sbom)
    assert resolve("amd64", file, SILENT).path.with_name("sbom.cdx.json").read_bytes() == sbom
    other = make_iso("other", root=ROOT + b"x" * 4096, manifest={"sbom": {"sha256": "0" * 64}})
    other.with_suffix(".cdx.json").write_bytes(sbom)
    assert not resolve("amd64", other, SILENT).path.with_name("sbom.cdx.json").exists()


def test_the_architecture_of_the_volume_has_to_be_the_manifests(make_iso: MakeIso, home: Path) -> None:
    with pytest.raises(IsoProblem, match="its volume says arm64"):
        resolve("amd64", make_iso(volume="WHERRY_ARM64"), SILENT)
    assert cached(home) == []
