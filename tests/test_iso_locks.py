"""Locks of the image build: what counts as locked, what is told when it is not, what a locked build refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builder import packages as chosen_by
from builder.apt import Want, not_cached
from builder.lock import Lock, Package, differences, read_lock, write_lock
from builder.log import BuildError
from builder.packages import Chosen, choose, refuse_differences
from builder.recipe import read_recipe

from tests.debian import make_deb, sha256

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of packages, and no mmdebstrap: who asks apt fails."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "cache/wherry-build/debs"
    folder.mkdir(parents=True)
    return folder


def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[tuple[Package, Path]]:
    """Real packages with what a lock says of them."""
    made = []
    for name in names:
        with monkeypatch.context() as usual:
            usual.setenv("PATH", "/usr/bin:/bin")
            deb = make_deb(tmp_path, name, "1:2.0-1")
        made.append((Package(name, "1:2.0-1", "amd64", "trixie", sha256(deb)), deb))
    return made


WANT = Want("trixie", "amd64", ("one", "two"), frozenset())


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    lock = Lock(
        1795496753, WANT.digest, (Package("a", "1", "all", "trixie", "aa"), Package("b", "1:2", "amd64", "testing", "bb"))
    )
    write_lock(tmp_path / "x.lock", lock)
    assert read_lock(tmp_path / "x.lock") == lock
    assert "# date: 2026-11-24T05:05:53+00:00\n" in (tmp_path / "x.lock").read_text()


def test_a_lock_with_a_damaged_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text("# date: 2026-11-24T05:05:53+00:00\n# request: aa\nrunc 1.3 amd64 testing\n")
    with pytest.raises(BuildError, match=r"x\.lock, line 3"):
        read_lock(tmp_path / "x.lock")


def test_every_difference_is_told_by_its_kind() -> None:
    old = [
        Package("gone", "1", "all", "t", "a"),
        Package("moved", "1", "all", "t", "a"),
        Package("other", "1", "all", "t", "a"),
    ]
    new = [Package("moved", "2", "all", "t", "b"), Package("new", "1", "all", "t", "a"), Package("other", "1", "all", "t", "b")]
    assert differences(old, new) == [
        "gone:all 1 is in the lock, and nothing needs it",
        "moved:all 1 is not to be had, there is 2",
        "new:all 1 is not in the lock",
        "other:all 1 has other bytes than the locked ones",
    ]
    assert differences(old, old) == []


def test_a_cached_file_counts_only_with_the_locked_bytes(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one, deb), (two, other) = packages(tmp_path, monkeypatch, "one", "two")
    shutil.copy(deb, cache)
    (cache / other.name).write_bytes(other.read_bytes()[:-1])
    assert not_cached([one, two]) == [two]


@pytest.mark.parametrize("locked", [False, True])
def test_what_is_locked_and_cached_needs_no_apt(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    made = packages(tmp_path, monkeypatch, "one", "two")
    for _, deb in made:
        shutil.copy(deb, cache)
    lock = Lock(1795496753, WANT.digest, tuple(package for package, _ in made))
    write_lock(tmp_path / "x.lock", lock)
    assert choose(WANT, tmp_path / "x.lock", locked=locked) == Chosen(lock.packages, lock.epoch, tmp_path / "x.lock")


def test_a_locked_build_refuses_a_lock_of_another_recipe(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = packages(tmp_path, monkeypatch, "one", "two")
    for _, deb in made:
        shutil.copy(deb, cache)
    write_lock(tmp_path / "x.lock", Lock(1, "0123456789abcdef", tuple(package for package, _ in made)))
    with pytest.raises(BuildError, match=r"x\.lock was made for other packages than the recipe names now.*make lock"):
        choose(WANT, tmp_path / "x.lock", locked=True)


def test_a_locked_build_needs_a_lock(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(BuildError, match=r"there is no x\.lock"):
        choose(WANT, tmp_path / "x.lock", locked=True)


def test_without_apt_the_error_names_what_the_cache_lacks(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one, deb), (two, _) = packages(tmp_path, monkeypatch, "one", "two")
    shutil.copy(deb, cache)
    write_lock(tmp_path / "x.lock", Lock(1, WANT.digest, (one, two)))
    with pytest.raises(BuildError, match=r"1 of the 2 locked packages are not in the cache: two:amd64 1:2\.0-1$"):
        choose(WANT, tmp_path / "x.lock")


def test_a_locked_build_names_the_packages_of_all_trees() -> None:
    root = Chosen((), 1, Path("amd64.lock"), ("runc:amd64 1 is not to be had, there is 2",))
    tools = Chosen((), 1, Path("tools.lock"), ("gcc:amd64 14 is not to be had, there is 15",))
    with pytest.raises(BuildError) as failed:
        refuse_differences((root, tools))
    assert "runc:amd64 1 is not" in str(failed.value)
    assert "gcc:amd64 14 is not" in str(failed.value)
    refuse_differences((Chosen((), 1, Path("amd64.lock")),))


def test_every_lock_in_the_tree_is_of_the_recipe_in_the_tree() -> None:
    """A recipe that names other packages comes with renewed locks: make lock."""
    recipe = read_recipe(ROOT / "iso/recipe.toml")
    wants = {"tools-amd64": chosen_by.tools_want(recipe, "amd64")}
    wants |= {f"{arch}-{suite}": chosen_by.root_want(recipe, arch, suite) for arch in recipe.kernel for suite in recipe.engine}
    for name, want in wants.items():
        lock = read_lock(ROOT / f"iso/locks/{name}.lock")
        assert lock is not None, f"there is no {name}.lock: make lock"
        assert lock.request == want.digest, f"{name}.lock: make lock"
        assert all(len(package.sha256) == 64 for package in lock.packages)
