"""Where a binary package comes from, read from the package itself.

`Source`, `Built-Using` and `Static-Built-Using` as in Debian Policy 5.6.1 and 7.8; licences from a machine-readable
debian/copyright (DEP-5, "copyright-format 1.0").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from builder.lock import Package
from builder.log import run

_SOURCE = re.compile(r"^(\S+)(?: \((\S+)\))?$")
_USED = re.compile(r"(\S+) \(= ([^)]+)\)")


@dataclass(frozen=True)
class Origin:
    """`built_using` names the source packages whose code is linked into this one's programs, with their versions."""

    source: str
    source_version: str
    built_using: tuple[tuple[str, str], ...] = ()
    licences: tuple[str, ...] = ()


def read_origin(cache: Path, package: Package, copyright_text: str = "") -> Origin:
    """What the package's control file says; of a source package its own name."""
    if package.architecture == "source":
        return Origin(package.name, package.version)
    text = run(["dpkg-deb", "--field", cache / package.file_name, "Source", "Built-Using", "Static-Built-Using"]).decode()
    values = fields(text)
    match = _SOURCE.match(values.get("source", package.name))
    source, version = (match[1], match[2]) if match else (package.name, None)
    used = _USED.findall(f"{values.get('built-using', '')}, {values.get('static-built-using', '')}")
    return Origin(source, version or package.version, tuple(sorted(set(used))), licences(copyright_text))


def fields(paragraph: str) -> dict[str, str]:
    """The fields of a control paragraph, names in lower case, continuation lines joined with line ends."""
    values: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line[:1] in (" ", "\t"):
            values[name] = f"{values.get(name, '')}\n{line.strip()}"
        elif ":" in line and not line.startswith("#"):
            head, _, value = line.partition(":")
            name = head.lower()
            values[name] = value.strip()
    return values


def licences(text: str) -> tuple[str, ...]:
    """The short names of the licences that the files are under; none when the text is not in that format."""
    paragraphs = [fields(part) for part in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n"))]
    if not re.search(r"copyright-format/1\.0", paragraphs[0].get("format", "")):
        return ()
    # Only of paragraphs about files: others repeat a licence's full text under its name.
    named = {part["license"].splitlines()[0].strip() for part in paragraphs if "files" in part and part.get("license")}
    return tuple(sorted(named - {""}))
