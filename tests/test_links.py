"""`wherry link` and `unlink`: made only on request, over no other program, and what was there comes back."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher import store
from launcher.cli import hostclient
from launcher.machine import links
from tests.conftest import Said
from tests.fakes import FakeKeeper, make_machine
from tests.test_context import listen
from tests.test_doctor import checks, qemu

__all__ = ["qemu"]  # a fixture
Wherry = Callable[..., Said]


@pytest.fixture
def user(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's home with ~/.local/bin on PATH, and without any docker. Its path is short: sockets are in it."""
    running = "keeper" in request.fixturenames
    folder = Path(tempfile.mkdtemp(prefix="w"))
    (folder / ".local" / "bin").mkdir(parents=True)
    (folder / "runtime").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("PATH", f"/nowhere:{folder}/.local/bin")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "runtime"))
    if not running:
        make_machine()
    yield folder
    shutil.rmtree(folder)


def places(user: Path) -> list[Path]:
    return [user / ".docker" / "run" / "docker.sock", user / "runtime" / "docker.sock"]


def note() -> Path:
    return store.home() / "links.json"


# docker


def test_docker_on_path_is_wherry_docker(user: Path, wherry: Wherry, keeper: FakeKeeper) -> None:
    said = wherry("link", "docker")
    program = user / ".local" / "bin" / "docker"
    assert (said.code, said.out) == (0, "") and str(program) in said.err
    assert program.stat().st_mode & 0o777 == 0o755
    environment = {**os.environ, "PATH": f"{program.parent}:/usr/bin:/bin"}
    done = subprocess.run(["docker", "ps", "a b", "*"], env=environment, capture_output=True, text=True)
    assert keeper.docker == [["ps", "a b", "*"]], done.stderr
    assert wherry("link", "docker").code == 0  # once more is no harm
    assert json.loads(wherry("unlink", "docker", "--json").out)["data"] == {"unlinked": [str(program)]}
    assert not program.exists() and not note().exists()
    assert "no link" in wherry("unlink", "docker").err


def test_our_docker_is_not_taken_for_a_client_of_this_computer(user: Path, wherry: Wherry) -> None:
    wherry("link", "docker")
    assert "no docker on PATH" in hostclient.find("ps").why


def test_another_docker_is_never_hidden(user: Path, wherry: Wherry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other" / "docker"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{other.parent}")
    said = wherry("link", "docker")
    assert said.code == 6 and str(other) in said.err and "docker context use wherry" in said.err
    own = user / ".local" / "bin" / "docker"
    other.unlink()
    own.symlink_to("/nowhere/docker")  # not even what leads nowhere
    assert wherry("link", "docker").code == 6
    assert own.readlink() == Path("/nowhere/docker") and not note().exists()


def test_a_docker_that_took_our_place_stays(user: Path, wherry: Wherry) -> None:
    wherry("link", "docker")
    program = user / ".local" / "bin" / "docker"
    program.write_text("#!/bin/sh\necho other\n")
    assert wherry("unlink", "docker").code == 0
    assert "other" in program.read_text() and not note().exists()


def test_without_a_folder_on_path(user: Path, wherry: Wherry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = wherry("link", "docker")
    assert said.code == 1 and f"mkdir -p {user}/.local/bin" in said.err


# socket


def test_the_socket_leads_to_the_machine_and_back(user: Path, wherry: Wherry) -> None:
    desktop, rootless = places(user)
    desktop.parent.mkdir(parents=True)
    desktop.symlink_to("/gone/docker.sock")
    with listen(rootless) as server:
        said = wherry("link", "socket")
        assert said.code == 0 and f"sudo ln -s {desktop}" in said.err
        engine = store.machine("default").engine_socket
        assert desktop.readlink() == rootless.readlink() == engine
        assert wherry("link", "socket").code == 0
        assert wherry("unlink", "socket").code == 0
        assert desktop.readlink() == Path("/gone/docker.sock")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(rootless))
            server.accept()[0].close()
    assert sorted(rootless.parent.iterdir()) == [rootless] and list(desktop.parent.iterdir()) == [desktop]


def test_an_empty_place_is_empty_again(user: Path, wherry: Wherry) -> None:
    wherry("link", "socket")
    assert all(place.is_symlink() for place in places(user))
    wherry("unlink", "socket")
    assert not any(os.path.lexists(place) for place in places(user))


