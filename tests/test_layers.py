"""Imports point down only, and neighbours do not see each other (ARCHITECTURE.md, Layers)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "launcher"

# From the top down; a folder counts as one.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"console"},
    {"machine"},
    {"keeper"},
    {"virtiofs"},
    {"readiness", "running", "privacy"},
    {"images", "disks", "seed", "qemu", "ssh", "dockerhome", "sftp", "ramfile"},
    {"control", "sharing"},
    {"store"},
    {"config", "guestfiles", "host"},
    {"proc", "release"},
    {"errors", "report"},
    {"__init__"},
)
# Parts of one thing: the reporter for a terminal, the reading of ISO files and their judgement, what a machine directory holds,
# the keys and the text of machine.toml.
PARTS = {
    "bars": "console",
    "isofile": "images",
    "floors": "images",
    "qcow": "disks",
    "state": "store",
    "files": "store",
    "room": "store",
    "saved": "store",
    "identity": "store",
    "machinedir": "store",
    "config_keys": "config",
    "config_values": "config",
    "engine_values": "config",
    "configfile": "config",
    "diskcopy": "disks",
    "diskexport": "disks",
}


def unit(module: str) -> str:
    """The layer's name of a module: "launcher.qemu.probe" -> "qemu"."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else "__init__"
    return PARTS.get(name, name)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Every module of ours that the file imports, at its top or in a function; for type checkers only does not count."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        inner for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            # `from launcher import store` names a module, `from launcher import __version__` does not.
            is_package = base == "launcher"
            found |= {f"{base}.{alias.name}" if is_package and _is_module(alias.name) else base for alias in node.names}
    return {name for name in found if name.split(".")[0] == "launcher"}


def _is_module(name: str) -> bool:
    return (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()


def level(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_guest" not in path.parts)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    own = unit(module_name(path))
    for name in imported(path):
        other = unit(name)
        assert other == own or level(other) > level(own), f"{module_name(path)} must not import {name}"


def test_every_module_has_a_layer() -> None:
    known = set().union(*LAYERS)
    assert {unit(module_name(path)) for path in FILES} <= known


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_modules_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


# Ways to ask which system it is; platform.platform() is a text for people.
SYSTEM = {
    "sys": {"platform", "getwindowsversion"},
    "os": {"name", "uname"},
    "platform": {"system", "uname", "win32_ver", "mac_ver", "freedesktop_os_release"},
}


def asks_for_the_system(tree: ast.AST) -> list[int]:
    """The lines that do."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in SYSTEM.get(node.value.id, ()))
        or (isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & SYSTEM.get(node.module or "", set()))
    ]


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name != "host"], ids=module_name)
def test_the_host_layer_alone_knows_the_system(path: Path) -> None:
    assert asks_for_the_system(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code", ["import sys\nsys.platform", "import os\nif os.name == 'nt': pass", "import os\nfrom platform import system"]
)
def test_who_asks_for_the_system_is_found(code: str) -> None:
    assert asks_for_the_system(ast.parse(code)) == [2]


@pytest.mark.parametrize("folder", ["iso", "provisioning", "installers"])
def test_the_other_side_imports_nothing_of_ours(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert not re.search(r"^\s*(from|import) launcher", path.read_text(encoding="utf-8"), re.MULTILINE), path
