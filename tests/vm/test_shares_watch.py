"""What is saved on this computer reaches the watchers in containers; what each of them saw, as a table."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images.build import build
from tests.vm.client import Client
from tests.vm.driver import SOAK, Driver
from tests.vm.workshop import TOOLS, Container, load, shared_folder

pytestmark = pytest.mark.vm
SAVES = 20 if SOAK else 4
PROMISED = 1.0  # seconds until a server has what was saved; the best of some saves, since the computer may be busy
LATEST = 120  # a hang guard


class Lines(threading.Thread):
    """What a command says, each line with its time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._process, self._changed = process, threading.Condition()
        self.heard: list[tuple[float, str]] = []
        self.start()

    def run(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.heard.append((time.monotonic(), line.decode(errors="replace").strip()))
                self._changed.notify_all()

    def wait(self, fits: Callable[[str], bool], since: int = 0, seconds: float = LATEST) -> float | None:
        """When the first such line came, of those from number `since` on; None when none does."""
        found: list[float] = []

        def there() -> bool:
            found[:] = [at for at, line in self.heard[since:] if fits(line)][:1]
            return bool(found)

        with self._changed:
            self._changed.wait_for(there, seconds)
        return found[0] if found else None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self.join(10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture(scope="module")
def client(machine: Driver) -> Client:
    made = Client(machine)
    load(made, build(), "workshop", "node")
    return made


@pytest.fixture(scope="module")
def folder(machine: Driver) -> Iterator[Path]:
    with shared_folder(machine) as made:
        shutil.copytree(TOOLS / "watchers", made / "tools")
        yield made


@pytest.fixture(scope="module")
def containers(client: Client, folder: Path) -> Iterator[dict[str, Container]]:
    binds = [f"{folder}:/code"]
    with Container(client, "workshop", binds) as workshop, Container(client, "node", binds) as node:
        yield {"workshop": workshop, "node": node}


@pytest.fixture
def started(containers: dict[str, Container]) -> Iterator[Callable[..., Lines]]:
    """Begins a command and waits until it says that it watches."""
    running: list[tuple[Container, Lines]] = []

    def start(image: str, script: str, ready: str) -> Lines:
        # Its own pid first: the client's end does not end it.
        lines = Lines(containers[image].popen("sh", "-c", f"echo pid $$; exec {script} 2>&1"))
        running.append((containers[image], lines))
        assert lines.wait(lambda line: ready in line, seconds=120) is not None, lines.heard
        return lines

    yield start
    for container, lines in running:
        pids = [line.split()[1] for _, line in lines.heard if line.startswith("pid ")]
        container.run("kill", "-9", *pids)
        lines.close()


def edit_in_place(file: Path, text: str) -> None:
    with file.open("r+") as opened:
        opened.write(text)
        opened.truncate()


def write_and_rename(file: Path, text: str) -> None:
    """As editors save."""
    part = file.with_name(f".{file.name}.part")
    part.write_text(text)
    os.replace(part, file)


@pytest.mark.parametrize("save", [edit_in_place, write_and_rename])
def test_a_development_server_has_what_was_saved(
    save: Callable[[Path, str], None],
    started: Callable[..., Lines],
    folder: Path,
    record_property: Callable[[str, object], None],
) -> None:
    place = folder / save.__name__
    place.mkdir()
    (place / "app.py").write_text("first\n")
    server = started("workshop", f"python3 /code/tools/server.py /code/{place.name}", "ready")
    took = []
    for number in range(SAVES):
        since, began = len(server.heard), time.monotonic()
        save(place / "app.py", f"version {number}\n")
        at = server.wait(lambda line, number=number: line == f"serves version {number}", since)  # type: ignore[misc]
        assert at is not None, server.heard
        took.append(at - began)
    told = ", ".join(f"{value:.2f}" for value in took)
    record_property("table", f"a server reloads after {save.__name__.replace('_', ' ')}: {told} s")
    if SOAK:  # on a quiet computer
        assert min(took) < PROMISED


def test_nodemon_restarts_a_server(
    started: Callable[..., Lines], folder: Path, record_property: Callable[[str, object], None]
) -> None:
    place = folder / "site"
    place.mkdir()
    (place / "server.js").write_text("console.log('serves 0'); setInterval(() => 0, 1000);\n")
    nodemon = started("node", "nodemon --delay 0.1 --cwd /code/site server.js", "serves 0")
    for number, save in enumerate((edit_in_place, write_and_rename), 1):
        began = time.monotonic()
        save(place / "server.js", f"console.log('serves {number}'); setInterval(() => 0, 1000);\n")
        noticed = nodemon.wait(lambda line: "restarting due to changes" in line, len(nodemon.heard) - 1)
        at = nodemon.wait(lambda line, number=number: line == f"serves {number}")  # type: ignore[misc]
        assert at is not None, nodemon.heard
        after = f"{noticed - began:.2f} s" if noticed else "?"
        what = save.__name__.replace("_", " ")
        record_property("table", f"nodemon notices {what} after {after}, the new server is there after {at - began:.2f} s")


WATCHERS = {
    "inotifywait -r": ("workshop", "inotifywait -r -m --format '%e %w%f' /code/{}", "established"),
    "watchdog": ("workshop", "python3 /code/tools/watchdog_lines.py /code/{}", "ready"),
    "chokidar": ("node", "node /code/tools/chokidar.js /code/{}", "ready"),
}


def act(kind: str, folder: Path) -> None:
    """Each on names of its own, in a subfolder, as in a project."""
    if kind == "edit in place":
        edit_in_place(folder / "edited.js", "edited\n")
    elif kind == "write and rename":
        write_and_rename(folder / "replaced.js", "replaced\n")
    elif kind == "create":
        (folder / "created.js").write_text("created\n")
    elif kind == "delete":
        (folder / "deleted.js").unlink()
    elif kind == "rename":
        os.rename(folder / "old.js", folder / "new.js")
    else:
        (folder / "made").mkdir()


NAMES = {
    "edit in place": ("edited.js",),
    "write and rename": ("replaced.js",),
    "create": ("created.js",),
    "delete": ("deleted.js",),
    "rename": ("old.js", "new.js"),
    "new folder": ("made",),
}


@pytest.mark.parametrize("name", WATCHERS)
def test_what_watchers_see(
    name: str, started: Callable[..., Lines], folder: Path, record_property: Callable[[str, object], None]
) -> None:
    place = folder / f"watched-{name.split()[0]}"
    below = place / "src"
    below.mkdir(parents=True)
    for file in ("edited.js", "replaced.js", "deleted.js", "old.js"):
        (below / file).write_text("before\n")
    image, script, ready = WATCHERS[name]
    lines = started(image, script.format(place.name), ready)
    missed = []
    for kind, names in NAMES.items():
        since, began = len(lines.heard), time.monotonic()
        act(kind, below)
        at = lines.wait(lambda line, names=names: any(one in line for one in names), since)  # type: ignore[misc]
        if at is None:
            missed.append(kind)
        time.sleep(1)  # what else comes of it belongs to the table
        seen = [line.replace(f"/code/{place.name}/", "") for _, line in lines.heard[since:]]
        record_property(
            "table", f"{name:<15} {kind:<17} {f'{at - began:.2f} s' if at else '-':<8} {'; '.join(dict.fromkeys(seen))}"
        )
    assert not {"edit in place", "write and rename"} & set(missed), (missed, lines.heard)
    assert missed == []
    # And none of it came back to this computer.
    assert sorted(path.name for path in below.iterdir()) == ["created.js", "edited.js", "made", "new.js", "replaced.js"]
    assert (below / "edited.js").read_text() == "edited\n" and (below / "replaced.js").read_text() == "replaced\n"
