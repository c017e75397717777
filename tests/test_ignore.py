"""Docker's patterns, with the cases of moby/patternmatcher and Docker's documentation."""

from __future__ import annotations

import pytest

from launcher.cli.ignore import Ignore, parse


def excluded(text: str, path: str, always: tuple[str, ...] = ()) -> bool:
    return Ignore(parse(text), always).excludes(path)


@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        ("*.md", "README.md", True),
        ("*.md", "docs/README.md", False),
        ("**/*.md", "README.md", True),
        ("**/*.md", "a/b/README.md", True),
        ("*/temp*", "a/temporary.txt", True),
        ("*/temp*", "a/b/temporary.txt", False),
        ("*/*/temp*", "a/b/temporary.txt", True),
        ("temp?", "tempa", True),
        ("temp?", "temp", False),
        ("/foo", "foo", True),
        ("foo/", "foo/bar/baz", True),
        ("foo/bar", "foo", False),
        ("./foo", "foo", True),
        ("a/../b", "b", True),
        ("**", "anything/at/all", True),
        ("**/foo", "foo", True),
        ("**/foo", "x/y/foo/z", True),
        ("foo/**", "foo/a/b", True),
        ("foo/**/bar", "foo/bar", True),
        ("foo/**/bar", "foo/x/y/bar", True),
        ("a[b-d]e", "ace", True),
        ("a[^b-d]e", "aze", True),
        ("a[^b-d]e", "ace", False),
        ("a\\*e", "a*e", True),
        ("a\\*e", "abe", False),
        ("# comment", "# comment", False),
        ("[", "[", True),
        ("a.c", "abc", False),
        ("node_modules", "node_modules/x/y.js", True),
        ("node_modules", "web/node_modules/y.js", False),
        (".", "anything", False),
        ("", "anything", False),
    ],
)
def test_patterns(pattern: str, path: str, out: bool) -> None:
    assert excluded(pattern, path) is out


def test_the_last_match_decides() -> None:
    text = "*.md\n!README*.md\nREADME-secret.md\n"
    assert excluded(text, "notes.md")
    assert not excluded(text, "README-all.md")
    assert excluded(text, "README-secret.md")
    assert not excluded("*.md\nREADME-secret.md\n!README*.md\n", "README-secret.md")


def test_everything_but() -> None:
    rules = Ignore(parse("*\n!src\n!docs/keep.md\n"))
    assert rules.excludes("build") and not rules.enters("build")
    assert not rules.excludes("src/a.c")
    assert rules.excludes("docs") and rules.enters("docs")
    assert not rules.excludes("docs/keep.md") and rules.excludes("docs/drop.md")


def test_what_the_build_needs_is_sent_all_the_same() -> None:
    rules = Ignore(parse("*"), always=["Dockerfile", "secret/key"])
    assert not rules.excludes("Dockerfile") and rules.excludes("Dockerfile2")
    assert rules.enters("secret") and not rules.excludes("secret/key")


def test_a_byte_order_mark_and_windows_lines() -> None:
    assert excluded("\ufeff*.md\r\n*.txt\r\n", "a.md") and excluded("\ufeff*.md\r\n*.txt\r\n", "a.txt")
