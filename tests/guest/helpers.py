"""Builds the guest's C helpers with the host's compiler: the flags of the image's build, but for the static linking."""

from __future__ import annotations

import atexit
import base64
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from builder.helpers import sources

HERE = Path(__file__).resolve().parent
ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "iso" / "helpers"
SCRIPTS = ROOT / "iso" / "overlay" / "usr" / "lib" / "wherry"
PROVISIONING = ROOT / "provisioning"


def compiler() -> str:
    """The host's; the test is skipped where there is none, or no Linux."""
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None or not Path("/proc/self").exists():
        pytest.skip("needs Linux and a C compiler")
    return found


@functools.cache
def helper(name: str, *flags: str) -> Path:
    """The path of the compiled helper, with more flags for the compiler; skips where there is none or no Linux."""
    folder = tempfile.mkdtemp(prefix="wherry-helper-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = Path(folder) / name
    warnings = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler(), *warnings, "-pthread", *flags, "-o", program, *sources(SOURCES)[name]], check=True)
    return program


@functools.cache
def static(name: str) -> Path:
    """The path of tests/guest/NAME.c as a program that needs no library, for a container."""
    program = helper("await").with_name(name)
    subprocess.run([compiler(), "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, HERE / f"{name}.c"], check=True)
    return program


@functools.cache
def library(name: str) -> Path:
    """The path of tests/guest/NAME.c as a library for LD_PRELOAD."""
    program = helper("disk").with_name(f"{name}.so")
    subprocess.run(
        [compiler(), "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", program, HERE / f"{name}.c", "-ldl"], check=True
    )
    return program


def fields(*argv: str | bytes, env: dict[str, str] | None = None, cwd: str | None = None) -> bytes:
    """The request of provisioning/README.md, before base64."""
    parts = [b"1"]
    parts += [b"A" + (argument if isinstance(argument, bytes) else argument.encode()) for argument in argv]
    parts += [f"E{name}={value}".encode() for name, value in (env or {}).items()]
    parts += [b"C" + cwd.encode()] if cwd is not None else []
    return b"".join(part + b"\0" for part in parts)


def request(*argv: str | bytes, env: dict[str, str] | None = None, cwd: str | None = None) -> str:
    """The request as it stands on the command line."""
    return base64.b64encode(fields(*argv, env=env, cwd=cwd)).decode()
