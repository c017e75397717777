"""Files of shared folders in the words of the machine's client: named as they are, and nothing is copied."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher import host
from launcher.cli import hostfiles, proxy
from launcher.host import macos, windows
from tests.conftest import Said
from tests.fakes import WORK, FakeKeeper

Wherry = Callable[..., Said]


class Seen:
    """A docker client that writes down what it was called with, and does what a test wants."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.cwd = ""
        self.folder = Path()
        self.does: Callable[[list[str]], None] = lambda words: None

    def __call__(self, request: dict[str, Any], folder: Path) -> tuple[int, bytes, bytes]:
        self.words, self.cwd, self.folder = request["argv"][1:], request["cwd"], folder
        self.does(self.words)
        return 0, b"", b""


@pytest.fixture
def seen(keeper: FakeKeeper) -> Seen:
    keeper.client = looking = Seen()
    return looking


@pytest.fixture
def user(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home, which is shared, with a project in it where we are; `outside` is beside the home."""
    made = tmp_path.resolve() / "ana"
    (made / "shop/app").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    monkeypatch.setenv("HOME", str(made))
    monkeypatch.chdir(made / "shop")
    for name in ("Dockerfile", "app/main.c", "a.env", "key"):
        (made / "shop" / name).write_text(name)
    (made / "shop/compose.yaml").write_text("services: {}\n")
    (tmp_path / "outside/x.env").write_text("X=1")
    return made


def copied(keeper: FakeKeeper) -> bool:
    """Whether anything was put into the machine."""
    return any("/usr/lib/wherry/work" in request.get("argv", [""])[0] for request in keeper.requests)


def hide(wherry: Wherry, *places: str) -> None:
    assert wherry("config", "set", "shares.hidden", ",".join(places)).code == 0


def test_files_of_run(wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path) -> None:
    shop = user / "shop"
    (user / "link.env").symlink_to("shop/a.env")
    words = (
        "--env-file",
        "a.env",
        "--label-file=../link.env",
        "--security-opt",
        "seccomp=key",
        "--cidfile",
        "cid",
        "-v",
        "./app:/x",
    )
    assert wherry("docker", "create", *words, "image").code == 0
    assert seen.words == [
        "create", "--env-file", f"{shop}/a.env", f"--label-file={shop}/a.env", "--security-opt", f"seccomp={shop}/key",
        "--cidfile", f"{shop}/cid", "-v", f"{shop}/app:/x", "image",
    ]  # fmt: skip
    assert seen.cwd == str(shop) and not copied(keeper)
    (shop / "cid").touch()
    said = wherry("docker", "create", "--cidfile", "cid", "image")
    assert said.code == 125 and "container ID file found" in said.err


def test_files_that_no_share_has_are_copied(wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path) -> None:
    (user / "secrets").mkdir()
    (user / "secrets/x.env").write_text("S=1")
    hide(wherry, "~/secrets")
    for file in ("../../outside/x.env", "../secrets/x.env"):
        keeper.requests.clear()
        assert wherry("docker", "run", "--env-file", "a.env", "--env-file", file, "image").code == 0
        assert seen.words[2] == f"{user}/shop/a.env" and seen.words[4].startswith(f"{WORK}/files-")
        assert copied(keeper) and keeper.copies == []


def test_a_pipe_is_read_here(wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"A=1\n")
    os.close(writing)
    assert wherry("docker", "run", "--env-file", f"/dev/fd/{reading}", "image").code == 0
    os.close(reading)
    assert seen.words[2].startswith(f"{WORK}/files-") and copied(keeper)


@pytest.mark.parametrize("how", [{"state": "failed"}, {"state": "waiting"}])
def test_a_share_that_the_machine_does_not_have_now(
    how: dict[str, str], wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path
) -> None:
    keeper.shares = how
    assert wherry("docker", "run", "--env-file", "a.env", "image").code == 0
    assert wherry("docker", "build", ".").code == 0
    assert seen.cwd.startswith(f"{WORK}/build-") and copied(keeper)


def test_no_home(wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path) -> None:
    assert wherry("config", "set", "shares.home", "false").code == 0
    assert wherry("docker", "build", ".").code == 0
    assert seen.cwd.startswith(f"{WORK}/build-")
    assert wherry("share", "add", ".:ro").code == 0
    assert wherry("docker", "build", ".").code == 0
    assert (seen.cwd, seen.words) == (str(user / "shop"), ["build", str(user / "shop")])
    said = wherry("docker", "build", "--iidfile", "id", ".")
    assert said.code == 125 and "not shared with the machine so that it can write there" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("build -t a .", "build -t a {shop}"),
        ("buildx build app -f Dockerfile", "buildx build {shop}/app -f {shop}/Dockerfile"),
        ("build --secret id=k,src=key .", "build --secret id=k,src={shop}/key {shop}"),
        ("build --build-context=b=./app --build-context c=docker-image://x .",
         "build --build-context=b={shop}/app --build-context c=docker-image://x {shop}"),
        ("build --build-context b=oci-layout://app:v1 .", "build --build-context b=oci-layout://{shop}/app:v1 {shop}"),
        ("build --iidfile id --metadata-file=m .", "build --iidfile {shop}/id --metadata-file={shop}/m {shop}"),
        ("build -o out .", "build -o {shop}/out {shop}"), ("build -o - .", "build -o - {shop}"),
        ("build --output=type=local,dest=../out .", "build --output=type=local,dest={home}/out {shop}"),
        ("build -otype=docker .", "build -otype=docker {shop}"),
        ("build --cache-to type=local,dest=c --cache-from type=local,src=c .",
         "build --cache-to type=local,dest={shop}/c --cache-from type=local,src={shop}/c {shop}"),
        ("build -o out -", "build -o {shop}/out -"), ("build -f Dockerfile -",) * 2, ("build https://x/y.git",) * 2,
        ("buildx bake", "buildx bake"), ("buildx bake -f compose.yaml app",) * 2,
    ],
)  # fmt: skip
def test_build_runs_in_the_folder(words: str, told: str, wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path) -> None:
    assert wherry("docker", *words.split()).code == 0
    assert seen.words == told.format(shop=user / "shop", home=user).split()
    assert seen.cwd == str(user / "shop") and not copied(keeper)


def test_a_build_with_something_from_outside(wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path) -> None:
    """Only that is copied."""
    files: list[str] = []
    seen.does = lambda words: files.extend(sorted(path.name for path in keeper.guest.rglob("*") if path.is_file()))
    assert wherry("docker", "build", "--secret", "id=x,src=../../outside/x.env", ".").code == 0
    assert seen.words[2].startswith(f"id=x,src={WORK}/files-") and seen.words[3] == str(user / "shop")
    assert files == ["0-x.env"] and keeper.copies == []


def test_a_build_from_outside_with_something_of_a_share(
    wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = user.parent / "outside"
    (user / "shop/Dockerfile.dockerignore").write_text("x.env\n")
    (outside / "y").touch()
    monkeypatch.chdir(outside)
    files: list[str] = []
    seen.does = lambda words: files.extend(sorted(path.name for path in seen.folder.rglob("*")))
    assert wherry("docker", "build", "-f", f"{user}/shop/Dockerfile", ".").code == 0
    assert seen.words == ["build", "-f", f"{user}/shop/Dockerfile", "."]
    assert seen.cwd.startswith(f"{WORK}/build-") and files == ["y"]  # the ignore file that counts is beside the Dockerfile


def test_what_is_hidden_is_built_from_a_copy(wherry: Wherry, seen: Seen, user: Path) -> None:
    hide(wherry, "~/shop")
    assert wherry("docker", "build", ".").code == 0
    assert seen.cwd.startswith(f"{WORK}/build-")
    said = wherry("docker", "buildx", "bake")
    assert said.code == 125 and f"wherry share add {user}/shop" in said.err


@pytest.mark.parametrize(
    ("folder", "words", "told"),
    [
        (".", "up -d", "up -d"), ("app", "ps", "--project-directory {shop} -f {shop}/compose.yaml ps"),
        (".", "-f compose.yaml --env-file=a.env up", "-f {shop}/compose.yaml --env-file={shop}/a.env up"),
        ("..", "--project-directory shop up", "-f {shop}/compose.yaml --project-directory {shop} up"),
        (".", "-f - up", "-f - up"), (".", "cp web:/x out", "cp web:/x {shop}/out"),
        (".", "cp app web:/", "cp {shop}/app web:/"),
        (".", "config -o out", "config -o {shop}/out"), (".", "config", "config"),
    ],
)  # fmt: skip
def test_compose_runs_in_the_folder(
    folder: str, words: str, told: str, wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    assert wherry("compose", *words.split()).code == 0
    assert seen.words == ["compose", *told.format(shop=user / "shop").split()]
    assert seen.cwd == os.getcwd() and not copied(keeper)


def test_compose_files_of_the_environment(wherry: Wherry, seen: Seen, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (user / "shop/b.yaml").write_text("services: {}\n")
    monkeypatch.setenv("COMPOSE_FILE", "compose.yaml:b.yaml")
    assert wherry("compose", "up").code == 0
    shop = user / "shop"
    files = ["-f", f"{shop}/compose.yaml", "-f", f"{shop}/b.yaml"]
    assert seen.words == ["compose", "--project-directory", str(shop), *files, "up"]


def test_compose_may_name_what_is_above_when_it_is_shared(wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path) -> None:
    (user / "lib").mkdir()
    above = user / "shop/compose.yaml"
    above.write_text("services:\n  web:\n    build:\n      context: ../lib\n")
    assert wherry("compose", "up").code == 0 and not copied(keeper)
    above.write_text("services:\n  web:\n    build:\n      context: ../../outside\n")
    said = wherry("compose", "up")
    assert said.code == 125 and "compose.yaml, line 4" in said.err and "wherry share add" in said.err


def test_compose_from_a_folder_that_is_not_shared(
    wherry: Wherry, seen: Seen, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(user.parent / "outside")
    assert wherry("compose", "-f", "../ana/shop/compose.yaml", "up").code == 0
    assert seen.words == ["compose", "-f", f"{user}/shop/compose.yaml", "up"] and seen.cwd == f"{user}/shop"
    for words in ("cp web:/x .", "config -o x"):
        said = wherry("compose", "-f", "../ana/shop/compose.yaml", *words.split())
        assert said.code == 125 and "is not shared with the machine so that it can write there" in said.err


def test_a_copy_of_the_time_before_goes(wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path) -> None:
    keeper.shares = {"state": "waiting"}
    keeper.containers = [{"Id": "1"}]
    assert wherry("compose", "up").code == 0
    [identity] = keeper.copies
    keeper.shares = {}
    assert wherry("compose", "ps").code == 0 and keeper.copies == [identity]
    written = keeper.guest / identity / "shop/app/database"
    written.write_text("rows")
    later = (keeper.guest / identity / "since").stat().st_mtime + 10
    os.utime(written, (later, later))
    keeper.containers = []
    assert "containers wrote 1 file into the copy of shop" in wherry("compose", "ps").err and keeper.copies == [identity]
    written.unlink()
    assert wherry("compose", "ps").err == "" and keeper.copies == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("app c:/x", "{shop}/app c:/x"), ("app/ c:/x", "{shop}/app/ c:/x"), ("app/. c:/x", "{shop}/app/. c:/x"),
        (". c:/x", "{shop}/. c:/x"), ("-L link c:/x", "-L {shop}/app c:/x"), ("link c:/x", "{shop}/link c:/x"),
        ("link/. c:/x", "{shop}/app/. c:/x"), ("-a key c:/x", "-a {shop}/key c:/x"),
        ("c:/x .", "c:/x {shop}"), ("c:/x new", "c:/x {shop}/new"), ("c:/x app/", "c:/x {shop}/app/"),
        ("c:/x/. link", "c:/x/. {shop}/app"), ("c:/x -",) * 2, ("- c:/x",) * 2,
    ],
)  # fmt: skip
def test_cp(words: str, told: str, wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path) -> None:
    (user / "shop/link").symlink_to("app")
    assert wherry("docker", "cp", *words.split()).code == 0
    assert seen.words == ["cp", *told.format(shop=user / "shop").split()] and not copied(keeper)


def test_cp_to_what_cannot_be_written_is_copied(wherry: Wherry, keeper: FakeKeeper, seen: Seen, user: Path) -> None:
    assert wherry("share", "add", "app:ro").code == 0
    assert wherry("docker", "cp", "app", "c:/x").code == 0
    assert seen.words == ["cp", f"{user}/shop/app", "c:/x"]

    def write(words: list[str]) -> None:
        (Path(words[-1].replace(WORK, str(keeper.guest))) / "x").write_text("x")

    seen.does = write
    assert wherry("docker", "cp", "c:/x", "app").code == 0
    assert (user / "shop/app/x").read_text() == "x" and copied(keeper)


def test_mounts_alone_ask_for_nothing(wherry: Wherry, keeper: FakeKeeper, user: Path) -> None:
    """The machine hears of shares only when a path of one is met."""
    (user / "secrets").mkdir()
    assert wherry("docker", "run", "-v", "./app:/x", "image").code == 0
    assert not [request for request in keeper.requests if request["verb"] == "shares"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (r"run -v C:\Users\ana\x:/x:ro a", "run -v /c/Users/ana/x:/x:ro a"), (r"run -vD:/y:/x a", "run -v/d/y:/x a"),
        ("run -v name:/x a",) * 2, (r"run -v .\app:/x a", "run -v /c/Users/ana/shop/app:/x a"),
        (r"run --mount type=bind,src=C:\x,dst=/x a", "run --mount type=bind,src=/c/x,dst=/x a"),
        ("run -v /mnt/c/x:/x a",) * 2,
    ],
)  # fmt: skip
def test_mounts_on_windows(words: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "current", lambda: windows)
    monkeypatch.setattr(Path, "cwd", lambda: r"C:\Users\ana\shop")
    given = words.split()
    found = hostfiles.handler(given, 0)
    assert found is not None and proxy._names_files(given)
    ran: list[list[str]] = []

    class Machine:
        name, console = "default", None

        def client(self, argv: list[str], *, cwd: str | None = None) -> int:
            ran.append(argv)
            return 0

    found[0](Machine(), given, found[1])  # type: ignore[arg-type]
    assert ran == [["docker", *told.split()]]


def test_our_folder_as_the_machine_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for system, here, there in (
        (macos, "/private/tmp/x", "/tmp/x"), (macos, "/Users/ana", "/Users/ana"), (windows, r"C:\Users\ana", "/c/Users/ana"),
    ):  # fmt: skip
        monkeypatch.setattr(host, "current", lambda module=system: module)
        monkeypatch.setattr(os, "getcwd", lambda folder=here: folder)
        assert proxy.working_directory() == there


def test_the_fast_way_reads_no_settings() -> None:
    """What a share has is looked up when a path is met, and nothing of it is loaded before."""
    loaded = "('launcher.config', 'launcher.privacy', 'launcher.sftp', 'tomllib', 'click')"
    program = (
        "import sys; import launcher.cli.proxy, launcher.cli.proxied, launcher.cli.hostfiles, launcher.cli.hostclient; "
        f"print([name for name in {loaded} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
