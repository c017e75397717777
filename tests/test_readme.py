"""The README against the program: verbs, other words, exit codes, settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from launcher import errors
from launcher.cli import proxy, registry
from launcher.config_keys import KEYS
from tests.conftest import Said

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
Wherry = Callable[..., Said]


def section(title: str) -> str:
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(text: str) -> list[str]:
    """The first column of a table, less its head and the backticks."""
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    return [row.strip("`") for row in rows[2:]]


def test_the_table_of_verbs_is_that_of_help(wherry: Wherry) -> None:
    listing = wherry("--help").out.split("Verbs:\n", 1)[1].split("\n\n", 1)[0]
    in_help = re.findall(r"^  (\S+)", listing, re.MULTILINE)
    assert first_cells(section("Verbs")) == in_help


def test_other_words_are_named() -> None:
    text = section("Verbs")
    for alias, (verb, *_) in registry.ALIASES.items():
        assert alias == "ls" or f"`{alias}`" in text, alias
        assert verb in registry.VERBS


def test_exit_codes() -> None:
    def codes(family: type[errors.WherryError]) -> set[int]:
        return {family.exit_code}.union(*(codes(kind) for kind in family.__subclasses__()))

    own = codes(errors.WherryError) - {errors.ConnectionLost.exit_code} | {0}
    assert {int(cell) for cell in first_cells(section("Exit codes"))} == own
    for code in set(proxy.LOST.values()):
        assert str(code) in section("Exit codes").split("|", 1)[0]


def test_the_table_of_keys() -> None:
    rows = [line.split("|")[1:-1] for line in section("Settings").splitlines() if line.startswith("|")]
    table = [[cell.strip().strip("`") for cell in row] for row in rows if len(row) == 4][2:]
    assert table == [
        [
            key.name,
            key.default,
            "later" if key.later else "-" if key.changed_by else "yes" if key.restart else "no",
            key.what.rstrip("."),
        ]
        for key in KEYS
    ]


def test_the_block_list_is_written_down() -> None:
    text = section("What to know today")
    handled_by_the_session = {"PWD", "OLDPWD", "_", "SHLVL", "TERM"}
    for name in proxy._BLOCKED - handled_by_the_session:
        assert f"`{name}`" in text, name
    for start in ("LD_", "DYLD_", "SSH_", "DOCKER_"):
        assert start in proxy._BLOCKED_STARTS and f"`{start}*`" in text


def test_the_manual_checks_name_verbs_that_there_are() -> None:
    text = (Path(__file__).parent.parent / "docs" / "manual-checks.md").read_text(encoding="utf-8")
    words = set(re.findall(r"`wherry ([a-z]+)", text))
    assert {"up", "doctor", "autostart", "uninstall"} <= words <= set(registry.VERBS)
    numbers = re.findall(r"^\| ([AMW])(\d+) \|", text, re.MULTILINE)
    for letter in "AMW":
        own = [int(number) for kind, number in numbers if kind == letter]
        assert own == list(range(1, len(own) + 1)), letter


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parent.parent
    for document in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (root / document).read_text(encoding="utf-8")):
            assert (root / target).exists(), f"{document}: {target}"
