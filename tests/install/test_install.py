"""The package as a user gets it: wheel and sdist built, the wheel used from a bare venv, away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import __version__

ROOT = Path(__file__).parent.parent.parent
GUEST = ("iso", "provisioning")


def run(*argv: str | Path, cwd: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WHERRY_"))}
    done = subprocess.run(
        [os.fspath(word) for word in argv], cwd=cwd, capture_output=True, text=True, check=False, env={**clean, **environment}
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done.stdout


def guest_files() -> dict[str, Path]:
    """What the checkout has for the guest, less what work on it leaves behind."""
    left_out = {"__pycache__", ".mypy_cache", ".ruff_cache"}
    return {
        path.relative_to(ROOT).as_posix(): path
        for folder in GUEST
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not left_out & set(path.parts)
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with one wheel and one sdist; built from the sdist as `pip install` of it would."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", out, cwd=ROOT)
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bin folder of a venv with nothing but the wheel and what it depends on."""
    venv = tmp_path_factory.mktemp("bare") / "venv"
    run(sys.executable, "-m", "venv", venv, cwd=built)
    [wheel] = built.glob("*.whl")
    run(venv / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel, cwd=built)
    yield venv / "bin"


def test_the_wheel_has_the_guest_files_and_no_others(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    prefix = "launcher/_guest/"
    with zipfile.ZipFile(wheel) as archive:
        found = {info.filename.removeprefix(prefix): info for info in archive.infolist() if info.filename.startswith(prefix)}
        assert sorted(found) == sorted(guest_files())
        for name, path in guest_files().items():
            assert archive.read(found[name]) == path.read_bytes(), name
            assert bool(found[name].external_attr >> 16 & 0o100) == bool(path.stat().st_mode & 0o100), f"{name}: executable"
        assert archive.read("launcher/release.toml") == (ROOT / "launcher" / "release.toml").read_bytes()


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(tmp_path)
    assert set(guest_files()) <= names
    assert {"README.md", "LICENSE", "Makefile", "ARCHITECTURE.md", ".ci/run", "tests/conftest.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("build/", ".venv"))]
    [folder] = tmp_path.iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=folder)
    [first], [second] = built.glob("*.whl"), (tmp_path / "again").glob("*.whl")
    with zipfile.ZipFile(first) as one, zipfile.ZipFile(second) as two:
        assert sorted(one.namelist()) == sorted(two.namelist())


def test_a_bare_venv(installed: Path, tmp_path: Path) -> None:
    home = {"WHERRY_HOME": str(tmp_path / "home"), "DOCKER_CONFIG": str(tmp_path / "docker")}
    assert run(installed / "wherry", "--version", cwd=tmp_path) == f"wherry {__version__}\n"
    assert run(installed / "wherry", "list", "--json", cwd=tmp_path, **home).startswith('{\n "ok": true,\n "data": []')
    assert run(installed / "python", "-m", "launcher", "--version", cwd=tmp_path) == f"wherry {__version__}\n"
    code = "from launcher import guestfiles as g; print(g.provisioning().is_dir(), g.checkout(), g.guest_root().name)"
    assert run(installed / "python", "-c", code, cwd=tmp_path).split() == ["True", "None", "_guest"]


def test_the_installed_iso_builder_starts(installed: Path, tmp_path: Path) -> None:
    [builder] = installed.parent.rglob("_guest/iso/build.py")
    # The version is in the image: a rebuild from the wheel has to find the checkout's.
    assert f"({__version__})" in run(installed / "python", builder, "--help", cwd=tmp_path)


@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="no mmdebstrap")
def test_a_locked_build_says_where_its_sbom_comes_from(installed: Path, tmp_path: Path) -> None:
    [builder] = installed.parent.rglob("_guest/iso/build.py")
    words = [installed / "python", builder, "--arch", "amd64", "--output", tmp_path, "--locked"]
    done = subprocess.run([os.fspath(word) for word in words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'wherry[iso]'" in done.stderr
    assert not list(tmp_path.glob("*.iso"))


def test_every_module_can_be_imported(installed: Path, tmp_path: Path) -> None:
    """With nothing but the declared dependencies."""
    code = (
        "import importlib, pkgutil, launcher\n"
        "for item in pkgutil.walk_packages(launcher.__path__, 'launcher.'):\n"
        "    if not item.name.endswith(('.__main__', '.windows')) and '_guest' not in item.name:\n"
        "        importlib.import_module(item.name)\n"
    )
    run(installed / "python", "-W", "error::ImportWarning", "-c", code, cwd=tmp_path)


@pytest.mark.parametrize("way", ["pipx", "pip"])
def test_onboarding_installs_it_and_follows_the_projects_file(built: Path, way: str, tmp_path: Path) -> None:
    """On a computer without wherry: `onboard.sh` with the real pipx, or pip alone, then wherry's own word on the file."""
    home, programs, project = tmp_path / "home", tmp_path / "bin", tmp_path / "a project"
    for folder in (home, programs, project):
        folder.mkdir()
    python = Path(sys.base_prefix) / "bin" / "python3"
    if way == "pipx":
        run(sys.executable, "-m", "venv", tmp_path / "pipx", cwd=tmp_path)
        run(tmp_path / "pipx/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "pipx", cwd=tmp_path)
        (programs / "pipx").symlink_to(tmp_path / "pipx/bin/pipx")
    elif list(Path(sys.base_prefix).glob("lib/python3*/EXTERNALLY-MANAGED")):
        pytest.skip("this Python's pip installs for nobody (PEP 668), which tests/test_onboard_script.py has")
    (programs / "python3").symlink_to(python)
    (project / "wherry.toml").write_text('requires = ">=99"\n')
    [wheel] = built.glob("*.whl")
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    environment = {
        **kept, "HOME": str(home), "PATH": f"{programs}:/usr/bin:/bin", "WHERRY_PACKAGE": str(wheel),
        "WHERRY_HOME": str(tmp_path / "machines"),
    }  # fmt: skip
    words = ["/bin/sh", str(ROOT / "installers" / "onboard.sh")]
    for installed_before in (False, True):
        done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 4, done.stderr
        assert (f"with {way}" in done.stderr) is not installed_before
        assert f"wherry.toml wants wherry >=99; this is wherry {__version__}." in done.stderr
    assert {"pipx": "pipx upgrade wherry", "pip": "-m pip install --upgrade wherry"}[way] in done.stderr
