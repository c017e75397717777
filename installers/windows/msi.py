"""wherry-VERSION-windows-amd64.msi for managed machines: the same folder in Program Files, for all users, by wixl and msibuild.

wixl knows no <Environment>, so that the entry of the machine's PATH and the two actions that heed it are put in afterwards
(learn.microsoft.com: Environment table, WriteEnvironmentStrings).
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path, PurePath
from typing import Final
from xml.sax.saxutils import quoteattr

from installers.context import Context, Made
from installers.tools import run, say
from installers.windows import summary
from installers.windows.layout import TARGET, Layout, lay_out

_SPACE: Final = uuid.uuid5(uuid.NAMESPACE_OID, "wherry.msi")
_UPGRADE: Final = uuid.uuid5(_SPACE, "upgrade")  # of all versions: by it the next one finds this
_PATH: Final = (
    "Environment\tName\tValue\tComponent_\ns72\tl255\tL255\ts72\nEnvironment\tEnvironment\npath\t*=-PATH\t[~];[{}]\t{}\n"
)
_ROW: Final = "INSERT INTO `InstallExecuteSequence` (`Action`, `Sequence`) VALUES ('{}', {})"
_ACTIONS: Final = {"RemoveEnvironmentStrings": 3300, "WriteEnvironmentStrings": 5200}


def build_all(context: Context) -> list[Made]:
    """The MSI. Raises BuildError."""
    python = context.pythons.get(TARGET)
    if python is None:
        say(f"no MSI: --python {TARGET}=DIR gives the Python that goes into it")
        return []
    layout = lay_out(context, python, None)
    return [Made(build(layout, context), layout.wheels, layout.parts)]


def build(layout: Layout, context: Context) -> Path:
    """The MSI, in the output folder; the same input gives the same bytes."""
    target = context.output / f"wherry-{context.version}-windows-amd64.msi"
    source = context.work / "wherry.wxs"
    source.write_text(_source(layout, context.version), encoding="utf-8")
    run(["wixl", "-a", "x64", "-o", target, source], cwd=layout.root, env={"SOURCE_DATE_EPOCH": str(context.epoch)})
    table = context.work / "Environment.idt"
    table.write_text(_PATH.format(_id("d", PurePath("bin")), _id("c", PurePath("bin"))), encoding="ascii", newline="\r\n")
    run(["msibuild", target, "-i", table])
    for action, number in _ACTIONS.items():
        run(["msibuild", target, "-q", _ROW.format(action, number)])
    summary.settle(target, _SPACE, context.epoch)
    context.signed("file", target)
    return target


def product_version(version: str) -> str:
    """Three numbers, which is all that Windows Installer compares."""
    return ".".join([*re.findall(r"\d+", version), "0", "0"][:3])


def _id(kind: str, path: PurePath) -> str:
    """A name in a table: short, and the same in each version."""
    return f"{kind}{uuid.uuid5(_SPACE, f'{kind} {path.as_posix()}').hex}"


def _source(layout: Layout, version: str) -> str:
    """The MSI as wixl reads it. A folder is a component, whose first file tells whether it is there."""
    folders: dict[PurePath, list[PurePath]] = {}
    for path in layout.files():
        folders.setdefault(path.parent, []).append(path)
        for above in path.parent.parents:
            folders.setdefault(above, [])
    body = _folder(PurePath(), folders)
    refs = "".join(f'<ComponentRef Id="{_id("c", folder)}"/>\n' for folder, files in sorted(folders.items()) if files)
    number = product_version(version)
    return f"""<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
<Product Id="{uuid.uuid5(_SPACE, version)}" UpgradeCode="{_UPGRADE}" Name="Wherry" Version="{number}" Language="1033"
 Manufacturer="The Wherry authors">
<Package InstallerVersion="500" Compressed="yes" InstallScope="perMachine" Description={quoteattr(f"Wherry {version}")}/>
<MajorUpgrade DowngradeErrorMessage="A newer Wherry is installed."/>
<Media Id="1" Cabinet="wherry.cab" EmbedCab="yes"/>
<Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="ProgramFiles64Folder">
<Directory Id="INSTALLDIR" Name="Wherry">
{body}</Directory></Directory></Directory>
<Feature Id="Wherry" Level="1">
{refs}</Feature>
</Product>
</Wix>
"""


def _folder(folder: PurePath, folders: dict[PurePath, list[PurePath]]) -> str:
    text = ""
    if files := folders[folder]:
        text += f'<Component Id="{_id("c", folder)}" Guid="{uuid.uuid5(_SPACE, folder.as_posix())}" Win64="yes">\n'
        for number, path in enumerate(files):
            key = ' KeyPath="yes"' if number == 0 else ""
            text += f'<File Id="{_id("f", path)}" Name={quoteattr(path.name)} Source={quoteattr(str(path))}{key}/>\n'
        text += "</Component>\n"
    for inner in sorted(other for other in folders if other.parent == folder and other != folder):
        text += f'<Directory Id="{_id("d", inner)}" Name={quoteattr(inner.name)}>\n{_folder(inner, folders)}</Directory>\n'
    return text
