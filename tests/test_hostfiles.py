"""Words of docker's that name files of this computer, for the client in the machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.cli import hostfiles, proxy
from launcher.console import Console
from launcher.errors import Usage
from tests.conftest import Said
from tests.fakes import WORK, FakeKeeper

Wherry = Callable[..., Said]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


class Machine:
    """Runs `client` in this process, on our own descriptors."""

    name = "default"
    console = Console(json=False)

    def __init__(self, code: int = 0, out: bytes = b"") -> None:
        self.code, self.out = code, out
        self.words: list[str] = []
        self.input = b""

    def control(self) -> Path:
        raise AssertionError("no copy is wanted")

    def client(self, argv: list[str], *, cwd: str | None = None) -> int:
        self.words = argv[1:]
        if self.out:
            os.write(1, self.out)
        elif "load" in argv or "import" in argv:
            while data := os.read(0, 65536):
                self.input += data
        return self.code


def run(machine: Machine, *words: str) -> int:
    found = hostfiles.handler(words, 0)
    assert found is not None
    return found[0](machine, list(words), found[1])


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("save -o x.tar a b", "save a b"), ("image save a --output=x.tar", "image save a"), ("export -ox.tar c", "export c"),
        ("container export --output x.tar c", "container export c"), ("save --platform linux/amd64 -o x.tar a",) * 2,
    ],
)  # fmt: skip
def test_output_goes_to_a_file_here(words: str, left: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    machine = Machine(out=os.urandom(100_000))
    (here / "x.tar").write_text("old")
    assert run(machine, *words.split()) == 0
    assert (here / "x.tar").read_bytes() == machine.out and os.listdir(here) == ["x.tar"]
    assert machine.words == left.replace(" -o x.tar", "").split()
    os.write(1, b"after")
    assert capfd.readouterr().out == "after"


def test_a_failed_save_leaves_what_was_there(here: Path) -> None:
    (here / "x.tar").write_text("old")
    assert run(Machine(1, b"half"), "save", "-o", "x.tar", "a") == 1
    assert (here / "x.tar").read_text() == "old" and os.listdir(here) == ["x.tar"]
    for bad in ("no/x.tar", "."):
        with pytest.raises(Usage):
            run(Machine(), "save", "-o", bad, "a")
    assert run(Machine(out=b"x"), "save", "-o", "/dev/null", "a") == 0 and Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("load -i x.tar", "load"), ("load -qi x.tar", "load -q"), ("image load --input=x.tar -q", "image load -q"),
        ("import x.tar name", "import - name"), ("import -c CMD x.tar", "import -c CMD -"),
        ("load --quiet -ix.tar", "load --quiet"),
    ],
)  # fmt: skip
def test_input_comes_from_a_file_here(words: str, left: str, here: Path) -> None:
    (here / "x.tar").write_bytes(data := os.urandom(100_000))
    machine = Machine()
    before = os.fstat(0)
    assert run(machine, *words.split()) == 0
    assert (machine.words, machine.input) == (left.split(), data)
    assert os.fstat(0) == before
    (here / "x.tar").unlink()
    with pytest.raises(Usage, match=r"x\.tar cannot be read here"):
        run(machine, *words.split())


@pytest.mark.parametrize("words", ["save a", "load", "import - x", "import http://a/b x", "cp a:/x b:/y", "cp - a:/x", "cp a"])
def test_what_names_no_file_goes_on_as_it_is(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(out=b"x")
    assert run(machine, *words.split()) == 0
    assert machine.words == words.split()


def local(keeper: FakeKeeper, word: str) -> Path:
    return Path(word.rpartition("=")[2].replace(WORK, str(keeper.guest)))


def test_files_that_the_client_reads_are_copied(wherry: Wherry, keeper: FakeKeeper, here: Path) -> None:
    (here / "a.env").write_text("A=1\n")
    (here / "seccomp.json").write_text("{}")
    seen: list[str] = []

    def client(request: dict[str, list[str]], _: Path) -> tuple[int, bytes, bytes]:
        seen.extend(request["argv"])
        first = seen.index("--env-file")
        assert [local(keeper, seen[first + at]).read_text() for at in (1, 2, 4)] == ["A=1\n", "A=1\n", "{}"]
        return 3, b"", b""

    keeper.client = client
    words = ("--env-file", "a.env", "--label-file=a.env", "--security-opt", "seccomp=seccomp.json", "image", "--env-file", "x")
    assert wherry("run", "--rm", "--init", *words).code == 3
    assert seen[-3:] == ["image", "--env-file", "x"]  # the container's own
    assert keeper.copies == []
    said = wherry("docker", "exec", "--env-file", "no.env", "c", "true")
    assert said.code == 125 and "no.env cannot be read here" in said.err
    keeper.client = lambda *_: (0, b"", b"")
    assert wherry("docker", "run", "--security-opt", "seccomp=unconfined", "x").code == 0
    assert keeper.docker[-1] == ["run", "--security-opt", "seccomp=unconfined", "x"]


def test_the_id_comes_into_a_file_here(wherry: Wherry, keeper: FakeKeeper, here: Path) -> None:
    def client(request: dict[str, list[str]], _: Path) -> tuple[int, bytes, bytes]:
        local(keeper, request["argv"][3]).write_text("abc")
        return 0, b"", b""

    keeper.client = client
    assert wherry("docker", "create", "--cidfile", "cid", "x").code == 0
    assert (here / "cid").read_text() == "abc" and keeper.copies == []
    said = wherry("docker", "create", "--cidfile", "cid", "x")
    assert said.code == 125 and "container ID file found" in said.err
    keeper.client = lambda *_: (125, b"", b"")
    assert wherry("docker", "create", "--cidfile", "other", "x").code == 125 and not (here / "other").exists()


@pytest.mark.parametrize(
    ("source", "end", "files"),
    [
        ("f", "/f", ["f"]), ("d", "/d", ["d/a", "d/l"]), ("d/", "/d/", ["d/a", "d/l"]), ("d/.", "/d/.", ["d/a", "d/l"]),
        (".", "/here/.", ["here/d/a", "here/d/l", "here/f", "here/link"]),
        ("link", "/link", ["link"]), ("-L link", "/link", ["link/a", "link/l"]),
    ],
)  # fmt: skip
def test_cp_into_a_container(source: str, end: str, files: list[str], wherry: Wherry, keeper: FakeKeeper, here: Path) -> None:
    (here / "d").mkdir()
    (here / "d" / "a").write_text("a")
    (here / "d" / "l").symlink_to("a")
    (here / "f").write_text("f")
    (here / "link").symlink_to("d")
    seen: list[str] = []

    def client(request: dict[str, list[str]], _: Path) -> tuple[int, bytes, bytes]:
        word = request["argv"][-2]
        [folder] = keeper.guest.iterdir()
        seen.append(word.partition(folder.name)[2])
        seen.extend(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or path.is_file()))
        return 0, b"", b""

    keeper.client = client
    assert wherry("docker", "cp", *source.split(), "c:/x").code == 0
    assert seen == [end, *files]
    assert keeper.copies == [] and wherry("docker", "container", "cp", "no", "c:/x").code == 125


def test_cp_out_of_a_container(wherry: Wherry, keeper: FakeKeeper, here: Path) -> None:
    def client(request: dict[str, list[str]], _: Path) -> tuple[int, bytes, bytes]:
        *_, source, target = request["argv"]
        place = local(keeper, target)
        if not source.endswith("/."):
            place = place / "log"
            place.mkdir()
        (place / "a").write_text("a")
        return 0, b"", b""

    keeper.client = client
    assert wherry("docker", "cp", "c:/var/log", ".").code == 0
    assert (here / "log" / "a").read_text() == "a"
    assert wherry("docker", "cp", "c:/var/log", "new").code == 0
    assert (here / "new" / "a").read_text() == "a"
    assert wherry("docker", "cp", "c:/var/log/.", "log").code == 0
    assert sorted(os.listdir(here)) == ["log", "new"] and os.listdir(here / "log") == ["a"]
    (here / "file").touch()
    assert wherry("docker", "cp", "c:/var/log", "file").code == 125
    keeper.client = lambda *_: (1, b"", b"no such container")
    assert wherry("docker", "cp", "c:/x", "y") == Said(1, "", "no such container")
    assert keeper.copies == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("run -v ./data:/x:ro a", "run -v {here}/data:/x:ro a"), ("run -itv.:/x a", "run -itv{here}:/x a"),
        ("create --volume=../b:/x a", "create --volume={above}/b:/x a"), ("run -v name:/x a",) * 2, ("run -v /y a",) * 2,
        ("container run --mount type=bind,src=./d,dst=/x a", "container run --mount type=bind,src={here}/d,dst=/x a"),
        ("run --mount=source=.,type=bind,target=/x a", "run --mount=source={here},type=bind,target=/x a"),
        ("run --mount type=volume,src=v,dst=/x a -v ./no:/no",) * 2,
    ],
)  # fmt: skip
def test_mounts_are_named_from_here(words: str, told: str, here: Path) -> None:
    """The proxy says then which folder it is that is not shared."""
    machine = Machine()
    assert proxy._names_files(words.split())
    assert run(machine, *words.split()) == 0
    assert machine.words == told.format(here=here, above=here.parent).split()
