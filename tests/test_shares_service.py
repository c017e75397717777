"""The keeper's shares with the real process that serves them, and a guest in this process: unix sockets for its mounts."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import psutil
import pytest

from launcher import sharing
from launcher.config import MachineConfig, Shares
from launcher.errors import WherryError
from launcher.keeper import engine
from launcher.keeper.events import Events
from launcher.keeper.health import Health
from launcher.keeper.identified import Parts
from launcher.keeper.link import Link
from launcher.keeper.shares import bound, mounts, service
from launcher.keeper.shares.service import ShareService
from launcher.sftp.events import LOST
from launcher.sharing import Share
from launcher.ssh.transport import Connection
from launcher.state import State
from tests import guestserver
from tests.guestserver import Guest
from tests.sftpclient import EXTENDED, RawClient, s

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs unix sockets")
PATIENCE = 60.0
GONE = (EOFError, OSError, paramiko.SSHException)

# The guest's `shares`: keeps the lines, and refuses what the tests call bad.
HELPER = """#!/bin/sh
cd "$(dirname "$0")" && mkdir -p lines && verb=$1 && shift
echo "$verb $*" >>called
case $verb in
    list) cat lines/* 2>/dev/null; cat failed 2>/dev/null; exit 0 ;;
    remove) rm -f "lines/$1" ;;
    add) case $3 in *bad*) echo "shares: no such place" >&2; exit 1 ;; esac
        IFS='\t'; printf '%s\\n' "$*" >"half.$1"; mv "half.$1" "lines/$1" ;;
esac
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Stream(socket.socket):
    """What paramiko's client takes for a channel."""

    def get_name(self) -> str:
        return "mount"


class Mount:
    """Stands for one share's file system in the guest: whoever dials its socket is asked in SFTP."""

    def __init__(self, guest: Guest, name: str) -> None:
        self.path = guest.folder / f"{name}.sock"
        guest.places[f"/run/wherry/shares/{name}".encode()] = self.path
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        self._listening.listen()
        self._listening.settimeout(PATIENCE)
        self.streams: list[socket.socket] = []

    def client(self) -> paramiko.SFTPClient:
        """Of the next connection."""
        return paramiko.SFTPClient(self.accept())  # type: ignore[arg-type]

    def accept(self) -> Stream:
        accepted, _ = self._listening.accept()
        stream = Stream(fileno=accepted.detach())
        stream.settimeout(PATIENCE)
        self.streams.append(stream)
        return stream

    def drop(self) -> None:
        for stream in self.streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()
        self.streams.clear()

    def close(self) -> None:
        self.drop()
        self._listening.close()


class Keeper:
    """As much of one as shares need."""

    def __init__(self, guest: Guest, config: MachineConfig) -> None:
        self.directory = guest.machine
        self.directory.write_config(config)
        self.config = config
        self.health = Health()
        self.parts = Parts()
        self.notes: list[str] = []
        self.state = State(status="running", ssh_port=guest.port)
        self.link = Link(guest.connect)
        self.events = Events()
        self.shares = ShareService(self, self.events)

    def connection(self) -> Connection:
        return self.link.get()

    def note(self, text: str, *, warning: bool = False) -> None:
        assert warning
        self.notes.append(text)

    def configure(self, *folders: str) -> None:
        self.directory.write_config(self.config.changed(shares=Shares(home=False, folders=folders)))

    def state_of(self, path: Path) -> str:
        return next(str(share["state"]) for share in self.shares.listing() if share["path"] == str(path))

    def close(self) -> None:
        self.shares.close()
        self.link.drop()


def share(name: str, guest: str, *aliases: str, inside: str = "") -> Share:
    return Share(name, guest, guest, aliases, read_only=False, inside=inside)


def test_what_containers_have_bound_is_told_by_share() -> None:
    shares = [
        share("home", "/home/me"),
        share("keys", "/home/me/keys", inside="home"),
        share("tmp", "/var/x", "/private/var/x"),
    ]
    sources = ["/home/me/keys/a", "/home/me", "/home/mel", "/var/x/b", "/private/var/x/b", "/private/var/x/c", "/srv"]
    assert bound.places(shares, sources) == {"home": ["/", "/keys/a"], "tmp": ["/b", "/c"]}


def test_a_container_counts_as_long_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    events = Events()
    binds = [{"Type": "bind", "Source": "/home/me/a"}, {"Type": "volume", "Source": "/v"}]
    mine = {"Id": "a", "State": "running", "Mounts": binds}
    old = {"Id": "b", "State": "exited", "Mounts": [{"Type": "bind", "Source": "/home/me/b"}]}
    new = {"Mounts": [{"Type": "bind", "Source": "/home/me/c"}]}
    monkeypatch.setattr(engine, "call", lambda *_, **__: new)
    bound.Bound(events, lambda: None, lambda: [share("home", "/home/me")], told.append)  # type: ignore[arg-type, return-value]
    ((on_event, on_resync),) = events._subscribers
    on_resync(None, [mine, old])  # type: ignore[arg-type]
    on_event({"Type": "container", "Action": "start", "Actor": {"ID": "c"}})
    on_event({"Type": "container", "Action": "start", "Actor": {"ID": "d"}})  # the same folder: nothing to tell
    on_event({"Type": "container", "Action": "die", "Actor": {"ID": "a"}})
    on_event({"Type": "service", "Action": "remove", "Actor": {"ID": "c"}})
    assert told == [{"home": ["/a"]}, {"home": ["/a", "/c"]}, {"home": ["/c"]}]


def config(*folders: str) -> MachineConfig:
    return MachineConfig(arch="amd64", cpus=1, memory=1 << 30, iso="0" * 64, shares=Shares(home=False, folders=folders))


class Place:
    """A guest, a folder to share, and the keeper of both; `close` leaves nothing."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        self.guest = guest
        self.data = folder / "data"
        self.data.mkdir()
        (self.data / "hello").write_text("from here")
        self.keepers: list[Keeper] = []
        self.mounts: list[Mount] = []

    def keeper(self, *folders: str) -> Keeper:
        made = Keeper(self.guest, config(*(folders or (str(self.data),))))
        self.keepers.append(made)
        return made

    def mount(self, keeper: Keeper, path: Path | None = None) -> Mount:
        wanted = str(path or self.data)
        made = Mount(self.guest, next(share["id"] for share in keeper.shares.listing() if share["path"] == wanted))
        self.mounts.append(made)
        return made

    def lines(self) -> list[str]:
        folder = self.guest.folder / "lines"
        found = []
        for file in sorted(folder.iterdir()) if folder.exists() else ():
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                found.append(file.read_text().rstrip("\n"))
        return found

    def close(self) -> None:
        for keeper in self.keepers:
            keeper.close()
        for mount in self.mounts:
            mount.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with guestserver.guest(tmp_path) as guest:
        helper = tmp_path / "shares"
        helper.write_text(HELPER)
        helper.chmod(0o755)
        monkeypatch.setattr(mounts, "_HELPER", str(helper))
        made = Place(guest, tmp_path)
        try:
            yield made
        finally:
            made.close()


def started(place: Place) -> tuple[Keeper, Mount]:
    keeper = place.keeper()
    keeper.shares.begin()
    mount = place.mount(keeper)
    keeper.link.get()
    return keeper, mount


def process(keeper: Keeper) -> psutil.Process:
    pid = keeper.shares._child.pid
    assert pid is not None
    return psutil.Process(pid)


def test_a_folder_is_mounted_and_served(place: Place) -> None:
    keeper, mount = started(place)
    client = mount.client()
    assert client.open("/hello").read() == b"from here"
    with client.open("/made", "w") as file:
        file.write(b"from there")
    assert (place.data / "made").read_bytes() == b"from there"
    until(lambda: keeper.health.state("shares") == "ok")
    (share,) = keeper.shares.listing()
    assert share["state"] == "served" and share["guest"] == str(place.data) and not share["read_only"]
    until(lambda: len(place.lines()) == 1)
    assert place.lines() == [f"{share['id']}\trw\t{place.data}"]
    assert keeper.health.to_json()["parts"]["shares"] == {"state": "ok", "detail": "1"}


def test_what_the_guest_asks_is_a_use(place: Place) -> None:
    """Which keeps a machine from being suspended for want of one."""
    keeper, mount = started(place)
    client = mount.client()
    client.listdir("/")
    until(lambda: keeper.shares.uses()[1] > 0)
    before = keeper.shares.uses()
    client.listdir("/")
    until(lambda: keeper.shares.uses()[1] > before[1])
    assert keeper.shares.uses()[0] == 0


def test_modes_are_as_the_guest_asks(place: Place) -> None:
    """The keeper's own mask, which keeps its files private, is not that of the files it makes for others."""
    _, mount = started(place)
    client = mount.client()
    client.mkdir("/shared", 0o775)
    assert (place.data / "shared").stat().st_mode & 0o777 == 0o775


def test_a_session_that_ends_is_followed_by_another(place: Place) -> None:
    keeper, mount = started(place)
    assert mount.client().listdir("/") == ["hello"]
    pid = keeper.shares._child.pid
    mount.drop()
    assert mount.client().listdir("/") == ["hello"]
    assert keeper.shares._child.pid == pid


def test_a_lost_connection_is_followed_by_another(place: Place) -> None:
    keeper, mount = started(place)
    assert mount.client().listdir("/") == ["hello"]
    place.guest.drop()
    assert mount.client().listdir("/") == ["hello"]
    until(lambda: keeper.health.state("shares") == "ok")


def test_a_process_that_dies_is_followed_by_another(place: Place) -> None:
    keeper, mount = started(place)
    assert mount.client().listdir("/") == ["hello"]
    first = process(keeper)
    first.kill()
    assert mount.client().listdir("/") == ["hello"]
    until(lambda: keeper.health.state("shares") == "ok")
    assert keeper.shares._child.pid != first.pid


def test_the_process_ends_with_its_keeper(place: Place) -> None:
    """Also with one that was killed: its end of the pipe is closed by the system."""
    keeper, mount = started(place)
    mount.client()
    server = process(keeper)
    keeper.shares._child._closed = True  # it is not to be followed by another
    stdin = keeper.shares._child._process
    assert stdin is not None and stdin.stdin is not None
    stdin.stdin.close()
    until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


def test_it_listens_nowhere(place: Place) -> None:
    keeper, mount = started(place)
    mount.client()
    connections = process(keeper).net_connections("all")
    assert [one.raddr.port for one in connections if one.raddr and one.family == socket.AF_INET] == [place.guest.port]
    assert not [one for one in connections if one.status == psutil.CONN_LISTEN]


def test_shares_come_change_and_go_while_it_runs(place: Place, tmp_path: Path) -> None:
    keeper, mount = started(place)
    client = mount.client()
    more = tmp_path / "more"
    more.mkdir()
    keeper.configure(f"{place.data}:ro", str(more))
    keeper.shares.reload()
    # The one that only changed its rules goes on with its session, and is read-only in it.
    with pytest.raises(OSError):
        client.open("/made", "w")
    assert client.open("/hello").read() == b"from here"
    assert place.mount(keeper, more).client().listdir("/") == []
    assert sorted(line.split("\t")[1:] for line in place.lines()) == [["ro", str(place.data)], ["rw", str(more)]]
    keeper.configure(str(more))
    keeper.shares.reload()
    assert [line.split("\t")[2] for line in place.lines()] == [str(more)]
    with pytest.raises(GONE):
        client.listdir("/")
    until(lambda: keeper.health.to_json()["parts"]["shares"] == {"state": "ok", "detail": "1"})


def test_rules_hold_when_who_changed_them_is_told_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, mount = started(place)
    client = mount.client()
    server = process(keeper)
    monkeypatch.setattr(service, "_OBEYS_WITHIN", 0.3)
    server.suspend()
    try:
        keeper.configure(f"{place.data}:ro")
        with pytest.raises(WherryError, match="does not answer"):
            keeper.shares.reload()
    finally:
        server.resume()
    monkeypatch.setattr(service, "_OBEYS_WITHIN", 60.0)
    keeper.shares.reload()
    with pytest.raises(OSError):
        client.open("/made", "w")


def test_other_rules_are_told_to_the_guest_which_may_believe_what_it_was_shown(place: Place) -> None:
    keeper = place.keeper()
    keeper.shares.begin()
    mount = place.mount(keeper)
    keeper.link.get()
    client = RawClient(mount.accept())
    client.init()
    asked = client.send(EXTENDED, s(b"events@wherry"))
    keeper.configure(f"{place.data}:ro")
    keeper.shares.reload()
    assert client.events(client.wait(asked)) == [(LOST, 1, b"/", b"")]


def test_rules_that_cannot_be_had_end_what_is_served_without_them(place: Place, tmp_path: Path) -> None:
    """A folder that is gone cannot be looked at for its private places; its open descriptor could still be written by."""
    keeper, mount = started(place)
    client = mount.client()
    place.data.rename(tmp_path / "moved")
    keeper.configure(f"{place.data}:ro")
    keeper.shares.reload()
    with pytest.raises(GONE):
        client.open("/made", "w")
        client.listdir("/")
    assert not (tmp_path / "moved" / "made").exists()
    until(lambda: keeper.state_of(place.data) == "failed")
    (tmp_path / "moved").rename(place.data)
    client = mount.client()
    with pytest.raises(OSError):
        client.open("/made", "w")
    assert client.listdir("/") == ["hello"]


def test_the_first_share_may_come_later(place: Place) -> None:
    keeper = Keeper(place.guest, config())
    place.keepers.append(keeper)
    keeper.shares.begin()
    keeper.link.get()
    assert keeper.shares.listing() == [] and keeper.shares._child.pid is None
    keeper.configure(str(place.data))
    keeper.shares.reload()
    assert place.mount(keeper).client().listdir("/") == ["hello"]


def test_one_that_lies_in_another_is_a_rule_of_it(place: Place) -> None:
    inner = place.data / "inner"
    inner.mkdir()
    keeper = place.keeper(str(place.data), f"{inner}:ro")
    keeper.shares.begin()
    mount = place.mount(keeper)
    keeper.link.get()
    client = mount.client()
    with pytest.raises(OSError):
        client.open("/inner/made", "w")
    client.open("/made", "w").close()
    until(lambda: keeper.state_of(inner) == "served")
    assert len(place.lines()) == 1


def test_a_folder_that_is_not_there_is_served_when_it_comes(place: Place, tmp_path: Path) -> None:
    later = tmp_path / "later"
    keeper = place.keeper(str(later))
    keeper.shares.begin()
    mount = place.mount(keeper, later)
    keeper.link.get()
    until(lambda: keeper.health.state("shares") == "failed")
    (share,) = keeper.shares.listing()
    assert share["state"] == "failed" and "No such file" in share["detail"]
    later.mkdir()
    assert mount.client().listdir("/") == []
    until(lambda: keeper.health.state("shares") == "ok")


def test_what_the_guest_refuses_is_said_with_its_words(place: Place, tmp_path: Path) -> None:
    keeper, _ = started(place)
    bad = tmp_path / "bad"
    bad.mkdir()
    keeper.configure(str(place.data), str(bad))
    with pytest.raises(WherryError, match=r"bad could not be mounted in the machine: shares: no such place"):
        keeper.shares.reload()
    assert keeper.state_of(bad) == "failed" and keeper.state_of(place.data) != "failed"


def test_one_that_failed_in_the_guest_is_tried_again_at_the_next_connection(place: Place) -> None:
    keeper = place.keeper()
    keeper.shares.begin()
    (name,) = [share["id"] for share in keeper.shares.listing()]
    (place.guest.folder / "failed").write_text(f"{name}\tfailed\n")
    keeper.link.get()
    until(lambda: len(place.lines()) == 1)


def test_an_image_without_shares_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_HELPER", "/nonexistent/shares")
    keeper, _ = started(place)
    until(lambda: keeper.health.state("shares") == "failed")
    assert "too old for shared folders" in keeper.shares.listing()[0]["detail"]


def test_the_next_keeper_takes_away_what_is_no_share_any_more(place: Place, tmp_path: Path) -> None:
    keeper, mount = started(place)
    mount.client()
    until(lambda: len(place.lines()) == 1)
    keeper.close()
    other = tmp_path / "other"
    other.mkdir()
    following = place.keeper(str(other))
    following.shares.begin()
    following.link.get()
    until(lambda: [line.split("\t")[2] for line in place.lines()] == [str(other)])


def test_a_keeper_that_only_ends_a_machine_takes_nothing_from_it(place: Place) -> None:
    _, mount = started(place)
    mount.client()
    until(lambda: len(place.lines()) == 1)
    ending = place.keeper()
    ending.shares._up(ending.link.get())
    assert len(place.lines()) == 1 and ending.shares._child.pid is None


def over_virtiofs(place: Place, pid: int = 0, stamp: str = "") -> Keeper:
    """A machine that has the folder over virtiofs, known only after its start."""
    keeper = place.keeper()
    keeper.config = keeper.config.changed(shares=Shares(home=False, folders=(str(place.data),), virtiofs=True))
    keeper.directory.write_config(keeper.config)
    keeper.shares.begin()
    (share,) = keeper.shares.listing()
    assert (share["virtiofs"], share["state"]) == (False, "waiting")
    keeper.state = State(status="running", ssh_port=place.guest.port, virtiofs={share["id"]: [pid, stamp]})
    keeper.link.get()
    until(lambda: keeper.health.state("shares") == "ok")
    return keeper


def test_one_over_virtiofs_is_not_served_by_us(place: Place, tmp_path: Path) -> None:
    keeper = over_virtiofs(place)
    (share,) = keeper.shares.listing()
    assert (share["virtiofs"], share["why"], share["state"]) == (True, "", "served")
    until(lambda: place.lines() == [f"{share['id']}\tvirtiofs-rw\t{place.data}"])
    assert keeper.shares._child._orders["shares"]["shares"] == []
    # One that comes later is ours, and says why.
    (tmp_path / "more").mkdir()
    wanted = Shares(home=False, folders=(str(place.data), str(tmp_path / "more")), virtiofs=True)
    keeper.directory.write_config(keeper.config.changed(shares=wanted))
    keeper.shares.reload()
    place.mount(keeper, tmp_path / "more").client()
    until(lambda: keeper.state_of(tmp_path / "more") == "served")
    first, second = keeper.shares.listing()
    assert (first["virtiofs"], second["virtiofs"], second["why"]) == (True, False, "it was added after the start")


def test_a_virtiofsd_that_ends_before_its_machine_is_told_once(place: Place) -> None:
    keeper = over_virtiofs(place, 1 << 22, "was another")
    keeper.shares.look_at_virtiofs()
    assert keeper.notes == [], "the machine may be ending"
    for _ in range(3):
        keeper.shares.look_at_virtiofs()
    assert [note for note in keeper.notes if "its virtiofsd has ended" in note and "wherry restart" in note] == keeper.notes
    assert len(keeper.notes) == 1 and keeper.state_of(place.data) == "failed"
    assert keeper.health.state("shares") == "failed"


def test_a_machine_that_is_held_keeps_its_connection(place: Place) -> None:
    keeper, mount = started(place)
    client = mount.client()
    keeper.state = State(status="running", ssh_port=place.guest.port, paused="no space")
    keeper.shares.look_at_pause()
    assert keeper.shares._child._orders["held"]["held"] is True
    assert client.listdir("/") == ["hello"]
    keeper.state = State(status="running", ssh_port=place.guest.port)
    keeper.shares.look_at_pause()
    assert keeper.shares._child._orders["held"]["held"] is False


def test_what_was_remembered_of_owners_and_is_damaged_is_a_note(place: Place) -> None:
    keeper = place.keeper()
    (name,) = [found.id for found in sharing.shares_of(keeper.config)]
    folder = keeper.directory.owners_dir
    folder.mkdir()
    (folder / f"{name}.sqlite3").write_bytes(b"no database" * 1000)
    keeper.shares.begin()
    mount = place.mount(keeper)
    keeper.link.get()
    assert mount.client().listdir("/") == ["hello"]
    until(lambda: len(keeper.notes) == 1)
    assert keeper.notes[0].startswith(f"{place.data}: ") and "begun anew" in keeper.notes[0]


def test_quiet_until_the_machine_is_there_again(place: Place) -> None:
    keeper, mount = started(place)
    client = mount.client()
    keeper.shares.quiet()
    with pytest.raises(GONE):
        while True:
            client.listdir("/")
    until(lambda: keeper.state_of(place.data) == "waiting")
    keeper.link.drop()
    keeper.link.get()
    assert mount.client().listdir("/") == ["hello"]


def test_after_a_sleep_they_are_looked_at(place: Place) -> None:
    keeper, mount = started(place)
    mount.client()
    assert keeper.shares.look() == "shares served"


def test_a_process_that_keeps_dying_is_not_started_all_the_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    keeper, _ = started(place)
    until(lambda: keeper.health.state("shares") == "repairing")
    began = time.monotonic()
    keeper.shares.close()
    assert time.monotonic() - began < PATIENCE
