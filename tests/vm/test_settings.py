"""config and doctor against a machine that runs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from tests.vm.driver import START_SECONDS, Driver


def test_a_setting_is_told_then_set_then_there(machine: Driver) -> None:
    words = ["config", "set", "engine.labels=['who=wherry']", "engine.max-concurrent-downloads=2", "stop_seconds=20"]
    told = machine.wherry(*words)
    assert told.returncode == 0, told.stderr.decode()
    assert told.stderr.decode().startswith("This takes a restart of default, which runs: wherry restart, or --restart.\n")
    assert "who=wherry" not in machine.docker("info", "--format", "{{.Labels}}")
    done = machine.wherry("config", "set", "stop_seconds=21", "--restart", timeout=START_SECONDS)
    assert done.returncode == 0, done.stderr.decode()
    assert "who=wherry" in machine.docker("info", "--format", "{{.Labels}}")
    gone = machine.wherry("config", "unset", "engine.labels", "engine.max-concurrent-downloads", "stop_seconds")
    assert gone.returncode == 0 and b"takes a restart" in gone.stderr


def test_doctor_of_a_machine_that_runs(machine: Driver, tmp_path: Path) -> None:
    target = tmp_path / "report.zip"
    done = machine.wherry("doctor", "--bundle", str(target), "--json")
    data = json.loads(done.stdout)["data"]
    found = {check["name"]: check for check in data["checks"]}
    assert done.returncode == 0, [check for check in data["checks"] if check["status"] == "failure"]
    assert found["machine"]["text"] == "default is running" and found["keys"]["status"] == "ok"
    assert found["engine"]["text"].startswith("Docker ") and found["machine's clock"]["status"] == "ok", found
    assert found["libslirp"]["text"][0].isdigit() or "cannot be known" in found["libslirp"]["text"]
    state = json.loads((machine.path / "home" / "machines" / "default" / "state.json").read_text())
    with zipfile.ZipFile(target) as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert b"wherry-stage" in everything or b"wherry-note" in everything
    assert state["token"] and state["token"].encode() not in everything
    for key in ("id_ed25519", "host_ed25519"):
        secret = (machine.path / "home" / "machines" / "default" / key).read_bytes().splitlines()[1]
        assert secret not in everything


def test_version_tells_the_iso(machine: Driver) -> None:
    data = json.loads(machine.wherry("version", "--json").stdout)["data"]
    assert data["iso"]["days"] is not None and data["engine"]["Version"]
    assert data["iso"]["below"] == []
