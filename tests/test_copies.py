"""build, compose and cp against a keeper whose machine is a folder; the image's own `work` script makes the copies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Said
from tests.fakes import WORK, FakeKeeper

Wherry = Callable[..., Said]


class Seen:
    """A docker client that looks around where it is started."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.files: list[str] = []
        self.words: list[str] = []
        self.request: dict[str, Any] = {}

    def __call__(self, request: dict[str, Any], folder: Path) -> tuple[int, bytes, bytes]:
        self.request, self.words = request, request["argv"][1:]
        self.files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
        return self.code, b"out", b"err"


@pytest.fixture
def seen(keeper: FakeKeeper) -> Seen:
    keeper.client = looking = Seen()
    return looking


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop"
    (folder / "app").mkdir(parents=True)
    (folder / "app/main.c").write_text("int main;")
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "key").write_text("secret")
    (folder / "big.log").write_text("log")
    (folder / ".dockerignore").write_text("*.log\nkey\n.dockerignore\nDockerfile\n")
    (folder / "compose.yaml").write_text("services:\n  web:\n    image: x\n    volumes:\n      - ./app:/app\n")
    monkeypatch.chdir(folder)
    return folder


def test_build_runs_in_a_copy_that_is_removed(wherry: Wherry, keeper: FakeKeeper, seen: Seen, project: Path) -> None:
    seen.code = 7
    assert wherry("docker", "build", "-t", "app", ".") == Said(7, "out", "err")
    assert seen.words == ["build", "-t", "app", "."]
    assert seen.request["cwd"].startswith(f"{WORK}/build-")
    assert seen.files == [".dockerignore", "Dockerfile", "app/main.c", "compose.yaml"]
    assert keeper.copies == []


@pytest.mark.parametrize(
    "command", ["build", "buildx build", "buildx b", "image build", "builder build", "buildx --builder x build"]
)
def test_all_words_for_build(command: str, wherry: Wherry, seen: Seen, project: Path) -> None:
    assert wherry("docker", *command.split(), "app").code == 0
    assert seen.words == [*command.split(), "."] and seen.files == ["main.c"]


def test_build_from_elsewhere_with_a_dockerfile(
    wherry: Wherry, seen: Seen, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "app/Dockerfile.dev").write_text("FROM scratch\n")
    (project / "app/Dockerfile.dev.dockerignore").write_text("*\n!app\n")
    monkeypatch.chdir(project / "app")
    assert wherry("docker", "build", "-fDockerfile.dev", "..", "--secret", "id=k,src=../key").code == 0
    assert seen.words == ["build", "-fapp/Dockerfile.dev", ".", "--secret", "id=k,src=key"]
    assert seen.files == [".dockerignore", "app/Dockerfile.dev", "app/Dockerfile.dev.dockerignore", "app/main.c", "key"]


def test_build_context_inside(wherry: Wherry, seen: Seen, project: Path) -> None:
    (project / ".dockerignore").write_text("*\n")
    assert wherry("docker", "build", "--build-context", "a=./app", "--build-context=b=docker-image://x", ".").code == 0
    assert seen.words == ["build", "--build-context", "a=app", "--build-context=b=docker-image://x", "."]
    assert seen.files == [".dockerignore", "Dockerfile", "app/main.c"]


def test_what_is_outside_of_the_context_is_copied_beside_it(wherry: Wherry, keeper: FakeKeeper, project: Path) -> None:
    outside = project.parent / "outside"
    (outside / "more").mkdir(parents=True)
    (outside / "more" / "x").write_text("more")
    (outside / "key").write_text("key")
    (outside / "Dockerfile").write_text("FROM scratch\n")
    (outside / "Dockerfile.dockerignore").write_text("app\n")
    seen: list[str] = []
    texts: list[str] = []

    def client(request: dict[str, Any], folder: Path) -> tuple[int, bytes, bytes]:
        seen.extend(sorted(path.name for path in folder.rglob("*")))
        words = request["argv"]
        places = [words[3], words[5].rpartition("=")[2], words[7].rpartition("=")[2]]
        there = [Path(place.replace(WORK, str(keeper.guest))) for place in places]
        texts.extend([there[0].read_text(), there[1].read_text(), (there[2] / "x").read_text()])
        texts.append(there[0].with_name(f"{there[0].name}.dockerignore").read_text())
        return 0, b"", b""

    keeper.client = client
    more = ("--secret", f"id=k,src={outside}/key", "--build-context", "more=../outside/more")
    assert wherry("docker", "build", "-f", "../outside/Dockerfile", *more, ".").code == 0
    assert texts == ["FROM scratch\n", "key", "more", "app\n"]
    assert "key" in seen and "app" not in seen  # its own .dockerignore counts, not the context's
    assert keeper.copies == []


