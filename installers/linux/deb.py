"""wherry_VERSION_ARCH.deb: the wheel and what it depends on in /usr/lib/wherry, on the system's own Python.

Debian's own packages cannot serve: Debian 12 has paramiko 2.12 and watchdog 2.2, Debian 13 3.5 and 6; Wherry needs 4 and 7.1.
The folder is laid out as a venv is (PEP 405), so that it sees nothing else that is installed. It is written by hand: a venv is
made for one version of Python, and this folder serves all of a target's, by a link for each.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from installers.context import Context, Made
from installers.metadata import read
from installers.tools import run
from installers.wheels import clear, unpack

_DATA: Final = Path(__file__).parent
_HOME: Final = "usr/lib/wherry"
_QEMU: Final = {"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}
_ABOUT: Final = """Docker on this computer, in a small virtual machine
 Wherry boots a small Linux image under QEMU and makes the Docker Engine in it
 feel native: published ports, shared folders, the docker command. It needs
 no administrator, no account and no daemon."""


@dataclass(frozen=True)
class Deb:
    """What a package is made of."""

    version: str
    arch: str  # Debian's name
    pythons: Sequence[str]
    wheels: Sequence[Path]  # wherry's among them


def build_all(context: Context) -> list[Made]:
    """A package for each architecture. Raises BuildError."""
    made = []
    for arch in _QEMU:
        target = f"linux-{arch}"
        deb = Deb(context.version, arch, context.targets[target].pythons, context.wheels(target))
        made.append(Made(build(deb, context), tuple(deb.wheels)))
    return made


def build(deb: Deb, context: Context) -> Path:
    """The package, in the output folder; the same input gives the same bytes."""
    tree = clear(context.work / f"deb-{deb.arch}")
    _lay_out(tree, deb)
    control = tree / "DEBIAN"
    control.mkdir()
    for name in ("postinst", "prerm"):
        _copy(name, control / name, 0o755)
    (control / "control").write_text(_control(tree, deb), encoding="utf-8")
    (control / "md5sums").write_text(_md5sums(tree), encoding="utf-8")
    _settle(tree)
    target = context.output / f"wherry_{debian_version(deb.version)}_{deb.arch}.deb"
    # The bytes of xz depend on its threads.
    compression = ["-Zgzip", "-z1"] if context.quick else ["-Zxz", "--threads-max=1"]
    words: list[str | Path] = ["dpkg-deb", "--root-owner-group", *compression, "--build", tree, target]
    run(words, env={"SOURCE_DATE_EPOCH": str(context.epoch)})
    return target


def debian_version(version: str) -> str:
    """A pre-release sorts before its release (deb-version(7)): 1.0rc1 is 1.0~rc1."""
    return re.sub(r"(?<=\d)\.?(a|b|rc|dev)(?=\d)", r"~\1", version)


def _lay_out(tree: Path, deb: Deb) -> None:
    home = tree / _HOME
    packages = home / "lib/python3/site-packages"
    unpack(deb.wheels, packages)
    for python in deb.pythons:
        (home / f"lib/python{python}").symlink_to("python3")
    (home / "bin").mkdir()
    (home / "bin/python3").symlink_to("/usr/bin/python3")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    _copy("wherry", home / "bin/wherry", 0o755)
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/wherry").symlink_to("../lib/wherry/bin/wherry")
    _copy("wherry.rtupdate", tree / "usr/share/python3/runtime.d/wherry.rtupdate", 0o755)
    _copy("bash-completion", tree / "usr/share/bash-completion/completions/wherry", 0o644)
    about = tree / "usr/share/doc/wherry/copyright"
    _copy("copyright", about, 0o644)
    with about.open("a", encoding="utf-8") as file:
        file.writelines(_stanzas(deb.wheels))


def _stanzas(wheels: Iterable[Path]) -> list[str]:
    """The licences of what others wrote, for the file `copyright`."""
    others = sorted({read(wheel) for wheel in wheels} - {read(wheel) for wheel in wheels if wheel.name.startswith("wherry-")})
    return [
        f"\nFiles: usr/lib/wherry/lib/python3/site-packages/{about.name}-{about.version}.dist-info\n"
        f"Copyright: the authors of {about.name}\nLicense: {about.license}\n"
        for about in others
    ]


def _copy(name: str, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_DATA / name, target)
    target.chmod(mode)


def _control(tree: Path, deb: Deb) -> str:
    oldest, newest = deb.pythons[0], deb.pythons[-1]
    after = f"{newest.split('.')[0]}.{int(newest.split('.')[1]) + 1}"
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    fields = {
        "Package": "wherry",
        "Version": debian_version(deb.version),
        "Architecture": deb.arch,
        "Maintainer": "The Wherry authors <wherry@localhost>",
        "Installed-Size": str(-(-size // 1024)),
        "Depends": f"python3 (>= {oldest}), python3 (<< {after}~), libc6 (>= 2.28)",
        "Recommends": f"{_QEMU[deb.arch]} (>= 1:7.2), qemu-utils",
        "Suggests": "docker-cli",
        "Section": "admin",
        "Priority": "optional",
        "Description": _ABOUT,
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def _md5sums(tree: Path) -> str:
    """For dpkg --verify, which knows no other digest."""
    lines = []
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink() and "DEBIAN" not in path.relative_to(tree).parts:
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            lines.append(f"{digest}  {path.relative_to(tree).as_posix()}\n")
    return "".join(lines)


def _settle(tree: Path) -> None:
    """Modes that the umask of the builder does not decide."""
    for path in [tree, *tree.rglob("*")]:
        if path.is_symlink():
            continue
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
