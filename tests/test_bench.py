"""What `python -m tests.bench` says and writes of figures; none is measured here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import results
from tests.bench.results import Results, Row, in_turn


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *, met: bool) -> int:
    def measure(found: Results, _rounds: int, _calls: int) -> None:
        found.add(Row("a thing", "another", "ms", [2.0], [1.0], "at most 1", met))

    monkeypatch.setattr(bench, "BUILD", folder)
    monkeypatch.setattr(bench, "PARTS", {"engine": measure, "ports": measure})
    monkeypatch.setattr("sys.argv", ["bench", "ports"])
    monkeypatch.setattr(results, "draw", lambda *_: None)  # only make bench installs what it takes
    return bench.main()


def test_a_missed_goal_is_told_at_the_end_and_by_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch, met=True) == 0
    assert run(tmp_path, monkeypatch, met=False) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "MISSED  ports: a thing, at most 1"


def test_all_parts_are_together_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bench.json").write_text('{"engine": 1, "ports": 2}')
    run(tmp_path, monkeypatch, met=True)
    together = json.loads((tmp_path / "bench.json").read_text())
    assert together == {"engine": 1, "ports": json.loads((tmp_path / "bench-ports.json").read_text())}


def test_what_is_done_before_is_not_measured() -> None:
    done: list[str] = []
    in_turn(2, lambda: done.append("ours"), lambda: done.append("theirs"), lambda: done.append("before"))
    assert done == ["before", "ours", "before", "theirs", "before", "theirs", "before", "ours"]