@pytest.mark.parametrize(
    "words",
    [
        "-f ../Dockerfile .", "--secret id=x,src=/etc/no .", "--build-context n=../no .", "--iidfile id .",
        "--metadata-file=m .", "-o out .", "--output type=local,dest=out .", "-otype=tar,dest=x.tar .",
        "--cache-to type=local,dest=c .", "nowhere", "Dockerfile",
    ],
)  # fmt: skip
def test_what_leads_out_of_the_context_is_refused(
    words: str, wherry: Wherry, keeper: FakeKeeper, seen: Seen, project: Path
) -> None:
    said = wherry("docker", "build", *words.split())
    assert said.code == 125 and said.err.startswith("wherry: ") and said.out == ""
    assert keeper.requests == []


@pytest.mark.parametrize(
    "words",
    [
        "-",
        "https://example.com/x.git",
        "git@example.com:x.git",
        "--help",
        "-o - .",
        "-o type=docker .",
        "-o type=image,name=x .",
    ],
)
def test_what_docker_fetches_itself_goes_on_untouched(
    words: str, wherry: Wherry, keeper: FakeKeeper, seen: Seen, project: Path
) -> None:
    assert wherry("docker", "build", *words.split()).code == 0
    assert seen.words == ["build", *words.split()]


def test_bake_is_refused(wherry: Wherry, keeper: FakeKeeper, project: Path) -> None:
    assert wherry("docker", "buildx", "bake").code == 125
    assert keeper.requests == []


def test_other_docker_commands_go_on_untouched(wherry: Wherry, keeper: FakeKeeper, seen: Seen, project: Path) -> None:
    for words in (
        ["ps"],
        ["image", "ls", "--help"],
        ["buildx", "ls"],
        ["run", "-f", "compose"],
        [],
        ["--context", "x", "ps", "--", "-h"],
    ):
        assert wherry("docker", *words).code == 0
        assert seen.words == words and seen.request["cwd"] == str(project)
    assert wherry("run", "--help").code == 0
    assert seen.words == ["run", "--help"]


def test_a_large_context_streams(wherry: Wherry, keeper: FakeKeeper, project: Path) -> None:
    with (project / "large").open("wb") as file:
        file.truncate(50_000_000)
    sizes: list[int] = []

    def client(request: dict[str, Any], folder: Path) -> tuple[int, bytes, bytes]:
        sizes.append((folder / "large").stat().st_size)
        return 0, b"", b""

    keeper.client = client
    assert wherry("docker", "build", ".").code == 0
    assert sizes == [50_000_000]


