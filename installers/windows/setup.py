"""wherry-VERSION-windows-amd64-setup.exe by NSIS, for one user and without an administrator; and the same folder as a zip."""

from __future__ import annotations

import re
import time
import zipfile
from pathlib import Path, PureWindowsPath
from typing import Final

from installers.context import Context, Made
from installers.tools import run, say
from installers.windows.layout import TARGET, Layout, lay_out

_SCRIPT: Final = Path(__file__).with_name("wherry.nsi")


def build_all(context: Context) -> list[Made]:
    """setup.exe, the zip, and the full edition where there is an ISO. Raises BuildError."""
    python = context.pythons.get(TARGET)
    if python is None:
        say(f"nothing for Windows: --python {TARGET}=DIR gives the Python that goes into it")
        return []
    layout = lay_out(context, python, None)
    made = [Made(build(layout, context), layout.wheels, layout.parts), Made(_zip(layout, context), layout.wheels, layout.parts)]
    if iso := context.isos.get("amd64"):
        full = lay_out(context, python, iso)
        made.append(Made(build(full, context, "-full"), full.wheels, full.parts))
    return made


def build(layout: Layout, context: Context, edition: str = "") -> Path:
    """The installer, in the output folder; the same input gives the same bytes."""
    target = context.output / f"wherry-{context.version}-windows-amd64{edition}-setup.exe"
    listing = context.work / "files.nsh"
    listing.write_text(_listing(layout), encoding="utf-8")
    words = {
        "VERSION": context.version,
        "NUMBERS": _numbers(context.version),
        "OUTPUT": str(target),
        "LISTING": str(listing),
        "KILOBYTES": str(sum((layout.root / path).stat().st_size for path in layout.files()) // 1024),
        **({"QUICK": "1"} if context.quick else {}),
        **({"SIGN": str(context.sign.absolute())} if context.sign else {}),
    }
    run(["makensis", "-V2", "-WX", *(f"-D{name}={value}" for name, value in words.items()), _SCRIPT])
    context.signed("file", target)
    return target


def _numbers(version: str) -> str:
    """Four numbers, as a version resource has them."""
    return ".".join([*re.findall(r"\d+", version), "0", "0", "0", "0"][:4])


def _listing(layout: Layout) -> str:
    """What is put where, line by line: `File /r` would take the order of the builder's file system."""
    lines, folder = [], None
    for path in layout.files():
        if path.parent != folder:
            folder = path.parent
            lines.append(f'SetOutPath "$INSTDIR{_windows(folder)}"')
        lines.append(f'File "{layout.root / path}"')
    return "".join(f"{line}\n" for line in lines)


def _windows(folder: Path) -> str:
    return f"\\{PureWindowsPath(folder)}" if folder.parts else ""


def _zip(layout: Layout, context: Context) -> Path:
    """For Scoop, and for whoever installs nothing. The same input gives the same bytes."""
    target = context.output / f"wherry-{context.version}-windows-amd64.zip"
    date = time.gmtime(context.epoch)[:6]
    with zipfile.ZipFile(target, "w") as archive:
        for path in layout.files():
            info = zipfile.ZipInfo(path.as_posix(), date)
            info.compress_type = zipfile.ZIP_STORED if context.quick else zipfile.ZIP_DEFLATED
            info.create_system, info.external_attr = 0, 0
            archive.writestr(info, (layout.root / path).read_bytes(), compresslevel=9)
    return target
