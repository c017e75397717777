"""config: what is written to machine.toml, what is refused, and what is said first."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from launcher import __version__, store
from launcher.config import GIB, MachineConfig, Network, Shares
from launcher.config_keys import KEYS
from launcher.configfile import line_of
from launcher.errors import Refused
from launcher.machine import configure, create
from tests.conftest import Said
from tests.fakes import FakeKeeper, make_iso, make_machine

Wherry = Callable[..., Said]

WRITTEN = """\
# Mine.
version = 1
wherry = "{wherry}"
memory = "2G"   # enough
arch = "amd64"
iso = "{iso}"

cpus = 1

[engine]  # dockerd's
# noisy
debug = true
labels = [
  "a=b",
]
""".format(iso="a" * 64, wherry=__version__)


@pytest.fixture
def file(home: Path) -> Path:
    path = make_machine().config_file
    path.write_text(WRITTEN)
    return path


def data(said: Said) -> Any:
    assert said.code == 0, said
    return json.loads(said.out)["data"]


def test_comments_and_order_stay(wherry: Wherry, file: Path) -> None:
    assert wherry("config", "set", "memory=1536M", "engine.debug=false", "stop_seconds=5").code == 0
    wanted = WRITTEN.replace('"2G"', '"1536M"').replace("true", "false").replace("cpus = 1\n", "cpus = 1\nstop_seconds = 5\n")
    assert file.read_text() == wanted
    assert wherry("config", "unset", "stop_seconds").code == 0
    assert file.read_text() == wanted.replace("stop_seconds = 5\n", "")


def test_up_writes_only_what_changes(file: Path) -> None:
    directory = store.machine("default")
    directory.write_config(directory.read_config().changed(cpus=3))
    assert file.read_text() == WRITTEN.replace("cpus = 1", "cpus = 3")
    directory.write_config(directory.read_config().changed(stop_seconds=5))
    directory.write_config(directory.read_config().changed(stop_seconds=30))
    assert file.read_text() == WRITTEN.replace("cpus = 1", "cpus = 3")


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("engine.debug false", {"debug": False}),
        ("engine.log-opts.max-size 5m", {"log-opts": {"max-size": "5m"}}),
        ("engine.log-opts.max-file 5", {"log-opts": {"max-file": "5"}}),
        ("engine.max-concurrent-downloads 4", {"max-concurrent-downloads": 4}),
        ("engine.bip 10.99.0.1/24", {"bip": "10.99.0.1/24"}),
        ('engine.dns ["1.1.1.1"]', {"dns": ["1.1.1.1"]}),
        ('engine.runtimes."io.x".path /x', {"runtimes": {"io.x": {"path": "/x"}}}),
        ("engine.only-yours 1", {"only-yours": 1}),
        ("engine.log-level=warn", {"log-level": "warn"}),
    ],
)
def test_values_for_the_engine_are_toml(words: str, written: dict[str, Any], wherry: Wherry, file: Path) -> None:
    assert wherry("config", "set", *words.split(" ", 1)).code == 0
    assert store.machine("default").read_config().engine == {"debug": True, "labels": ["a=b"]} | written


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("cpsu 2", "unknown key 'cpsu', cpus is the nearest.", "wherry config --help"),
        ("network.proxi x", "unknown key 'network.proxi', network.proxy is the nearest.", None),
        ("engine.dbug true", "unknown key 'engine.dbug', engine.debug is the nearest.", None),
        ("engine x", "unknown key 'engine'", None),
        ("engine. x", "is no key", None),
        ("xyzzy 1", "unknown key 'xyzzy'.", None),
        ("memory 8", "memory: '8' is not a size (write 8G).", None),
        ("memory 100M", "512M at least", None),
        ("memory 900T", "more than this computer has", None),
        ("cpus two", "a number is wanted", None),
        ("cpus 0", "cpus = 0: 1 to 255.", None),
        ("stop_seconds 0", "1 to 3600", None),
        ("accel xen", "auto, kvm, hvf, whpx or tcg", None),
        ("qemu /nowhere/qemu", "is no program", None),
        ("engine.hosts x", "hosts cannot be set", None),
        ("engine.data-root /x", "data-root cannot be set", None),
        ("engine.dns 1.1.1.1", "engine.dns is a list.", """wherry config set engine.dns '["1.1.1.1"]'"""),
        ("engine.x 2026-01-01", "daemon.json cannot", None),
        ("network.proxy ftp://h", "no proxy's address", None),
        ("network.proxy http://", "no proxy's address", None),
        ("network.proxy http://h:x", "no proxy's address", None),
        ("network.ca /nowhere.pem", "No such file", None),
        ("network.subnet 8.8.8.0/24", "a private network", None),
        ("network.subnet 10.0.0.0/16", "10.0.2.0/24, which links", None),
        ("network.subnet 10.1.2.3/16", "host bits", None),
        ("network.subnet 10.1.2.0/30", "/8 to /24", None),
        ("disk 200G", "disk cannot be set.", "wherry disk grow SIZE"),
        ("iso " + "b" * 64, "iso cannot be set.", "wherry upgrade"),
        ("arch arm64", "arch cannot be set.", None),
        ("version 2", "version cannot be set.", None),
        ("cpus=2 cpsu=3", "unknown key", None),
        ("cpus", "'cpus' has no value.", "wherry config set KEY VALUE, or: wherry config set KEY=VALUE…"),
        ("cpus=1 memory", "'memory' has no value.", None),
    ],
)
def test_what_cannot_be_is_refused(words: str, message: str, hint: str | None, wherry: Wherry, file: Path) -> None:
    said = wherry("config", "set", *words.split())
    assert said.code == 2 and message in said.err
    assert hint is None or said.err.splitlines()[1].strip() == hint
    assert file.read_text() == WRITTEN


def test_secrets_of_a_proxy_are_not_repeated(wherry: Wherry, file: Path) -> None:
    assert "hunter2" not in wherry("config", "set", "network.proxy", "ftp://ana:hunter2@proxy").err
    file.write_text(WRITTEN + '[network]\nproxy = ["http://ana:hunter2@proxy"]\n')
    assert "hunter2" not in wherry("config", "show").err


def test_certificates_are_looked_at(wherry: Wherry, file: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    assert "no file of certificates" in wherry("config", "set", "network.ca", str(wrong)).err
    import ssl

    bundle = ssl.get_default_verify_paths().cafile or ""
    if not Path(bundle).exists():
        pytest.skip("no bundle of certificates on this computer")
    said = wherry("config", "set", "network.ca", bundle)
    assert said.code == 0 and "next start" in said.err
    assert store.machine("default").read_config().network.ca == bundle


def test_going_back_to_the_default(wherry: Wherry, file: Path) -> None:
    assert wherry("config", "set", "engine.log-opts.max-size=5m", "network.proxy=http://h:1", "cpus=200").code == 0
    said = wherry("config", "unset", "engine.log-opts.max-size", "network.proxy", "cpus", "memory", "accel")
    assert said.code == 0 and "engine.log-opts.max-size: 5m -> default" in said.err
    config = store.machine("default").read_config()
    assert config == MachineConfig(
        arch="amd64", cpus=create.default_cpus(), memory=create.default_memory(), iso="a" * 64,
        engine={"debug": True, "labels": ["a=b"]},
    )  # fmt: skip
    assert "[network]" not in file.read_text() and "log-opts" not in file.read_text()
    assert wherry("config", "unset", "disk").code == 2
    assert wherry("config", "unset", "engine.nothing").code == 0


def test_a_restart_is_told_first(keeper: FakeKeeper) -> None:
    file = keeper.directory.config_file
    before = file.read_text()
    told = []

    def tell(plan: configure.Plan) -> None:
        told.append((plan.restart, file.read_text()))

    configure.change("default", {"stop_seconds": "9"}, tell)
    assert told == [(True, before)] and file.read_text() != before
    configure.change("default", {"stop_seconds": "9"}, tell)
    configure.change("default", {"network.subnet": "10.7.0.0/16"}, tell)
    assert [restart for restart, _ in told] == [True, False, False]


def test_host_access_is_put_in_force_at_once(wherry: Wherry, keeper: FakeKeeper) -> None:
    def applied() -> int:
        return [request["verb"] for request in keeper.requests].count("apply")

    said = wherry("config", "set", "host_access", "none")
    assert said == Said(0, "", "host_access: default -> none\n") and applied() == 1
    assert data(wherry("config", "set", "host_access=8080,5432", "--json"))["restart_needed"] is False and applied() == 2
    assert store.machine("default").read_config().host_access == (8080, 5432)
    assert "[8080, 5432]" in wherry("config", "get", "host_access").out
    assert wherry("config", "set", "host_access", "[8080, 5432]").err == "Nothing is changed: it is so already.\n"
    assert wherry("config", "set", "stop_seconds", "9").code == 0 and applied() == 2
    assert wherry("config", "unset", "host_access").code == 0 and applied() == 3
    keeper.status = "stopped"
    make_machine("off")
    assert wherry("--machine", "off", "config", "set", "host_access", "none").code == 0 and applied() == 3


@pytest.mark.parametrize("value", ["some", "", "0", "65536", "80,http", "[]", "-1", "80-90", ",".join(["80"] * 101)])
def test_host_access_that_cannot_be(wherry: Wherry, file: Path, value: str) -> None:
    before = file.read_text()
    said = wherry("config", "set", "host_access=" + value)
    assert said.code == 2 and "host_access" in said.err and file.read_text() == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("insecure-registries", '["registry.lan:5000", "10.0.0.0/8", "[::1]:5000", "host.docker.internal:5000", "fd00::/8"]'),
        ("registry-mirrors", '["https://mirror.example.com", "http://10.0.2.2:5000/"]'),
        ("proxies.http-proxy", "http://ana:secret@proxy.lan:3128"),
        ("proxies.no-proxy", "localhost,.lan"),
        ("dns", '["192.168.1.1", "fd00::1"]'),
    ],
)
def test_engine_values_that_are_taken(wherry: Wherry, file: Path, key: str, value: str) -> None:
    assert wherry("config", "set", f"engine.{key}", value).code == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("insecure-registries", '["http://registry.lan:5000"]'),
        ("insecure-registries", '["registry.lan:99999"]'),
        ("insecure-registries", "[5000]"),
        ("insecure-registries", '["10.0.0.0/40"]'),
        ("registry-mirrors", '["mirror.example.com"]'),
        ("registry-mirrors", '["https://ana:hunter2@mirror.example.com"]'),
        ("registry-mirrors", '["https://mirror.example.com/?a=hunter2"]'),
        ("proxies", "http://proxy"),
        ("proxies.http-proxy", "ana:hunter2@proxy:3128"),
        ("proxies.ftp-proxy", "http://proxy:3128"),
        ("dns", '["ns.example.com"]'),
    ],
)
def test_engine_values_that_cannot_be(wherry: Wherry, file: Path, key: str, value: str) -> None:
    before = file.read_text()
    said = wherry("config", "set", f"engine.{key}", value)
    assert said.code == 2 and f"engine.{key.partition('.')[0]}" in said.err and "hunter2" not in said.err
    assert file.read_text() == before


def test_what_is_said(wherry: Wherry, keeper: FakeKeeper) -> None:
    said = wherry("config", "set", "stop_seconds", "9")
    assert said == Said(
        0, "", "This takes a restart of default, which runs: wherry restart, or --restart.\nstop_seconds: default -> 9\n"
    )
    assert data(wherry("config", "set", "stop_seconds=8", "--json")) == {
        "changed": [{"key": "stop_seconds", "before": 9, "after": 8}], "restart_needed": True, "restarted": False,
    }  # fmt: skip
    keeper.status = "stopped"
    make_machine("off")
    said = wherry("--machine", "off", "config", "set", "cpus", "2")
    assert said.err.startswith("This holds from off's next start on.\n")
    assert (
        wherry("--machine", "off", "config", "set", "cpus", "2", "--restart").err == "Nothing is changed: it is so already.\n"
    )
    assert "slower" in wherry("--machine", "off", "config", "set", "cpus=255").err


def test_show_marks_the_defaults(wherry: Wherry, file: Path) -> None:
    rows = {line.split()[0]: line.split()[1:3] for line in wherry("config", "show").out.splitlines()[1:]}
    assert (
        rows["memory"] == ["2G", "set"] and rows["accel"] == ["auto", "default"] and rows["iso"] == ["aaaaaaaaaaaa...", "fixed"]
    )
    assert rows["engine.debug"] == ["true", "set"] and rows["engine.log-driver"] == ["json-file", "default"]
    shown = {item["key"]: item for item in data(wherry("config", "show", "--json"))}
    assert shown["engine.labels"]["value"] == ["a=b"] and shown["iso"]["value"] == "a" * 64
    assert {key.name for key in KEYS} - {"engine.KEY"} <= set(shown)
    for name in {"cpus", "memory"}:
        wherry("config", "unset", name)
    assert "default" in wherry("config", "show").out.splitlines()[1]


def test_every_field_of_a_machine_has_its_key() -> None:
    fields = {name for name in MachineConfig.__dataclass_fields__ if name not in ("engine", "network", "shares")}
    fields |= {f"shares.{name}" for name in Shares.__dataclass_fields__}
    fields |= {f"network.{name}" for name in Network.__dataclass_fields__} | {"engine.KEY", "version"}
    assert {key.name for key in KEYS} == fields


def test_get(wherry: Wherry, file: Path) -> None:
    for key, value in (("memory", "2G"), ("accel", "auto"), ("engine.debug", "true"), ("engine.log-driver", "json-file")):
        assert wherry("config", "get", key).out == f"{value}\n"
    assert data(wherry("config", "get", "engine.labels", "--json")) == {"key": "engine.labels", "value": ["a=b"]}
    assert data(wherry("config", "get", "engine", "--json"))["value"]["log-opts"]["max-size"] == "10m"
    assert wherry("config", "get", "qemu").code == 1
    assert wherry("config", "get", "engine.nothing").code == 1
    assert wherry("config", "get", "memry").code == 2
    assert wherry("config", "path").out == f"{file}\n"


def test_words_of_config(wherry: Wherry, file: Path) -> None:
    assert wherry("config").code == 0 and "Keys:" in wherry("config").out
    said = wherry("config", "sett", "cpus", "2")
    assert said.code == 2 and "wherry config set" in said.err
    assert wherry("config", "get", "cpus", "--machine", "none").code == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("colour = 1", "line 4: unknown key 'colour'"),
        ('memroy = "1G"', "line 4: unknown key 'memroy', memory is the nearest"),
        ('stop_seconds = "9"', "line 4: stop_seconds = '9' has the wrong type"),
        ("memory = 9", "line 4: memory = 9 has the wrong type"),
        ("[network]\nproxy = 1", "line 5: network.proxy has the wrong type"),
        ('[network]\nporxy = "x"', "line 5: unknown key 'network.porxy', network.proxy is the nearest"),
        ('iso = "' + "a" * 64 + '"\nmemory = "1G"\n[engine]\nhosts = ["x"]', "line 7: [engine] hosts cannot be set"),
        ("memory = ", "(at line 4"),
    ],
)
def test_a_hand_edited_file_is_told_by_line(line: str, message: str, wherry: Wherry, home: Path) -> None:
    file = make_machine().config_file
    file.write_text(f'version = 1\narch = "amd64"\ncpus = 1\n{line}\n')
    said = wherry("config", "show")
    assert said.code == 1 and str(file) in said.err and message in said.err and "wherry config edit default" in said.err
    assert message in wherry("status").out


def test_which_wherry_wrote_it_is_kept_up(wherry: Wherry, file: Path) -> None:
    file.write_text(WRITTEN.replace(__version__, "0.0.1"))
    assert wherry("config", "set", "cpus", "2").code == 0
    assert file.read_text() == WRITTEN.replace("cpus = 1", "cpus = 2")
    file.write_text(WRITTEN.replace(__version__, "0.0.1"))
    directory = store.machine("default")
    directory.write_config(directory.read_config().changed(cpus=2))
    assert file.read_text() == WRITTEN.replace("cpus = 1", "cpus = 2")
    file.write_text(WRITTEN.replace(__version__, "99.0") + '[network]\nnew = "x"\n')
    said = wherry("config", "set", "cpus", "2")
    assert said.code == 6 and "wherry 99.0" in said.err


def test_lines_of_keys() -> None:
    keys = ("version", "cpus", "engine.debug", "engine.labels", "debug")
    assert [line_of(WRITTEN, key) for key in keys] == [2, 8, 12, 13, None]


def editor(tmp_path: Path, body: str) -> str:
    """An editor, as a program with arguments: Python with a script that gets the file as `path`."""
    script = tmp_path / "an editor.py"
    script.write_text(f"import sys, pathlib\npath = pathlib.Path(sys.argv[-1])\nassert sys.argv[1] == '--wait'\n{body}\n")
    return f"'{sys.executable}' '{script}' --wait"


def test_edit(wherry: Wherry, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "/nowhere/vi")
    monkeypatch.setenv("VISUAL", editor(tmp_path, "path.write_text(path.read_text().replace('cpus = 1', 'cpus = 2 # two'))"))
    said = wherry("config", "edit")
    assert said.code == 0 and said.err == "This holds from default's next start on.\ncpus: 1 -> 2\n"
    assert file.read_text() == WRITTEN.replace("cpus = 1", "cpus = 2 # two")
    assert wherry("config", "edit").err == "Nothing is changed.\n"
    monkeypatch.setenv("VISUAL", "")
    said = wherry("config", "edit")
    assert said.code == 4 and "/nowhere/vi" in said.err
    monkeypatch.setenv("EDITOR", editor(tmp_path, "sys.exit(3)"))
    assert wherry("config", "edit").code == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("'cpus = 1', 'cpus = 0'", "line 8: cpus = 0"),
        ("'cpus = 1', 'cpsu = 1'", "line 8: unknown key 'cpsu', cpus is the nearest"),
        ("'cpus = 1', 'cpus = '", "line 8"),
        ("'amd64', 'arm64'", "line 5: arch cannot be changed"),
        ("'2G', '900T'", "more than this computer has"),
        ("'debug = true', 'debug = 2026-01-01'", "daemon.json"),
        ("'cpus = 1', ''", "cpus is missing"),
    ],
)
def test_an_edit_that_cannot_be_leaves_the_file(
    change: str, message: str, wherry: Wherry, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", editor(tmp_path, f"path.write_text(path.read_text().replace({change}))"))
    said = wherry("config", "edit")
    assert said.code in (1, 2) and message in said.err
    assert file.read_text() == WRITTEN


def test_a_broken_file_can_be_mended(wherry: Wherry, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(WRITTEN.replace("cpus = 1", "cpus = one"))
    monkeypatch.setenv("EDITOR", editor(tmp_path, "path.write_text(path.read_text().replace('one', '2'))"))
    assert wherry("config", "edit").code == 0
    assert store.machine("default").read_config().cpus == 2


def test_two_edits_at_once(file: Path) -> None:
    with configure.draft("default") as draft:
        draft.file.write_text(WRITTEN.replace("cpus = 1", "cpus = 2"))
        configure.change("default", {"memory": "3G"}, lambda plan: None)
        draft.check()
        with pytest.raises(Refused, match="meanwhile"):
            draft.save(draft.check())
    assert store.machine("default").read_config().memory == 3 * GIB


def test_editing_again_after_a_mistake(file: Path, tmp_path: Path) -> None:
    """On a real terminal: the first text cannot be, the second can."""
    body = "text = path.read_text()\npath.write_text(text.replace('cpus = 0', 'cpus = 3').replace('cpus = 1', 'cpus = 0'))"
    master, slave = os.openpty()
    environment = {**os.environ, "EDITOR": editor(tmp_path, body), "VISUAL": ""}
    command = [sys.executable, "-m", "launcher", "config", "edit"]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        said = b""
        while b"Edit again?" not in said:
            said += os.read(master, 4096)
        assert b"cpus = 0: 1 to 255" in said
        os.write(master, b"y\n")
        while process.poll() is None:
            try:
                said += os.read(master, 4096)
            except OSError:
                break
        assert process.wait() == 0
    os.close(master)
    assert file.read_text() == WRITTEN.replace("cpus = 1", "cpus = 3")


def test_many_changes_at_once_all_arrive(file: Path) -> None:
    commands = [
        subprocess.Popen([sys.executable, "-m", "launcher", "config", "set", f"engine.label-{number}={number}"], stderr=-1)
        for number in range(6)
    ]
    for command in commands:
        assert command.communicate()[1] is not None and command.returncode == 0
    engine = store.machine("default").read_config().engine
    assert [engine[f"label-{number}"] for number in range(6)] == list(range(6))


class Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that has nothing, and notes what it was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name for it
        pass


def test_upgrade_fetches_through_the_machines_proxy(wherry: Wherry, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    make_iso()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert wherry("config", "set", f"network.proxy=http://127.0.0.1:{server.server_port}").code == 0
            said = wherry("upgrade", "--iso", f"http://images.invalid/wherry.iso#sha256={'b' * 64}")
        finally:
            server.shutdown()
            thread.join()
    assert said.code == 7 and Proxy.asked[0].startswith("http://images.invalid/wherry"), said


def test_shared_folders_are_whole_and_there(
    wherry: Wherry, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert wherry("config", "set", "shares.folders", "data:ro,./data/").code == 0
    assert data(wherry("config", "get", "shares.folders", "--json"))["value"] == [f"{tmp_path}/data:ro", f"{tmp_path}/data"]
    said = wherry("config", "set", "shares.folders", "data:ro,none")
    assert (said.code, f"there is no folder {tmp_path}/none" in said.err) == (2, True)
    (tmp_path / "data").rmdir()  # what was there once may be gone for a while
    assert wherry("config", "set", "shares.folders", "data:ro").code == 0
    assert wherry("config", "unset", "shares.folders").code == 0
    assert "[shares]" not in file.read_text()


def test_shares_have_their_defaults(wherry: Wherry, file: Path) -> None:
    found = data(wherry("config", "get", "shares", "--json"))["value"]
    assert found == {"home": True, "folders": [], "hidden": [], "events": True, "virtiofs": False}
    assert wherry("config", "set", "shares.home", "false").code == 0
    assert file.read_text().endswith("[shares]\nhome = false\n")
