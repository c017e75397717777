"""installers/onboard.ps1, as far as it can be looked at where there is no PowerShell: by a grammar of the language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

SCRIPT = Path(__file__).parent.parent / "installers" / "onboard.ps1"
LANGUAGE = Language(tree_sitter_powershell.language())
# Of Windows PowerShell 5.1, the oldest that is meant.
CMDLETS = {"Get-Command", "Join-Path", "Out-Host", "Select-Object", "Set-StrictMode", "Test-Path"}
AUTOMATIC = {"args", "env", "ErrorActionPreference", "false", "LASTEXITCODE", "null", "true"}


def parsed(text: str) -> Node:
    return Parser(LANGUAGE).parse(text.encode()).root_node


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from walk(child)


def texts(root: Node, kind: str) -> list[str]:
    return [(node.text or b"").decode() for node in walk(root) if node.type == kind]


@pytest.fixture(scope="module")
def root() -> Node:
    return parsed(SCRIPT.read_text(encoding="ascii"))  # 5.1 reads a file without a mark as the computer's code page


def test_it_is_powershell(root: Node) -> None:
    assert not root.has_error, [node for node in walk(root) if node.is_error or node.is_missing]


@pytest.mark.parametrize(
    ("whole", "broken"), [("}", ""), ("foreach (", "foreach "), ("-not (", "-not (("), ("if (-not", "if -not")]
)
def test_the_grammar_sees_what_is_broken(whole: str, broken: str) -> None:
    text = SCRIPT.read_text()
    assert parsed(text.replace(whole, broken, 1)).has_error


def test_what_it_calls_is_there(root: Node) -> None:
    ours = set(texts(root, "function_name"))
    called = {name for name in texts(root, "command_name") if re.fullmatch(r"[A-Za-z]+(-[A-Za-z]+)?", name)}
    assert ours == {"Find-Python", "Find-Wherry", "Install-Wherry", "Say", "Stop-ByHand", "Test-Program"}
    assert called - ours <= CMDLETS | {"pipx"}
    assert ours <= called


def test_no_variable_is_read_that_nothing_sets(root: Node) -> None:
    """Strict mode would end the script there."""
    places = [node for node in walk(root) if node.type in ("left_assignment_expression", "script_parameter")]
    each = [node.named_children[0] for node in walk(root) if node.type == "foreach_statement"]
    assigned = {plain(name) for node in [*places, *each] for name in texts(node, "variable")}
    assert {"folder", "package", "python", "text", "words"} <= assigned
    assert {plain(name) for name in texts(root, "variable")} - assigned <= AUTOMATIC


def plain(name: str) -> str:
    return name.lstrip("$@{").rstrip("}").partition(":")[0]


def test_nothing_in_it_is_of_powershell_7(root: Node) -> None:
    code = re.sub(r"#.*", "", SCRIPT.read_text())
    assert not re.search(r"&&|\|\||\?\?|\?\.|\? .* : ", code)
