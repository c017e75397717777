"""The image build against a real mirror that moves on: apt, mmdebstrap and packages are real, the archive is ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from builder.apt import Want
from builder.lock import Lock, Package, read_lock, write_lock
from builder.log import BuildError
from builder.packages import choose, refuse_differences, renew

from tests.debian import Mirror, make_deb, mirror, sha256

pytestmark = pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="no mmdebstrap")

WANT = Want("trixie", "amd64", ("one",), frozenset({"unwanted"}))
OLD, NEW = "1:1.0-1", "1:1.1-1"


class Archive:
    """Packages one and two, which one needs, in two versions each; a lock of the old ones; an empty cache."""

    def __init__(self, folder: Path, served: Mirror) -> None:
        self.mirror, self.lock = served, folder / "x.lock"
        self.cache = folder / "cache/wherry-build/debs"
        needs = {"Depends": "two, unwanted"}
        self.debs = {
            (name, version): make_deb(folder, name, version, fields=needs if name == "one" else None)
            for name in ("one", "two", "unwanted", "three")
            for version in (OLD, NEW)
        }
        self.locked = tuple(self.package(name, OLD) for name in ("one", "two"))
        write_lock(self.lock, Lock(1795496753, WANT.digest, self.locked))

    def package(self, name: str, version: str) -> Package:
        return Package(name, version, "amd64", "trixie", sha256(self.debs[name, version]))

    def offer(self, **versions: str) -> None:
        self.mirror.offer(*(self.debs[name, version] for name, version in {"unwanted": OLD, **versions}.items()))

    def keep(self, name: str, version: str) -> None:
        """Puts a package into the cache."""
        self.cache.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.debs[name, version], self.cache)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "a b").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a b"))  # a path with a space
    (tmp_path / "a b").chmod(0o777)
    with mirror(tmp_path / "mirror") as served:
        yield Archive(tmp_path, served)


def test_all_that_is_locked_can_be_had(archive: Archive) -> None:
    archive.offer(one=OLD, two=OLD)
    chosen = choose(WANT, archive.lock, locked=True, mirrors=[archive.mirror.line])
    assert (chosen.packages, chosen.epoch, chosen.differences) == (archive.locked, 1795496753, ())
    assert sorted(path.name for path in archive.cache.iterdir()) == ["one_1%3a1.0-1_amd64.deb", "two_1%3a1.0-1_amd64.deb"]


def test_a_mirror_that_moved_on(archive: Archive) -> None:
    """With an empty cache: a release stops and names the package, everything else goes on with what there is."""
    archive.offer(one=NEW, two=OLD)
    chosen = choose(WANT, archive.lock, mirrors=[archive.mirror.line])
    assert chosen.packages == (archive.package("one", NEW), archive.package("two", OLD))
    assert chosen.differences == ("one:amd64 1:1.0-1 is not to be had, there is 1:1.1-1",)
    assert chosen.epoch == 1795496753
    with pytest.raises(BuildError, match=r"one:amd64 1:1\.0-1 is not to be had") as failed:
        refuse_differences([choose(WANT, archive.lock, locked=True, mirrors=[archive.mirror.line])])
    assert "two:amd64" not in str(failed.value)


def test_what_the_mirror_lost_and_the_cache_has_is_still_locked(archive: Archive) -> None:
    archive.keep("one", OLD)
    archive.offer(one=NEW, two=OLD)
    chosen = choose(WANT, archive.lock, locked=True, mirrors=[archive.mirror.line])
    assert (chosen.packages, chosen.differences) == (archive.locked, ())


def test_a_damaged_file_in_the_cache_is_fetched_again(archive: Archive) -> None:
    archive.keep("two", OLD)
    name = archive.locked[1].file_name
    (archive.cache / name).write_bytes((archive.cache / name).read_bytes()[:-7])
    archive.offer(one=NEW, two=OLD)  # so that apt chooses, and does not only fetch what is locked
    chosen = choose(WANT, archive.lock, mirrors=[archive.mirror.line])
    assert chosen.packages[1] == archive.locked[1]
    assert sha256(archive.cache / name) == archive.locked[1].sha256


def test_other_bytes_under_a_locked_version_are_told(archive: Archive) -> None:
    other = make_deb(archive.mirror.folder, "two", OLD, files={"usr/share/two": "not what was locked"})
    archive.mirror.offer(archive.debs["one", OLD], other, archive.debs["unwanted", OLD])
    chosen = choose(WANT, archive.lock, mirrors=[archive.mirror.line])
    assert chosen.differences == ("two:amd64 1:1.0-1 has other bytes than the locked ones",)


def test_a_lock_of_another_recipe_is_told_and_its_versions_are_kept(archive: Archive) -> None:
    archive.keep("one", OLD)
    archive.offer(one=OLD, two=OLD, three=NEW)
    want = Want("trixie", "amd64", ("one", "three"), WANT.skip)
    chosen = choose(want, archive.lock, mirrors=[archive.mirror.line])
    assert [(p.name, p.version) for p in chosen.packages] == [("one", OLD), ("three", NEW), ("two", OLD)]
    assert "was made for other packages" in chosen.differences[0]
    assert chosen.differences[1:] == ("three:amd64 1:1.1-1 is not in the lock",)


def test_a_mirror_that_does_not_answer(archive: Archive) -> None:
    archive.keep("two", OLD)
    with pytest.raises(
        BuildError, match=r"could not be had.*\n(.*\n)*1 of the 2 locked .* not in the cache: one:amd64 1:1\.0-1"
    ):
        choose(WANT, archive.lock, mirrors=["deb [trusted=yes] http://127.0.0.1:9/ trixie main"])


def test_renewing_a_lock(archive: Archive) -> None:
    """Its date changes when a package did, and only then."""
    archive.offer(one=OLD, two=OLD)
    renew(WANT, archive.lock, [archive.mirror.line])
    assert read_lock(archive.lock) == Lock(1795496753, WANT.digest, archive.locked)
    archive.offer(one=NEW, two=OLD)
    renew(WANT, archive.lock, [archive.mirror.line])
    renewed = read_lock(archive.lock)
    assert renewed is not None
    assert renewed.packages == (archive.package("one", NEW), archive.package("two", OLD))
    assert renewed.epoch != 1795496753