@pytest.mark.parametrize("command", ["up", "version"])
def test_compose_knows_the_home_of_this_computer(
    command: str, wherry: Wherry, seen: Seen, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else ~/.cache:/cache would be a folder of the machine's. Also where compose itself finds the project, as on its stdin."""
    monkeypatch.setenv("HOME", str(project.parent))
    assert wherry("compose", command).code == 0
    assert seen.request["env"]["HOME"] == str(project.parent.resolve())


def test_compose_keeps_the_copy_while_there_are_containers(
    wherry: Wherry, keeper: FakeKeeper, seen: Seen, project: Path
) -> None:
    keeper.containers = [{"Id": "1"}]
    said = wherry("compose", "up", "-d")
    assert said.code == 0
    assert f"containers see a copy of it, as it is now.   wherry share add {project.resolve()}" in said.err
    assert seen.words == ["compose", "up", "-d"]
    assert seen.request["cwd"].startswith(f"{WORK}/compose-") and seen.request["cwd"].endswith("/shop")
    assert "big.log" in seen.files and "app/main.c" in seen.files
    [identity] = keeper.copies

    # A second command sends nothing when nothing changed, and what changed when it did; the copy is the same one.
    keeper.requests.clear()
    assert wherry("compose", "ps").code == 0
    assert [request["argv"][0] for request in keeper.requests if "argv" in request] == ["sh", "docker"]
    (project / "app/new.c").write_text("int new;")
    assert wherry("compose", "up", "-d").code == 0
    assert "app/new.c" in seen.files and keeper.copies == [identity]

    keeper.containers = []
    assert wherry("compose", "down") == Said(0, "out", "err")
    assert keeper.copies == []
    query = [request["path"] for request in keeper.requests if request["verb"] == "engine"][-1]
    assert "com.docker.compose.project.working_dir" in query and f"{identity}%2Fshop" in query.replace("/", "%2F")


def test_what_containers_wrote_is_not_removed(wherry: Wherry, keeper: FakeKeeper, project: Path) -> None:
    def client(request: dict[str, Any], folder: Path) -> tuple[int, bytes, bytes]:
        written = folder / "app/database"
        written.write_text("rows")
        later = (keeper.guest / keeper.copies[0] / "since").stat().st_mtime + 10
        os.utime(written, (later, later))
        return 0, b"", b""

    keeper.client = client
    said = wherry("compose", "down")
    assert said.code == 0 and "shop/app/database" in said.err and "wherry cp default:" in said.err
    assert len(keeper.copies) == 1


def test_compose_finds_its_project_above(wherry: Wherry, seen: Seen, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "compose.override.yaml").write_text("services: {}\n")
    monkeypatch.chdir(project / "app")
    assert wherry("docker", "--context", "x", "compose", "config").code == 0
    place = seen.request["cwd"].removesuffix("/app")
    files = ["-f", f"{place}/compose.yaml", "-f", f"{place}/compose.override.yaml"]
    assert seen.words == ["--context", "x", "compose", "--project-directory", place, *files, "config"]


def test_compose_files_by_name(wherry: Wherry, seen: Seen, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "other.yml").write_text("services: {}\n")
    (project / "prod.env").write_text("A=1\n")
    monkeypatch.setenv("TAG", "1")
    assert wherry("compose", "-f", "other.yml", "--env-file=prod.env", "-p", "x", "up").code == 0
    place = seen.request["cwd"]
    assert seen.words == ["compose", "-f", f"{place}/other.yml", f"--env-file={place}/prod.env", "-p", "x", "up"]
    assert seen.request["env"]["TAG"] == "1"
    monkeypatch.setenv("COMPOSE_FILE", "compose.yaml:other.yml")
    assert wherry("compose", "up").code == 0
    files = ["-f", f"{place}/compose.yaml", "-f", f"{place}/other.yml"]
    assert seen.words == ["compose", "--project-directory", place, *files, "up"]
    assert "COMPOSE_FILE" not in seen.request["env"]


@pytest.mark.parametrize(
    "line",
    [
        "    volumes: # here\n      - ../data:/data",
        "    build: ..",
        "      context: ../x",
        '    env_file: "../a.env"',
        "    command:\n      - ../x\n    env_file:\n    - ../common.env",
        "    develop:\n      watch:\n        - path: ../x",
        "include:\n  - ../other.yaml",
        "    volumes:\n      # above\n      - 'a:/b'\n\n      - type: bind\n        source: ../x",
    ],
)
def test_paths_above_the_project_are_refused(line: str, wherry: Wherry, keeper: FakeKeeper, project: Path) -> None:
    (project / "compose.yaml").write_text(f"services:\n  web:\n{line}\n")
    said = wherry("compose", "up")
    assert said.code == 125 and f"compose.yaml, line {3 + line.count(chr(10))}:" in said.err
    assert keeper.requests == []


@pytest.mark.parametrize(
    "items", ["command:\n      - ../run.sh\n      - ..", "entrypoint:\n    - ../x", "labels:\n      - ../x\n    volumes: []"]
)
def test_words_that_look_like_paths_above_are_none(items: str, wherry: Wherry, keeper: FakeKeeper, project: Path) -> None:
    (project / "compose.yaml").write_text(f"services:\n  web:\n    {items}\n    image: x\n")
    assert wherry("compose", "up").code == 0


def test_compose_file_in_dotenv(wherry: Wherry, seen: Seen, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        (project / name).write_text("services: {}\n")
    (project / ".env").write_text("X=1\nexport COMPOSE_FILE='a.yaml,b.yaml' # both\nCOMPOSE_PATH_SEPARATOR=,\n")

    def files() -> list[str]:
        assert wherry("compose", "ps").code == 0
        return [Path(word).name for word in seen.words if word.endswith(".yaml")]

    assert files() == ["a.yaml", "b.yaml"]
    (project / "other.env").write_text("COMPOSE_FILE=c.yaml # that\n")
    assert wherry("compose", "--env-file", "other.env", "ps").code == 0
    assert "c.yaml" in " ".join(seen.words) and "a.yaml" not in " ".join(seen.words)
    monkeypatch.setenv("COMPOSE_FILE", "c.yaml")
    assert files() == ["c.yaml"]
    monkeypatch.delenv("COMPOSE_FILE")
    (project / ".env").write_text("# COMPOSE_FILE=a.yaml\n")
    assert files() == []


def test_words_with_dots_are_no_paths(wherry: Wherry, keeper: FakeKeeper, project: Path) -> None:
    (project / "compose.yaml").write_text(
        'services:\n  web:\n    command: sh -c "cd .. && ls"\n    # build: ..\n    image: "a..b"\n'
    )
    assert wherry("compose", "up").code == 0


@pytest.mark.parametrize("words", ["-f ../x.yaml up", "cp web:/x .", "config -o out", "-f - up", "-f missing.yaml up"])
def test_compose_refuses(words: str, wherry: Wherry, keeper: FakeKeeper, project: Path) -> None:
    (project.parent / "x.yaml").write_text("services: {}\n")
    said = wherry("compose", "--project-directory", ".", *words.split())
    assert said.code == 125, said
    assert keeper.docker == []


@pytest.mark.parametrize("words", ["version", "ls", "--help", "up --help", ""])
def test_compose_without_a_project_copies_nothing(
    words: str, wherry: Wherry, keeper: FakeKeeper, seen: Seen, project: Path
) -> None:
    assert wherry("compose", *words.split()).code == 0
    assert seen.words == ["compose", *words.split()] and len(keeper.requests) == 2


def test_the_environment_follows(wherry: Wherry, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "HOME", "TMPDIR", "LD_PRELOAD", "DYLD_X", "SSH_AUTH_SOCK", "DOCKER_HOST", "PWD", "TERM"):
        monkeypatch.setenv(name, "/here")
    monkeypatch.setenv("NAME", "größe")
    assert wherry("run", "-e", "NAME", "alpine").code == 0
    environment = seen.request["env"]
    assert environment["NAME"] == "größe" and "/here" not in environment.values()
    assert seen.request["client"] is True and seen.request["tty"] is False


def test_a_lost_connection(wherry: Wherry, keeper: FakeKeeper) -> None:
    def lost(request: dict[str, Any], folder: Path) -> tuple[int, bytes, bytes]:
        raise OSError("gone")

    keeper.client = lost
    assert wherry("docker", "ps").code == 125
    assert wherry("run", "alpine").code == 125
    assert wherry("compose", "ls").code == 125


class TestCp:
    @pytest.fixture
    def root(self, keeper: FakeKeeper, tmp_path: Path) -> Path:
        """A folder of the machine."""
        place = tmp_path / "guest-root"
        place.mkdir()
        return place

    def test_a_file_in_and_out(self, wherry: Wherry, root: Path, project: Path) -> None:
        data = os.urandom(3_000_000)
        (project / "bytes").write_bytes(data)
        (project / "bytes").chmod(0o750)
        assert wherry("cp", "bytes", f"default:{root}/named") == Said(0, "", "")
        assert (root / "named").read_bytes() == data and (root / "named").stat().st_mode & 0o777 == 0o750
        assert wherry("cp", "bytes", f":{root}").code == 0
        assert (root / "bytes").read_bytes() == data
        assert wherry("cp", f"default:{root}/named", "back").code == 0
        assert (project / "back").read_bytes() == data and (project / "back").stat().st_mode & 0o777 == 0o750
        assert wherry("cp", f"default:{root}/named", "app").code == 0
        assert (project / "app/named").read_bytes() == data

    def test_a_folder_becomes_or_nests(self, wherry: Wherry, root: Path, project: Path) -> None:
        assert wherry("cp", "app", f"default:{root}/new").code == 0
        assert (root / "new/main.c").is_file()
        assert wherry("cp", "app", f"default:{root}/new").code == 0
        assert (root / "new/app/main.c").is_file()
        assert wherry("cp", "app/.", f"default:{root}").code == 0
        assert (root / "main.c").is_file()
        assert wherry("cp", f"default:{root}/new", "copy").code == 0
        assert (project / "copy/app/main.c").is_file()
        assert wherry("cp", f"default:{root}/new", "copy").code == 0
        assert (project / "copy/new/main.c").is_file()
        assert wherry("cp", f"default:{root}/new/.", "app").code == 0
        assert (project / "app/app/main.c").is_file()

    @pytest.mark.parametrize(
        ("source", "target", "code"),
        [
            ("nothing", "default:/tmp", 1),
            ("default:/nothing-there", ".", 1),
            ("key", "app", 2),
            ("default:/a", "default:/b", 2),
            ("app", "default:{root}/file", 2),
            ("key", "default:{root}/no/", 2),
            ("key", "default:{root}/no/way", 1),
            ("key", "other:/tmp", 3),
        ],
    )
    def test_what_cannot_be(self, source: str, target: str, code: int, wherry: Wherry, root: Path, project: Path) -> None:
        (root / "file").write_text("x")
        said = wherry("cp", source, target.format(root=root))
        assert said.code == code and said.err.startswith("wherry: "), said