def test_what_could_not_be_put_back_is_left_alone(user: Path, wherry: Wherry) -> None:
    _, rootless = places(user)
    rootless.write_text("mine")
    assert wherry("link", "socket").code == 6
    assert rootless.read_text() == "mine" and not os.path.lexists(places(user)[0])
    rootless.unlink()
    rootless.with_name("docker.sock.before-wherry").touch()
    rootless.symlink_to("/x")
    assert wherry("link", "socket").code == 6
    assert rootless.readlink() == Path("/x")


def test_a_program_that_made_its_socket_anew_keeps_it(user: Path, wherry: Wherry, keeper: FakeKeeper) -> None:
    desktop, rootless = places(user)
    with listen(rootless):
        wherry("link", "socket")
    rootless.unlink()
    with listen(rootless):
        wherry("up")
        assert rootless.is_socket() and not rootless.is_symlink()
        wherry("unlink", "socket")
        assert rootless.is_socket() and list(rootless.parent.glob("docker*")) == [rootless]
    assert not os.path.lexists(desktop)


def test_another_machine_takes_the_links(user: Path, wherry: Wherry) -> None:
    make_machine("dev")
    desktop, _ = places(user)
    desktop.parent.mkdir(parents=True)
    desktop.symlink_to("/before")
    for name in ("default", "dev"):
        wherry("link", "socket", name)
        wherry("link", "docker", name)
    assert desktop.readlink() == store.machine("dev").engine_socket
    assert "--machine dev docker" in (user / ".local" / "bin" / "docker").read_text()
    wherry("unlink", "socket")
    assert desktop.readlink() == Path("/before")


def test_up_makes_them_again(user: Path, wherry: Wherry, keeper: FakeKeeper) -> None:
    """A reboot empties the runtime folder, and its sockets may then be in another place."""
    wherry("link", "socket")
    desktop, rootless = places(user)
    rootless.unlink()
    desktop.unlink()
    note().write_text(note().read_text().replace(str(keeper.directory.engine_socket), "/old/docker.sock"))
    desktop.symlink_to("/old/docker.sock")
    wherry("up")
    assert desktop.readlink() == rootless.readlink() == keeper.directory.engine_socket
    wherry("unlink", "socket")
    assert not os.path.lexists(desktop)


def test_a_kill_in_between_leaves_what_unlink_undoes(user: Path, wherry: Wherry, monkeypatch: pytest.MonkeyPatch) -> None:
    desktop, rootless = places(user)
    desktop.parent.mkdir(parents=True)
    desktop.symlink_to("/before")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "symlink_to", lambda *_: sys.exit(9))
        with pytest.raises(SystemExit):
            links.link("socket", "default")
    assert not os.path.lexists(desktop)
    wherry("unlink", "socket")
    assert desktop.readlink() == Path("/before") and not os.path.lexists(rootless)


def test_delete_takes_the_links_along(user: Path, wherry: Wherry) -> None:
    wherry("link", "socket")
    wherry("link", "docker")
    assert wherry("delete", "--yes").code == 0
    assert not os.path.lexists(places(user)[0]) and not (user / ".local" / "bin" / "docker").exists()


def test_doctor_tells_a_link_whose_machine_is_gone(
    user: Path, wherry: Wherry, qemu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{user}/.local/bin")
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setattr("launcher.machine.links.other_docker", lambda: None)
    make_machine("dev")
    wherry("link", "docker", "dev")
    assert checks(wherry)["links"]["status"] == "ok"
    program = user / ".local" / "bin" / "docker"
    text = program.read_text()
    program.write_text(text.replace("# starts /", "# starts /gone/"))
    assert "which is gone" in checks(wherry)["links"]["text"]
    program.write_text(text)
    store.machine("dev").path.rename(store.home() / "elsewhere")
    found = checks(wherry)["links"]
    assert found["status"] == "warning" and "is gone" in found["text"] and found["step"] == "wherry unlink docker"
    program.unlink()
    assert "wherry link docker dev" in checks(wherry)["links"]["step"]


def test_where_there_is_no_such_place(user: Path, wherry: Wherry, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    from launcher import host
    from launcher.host import windows

    monkeypatch.setattr(host.current(), "user_docker_sockets", windows.user_docker_sockets)
    monkeypatch.setattr(host.current(), "command_script", windows.command_script)
    for kind in ("docker", "socket"):
        said = wherry("link", kind)
        assert said.code == 1 and "later release" in said.err and "wherry docker" in said.err


def test_without_a_machine(home: Path, wherry: Wherry) -> None:
    assert wherry("link", "socket").code == 3
    assert wherry("link", "docker", "no").code == 3
    assert wherry("link", "sock").code == 2
