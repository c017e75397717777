"""Docker's options as docker reads them, and what `wherry run` adds."""

from __future__ import annotations

import pytest

from launcher.cli import dockerflags, stdio
from launcher.cli.run import docker_words
from launcher.cli.words import Settings, leading, scan


def run(line: str, *, terminal: bool = False) -> str:
    words = docker_words(line.split(), terminal=terminal)
    assert words[0] == "run"
    return " ".join(words[1:])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("alpine", "--init --rm alpine"),
        ("alpine --rm --init", "--init --rm alpine --rm --init"),  # behind the image: the container's
        ("-d nginx", "--init -d nginx"),
        ("--detach=false nginx", "--init --rm --detach=false nginx"),
        ("-dp 80:80 nginx", "--init -dp 80:80 nginx"),
        ("--name web nginx", "--init --name web nginx"),
        ("--restart always nginx", "--init --restart always nginx"),
        ("--cidfile=/tmp/x nginx", "--init --cidfile=/tmp/x nginx"),
        ("--rm=false nginx", "--init --rm=false nginx"),
        ("--init=false nginx", "--rm --init=false nginx"),
        ("-e NAME -v a:b alpine sh -c x", "--init --rm -e NAME -v a:b alpine sh -c x"),
        ("-eNAME=--name -- alpine", "--init --rm -eNAME=--name -- alpine"),
        ("-h --name alpine", "--init --rm -h --name alpine"),  # a host called "--name"
        ("-e --rm alpine", "--init --rm -e --rm alpine"),
        ("--help", "--help"),
        ("", ""),
    ],
)
def test_defaults_without_a_terminal(line: str, expected: str) -> None:
    assert run(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("alpine", "--init -it --rm alpine"),
        ("-i alpine cat", "--init --rm -i alpine cat"),
        ("-t alpine", "--init --rm -t alpine"),
        ("-it alpine", "--init --rm -it alpine"),
        ("--tty=false alpine", "--init --rm --tty=false alpine"),
        ("-a stdout alpine", "--init --rm -a stdout alpine"),
        ("-d alpine", "--init -d alpine"),
    ],
)
def test_a_terminal_is_given_one(line: str, expected: str) -> None:
    assert run(line, terminal=True) == expected


def test_hello_is_inside() -> None:
    assert run("wherry/hello") == "--init --rm --pull never wherry.internal/hello"
    assert run("--pull always wherry/hello:latest x") == "--init --rm --pull always wherry.internal/hello:latest x"
    assert run("alpine wherry/hello") == "--init --rm alpine wherry/hello"


def test_leading_options_end_at_the_verb() -> None:
    read = leading(["--machine", "arm", "-q", "--json", "docker", "--machine", "x", "--json"])
    assert read.settings == Settings(machine="arm", json=True, quiet=True)
    assert (read.verb, read.rest) == ("docker", ["--machine", "x", "--json"])
    assert leading(["--machine=arm", "ps"]).settings.machine == "arm"
    assert leading(["--frob", "docker"]).verb == ""
    assert leading(["--machine"]).verb == ""


def test_scan_reads_values_and_where_they_stand() -> None:
    words = "-tapp -f=a/Dockerfile --build-arg X=1 . --target last --secret=id=s,src=k".split()
    read = scan(words, dockerflags.BUILD, mixed=True)
    assert [words[at] for at in read.arguments] == ["."]
    assert [(o.name, o.value, o.word, o.prefix) for o in read.found] == [
        ("-t", "app", 0, "-t"),
        ("-f", "a/Dockerfile", 1, "-f="),
        ("--build-arg", "X=1", 3, ""),
        ("--target", "last", 6, ""),
        ("--secret", "id=s,src=k", 7, "--secret="),
    ]


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("ps", False), ("--context x images", False), ("container ls", False), ("compose ps", False), ("compose up -d", True),
        ("run alpine", False), ("run -i alpine", True), ("run -it alpine -x", True), ("exec -i c sh", True),
        ("exec c sh -i", False),
        ("load", True), ("compose exec web sh", True), ("start c", False), ("start -ai c", True), ("volume prune", True),
        ("login", True), ("build -", True), ("stack deploy -c - x", True),
    ],
)  # fmt: skip
def test_what_reads_standard_input(line: str, reads: bool) -> None:
    assert stdio.reads_input(["docker", *line.split()]) is reads


@pytest.mark.parametrize(
    ("line", "wants"),
    [("run -it alpine", True), ("run -i alpine -t", False), ("exec -t c sh", True), ("ps -t", False), ("login", True)],
)
def test_what_insists_on_a_terminal(line: str, wants: bool) -> None:
    assert stdio.wants_terminal(["docker", *line.split()]) is wants
