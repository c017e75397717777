"""What `python -m tests.bench` says, writes and draws of figures; none is measured here."""

from __future__ import annotations

import json
import mmap
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bench import __main__ as bench
from tests.bench import draw, floor, gate, growth, rest, results, table
from tests.bench.results import Results, Row, in_turn, load, repeated

Part = Callable[[Results, int, int], None]
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Those parts, with these words behind the command."""

    def call(parts: dict[str, Part], *words: str) -> int:
        monkeypatch.setattr(bench, "BENCH", tmp_path / "bench")
        monkeypatch.setattr(bench, "BUILD", tmp_path / "build")
        monkeypatch.setattr(bench, "PARTS", parts)
        monkeypatch.setattr("sys.argv", ["bench", *words])
        monkeypatch.setattr(draw, "everything", lambda *_: [])  # only make bench installs what it takes
        return bench.main()

    return call


def one(ours: float, theirs: float, unit: str = "ms") -> Part:
    def measure(found: Results, _rounds: int, _calls: int) -> None:
        found.add(Row("a thing", "another", unit, [ours], [theirs]).at_most(3))

    return measure


def broken(found: Results, _rounds: int, _calls: int) -> None:
    found.add(Row("before it", "", "ms", [1.0]))
    raise AssertionError("it broke")


def test_a_missed_goal_is_told_at_the_end_and_by_the_exit_code(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run({"one": one(2, 1)}) == 0
    assert run({"one": one(4, 1), "two": one(1, 1)}) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "MISSED  one: a thing, at most 3x"


def test_a_part_replaces_its_own_figures_only(run: Callable[..., int], tmp_path: Path) -> None:
    parts = {"one": one(2, 1), "two": one(1, 1)}
    file = tmp_path / "bench" / "results.json"
    run(parts)
    before = load(file)["parts"]
    run({**parts, "two": one(3, 1)}, "two", "--rounds", "7")
    after = load(file)["parts"]
    assert after["one"] == before["one"]
    assert (after["two"]["rows"][0]["ratio"], after["two"]["rounds"]) == (3, 7)


def test_the_parts_are_in_order_whichever_came_first(run: Callable[..., int], tmp_path: Path) -> None:
    assert tuple(bench.PARTS) == results.PARTS
    run({"published": one(1, 1), "cold": one(1, 1)})
    run({"suspend": one(1, 1)})
    assert list(load(tmp_path / "bench" / "results.json")["parts"]) == ["cold", "suspend", "published"]


def test_a_part_that_breaks_off_loses_nothing(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run({"one": one(2, 1), "bad": broken, "two": one(1, 1)}) == 1
    parts = load(tmp_path / "bench" / "results.json")["parts"]
    assert list(parts) == ["one", "bad", "two"]
    assert parts["bad"]["failed"] == "AssertionError: it broke" and parts["bad"]["rows"][0]["name"] == "before it"
    assert "FAILED  bad: AssertionError: it broke" in capsys.readouterr().out.splitlines()


def test_a_part_that_measured_nothing_leaves_what_was_there(run: Callable[..., int], tmp_path: Path) -> None:
    def nothing(*_: object) -> None:
        raise OSError("no machine")

    run({"one": one(2, 1)})
    assert run({"one": nothing}) == 1
    assert load(tmp_path / "bench" / "results.json")["parts"]["one"]["failed"] == ""


def test_whole_rounds_only() -> None:
    results, taken = Results("x", 5), dict[str, list[Any]](first=[], second=[])

    def half() -> None:
        taken["first"].append(1)
        if len(taken["first"]) == 3:
            raise OSError
        taken["second"].append(2)

    with pytest.raises(OSError):
        repeated(results, 5, half, taken)
    assert results.rounds == 2 and taken == {"first": [1, 1], "second": [2, 2]}


def test_what_is_done_before_is_not_measured() -> None:
    done: list[str] = []
    in_turn(2, lambda: done.append("ours"), lambda: done.append("theirs"), lambda: done.append("before"))
    assert done == ["before", "ours", "before", "theirs", "before", "theirs", "before", "ours"]


def test_a_goal_is_of_the_ratio_or_of_the_median() -> None:
    row = Row("a thing", "another", "s", [1.0, 9.0, 3.0], [2.0])
    assert row.at_most(2).goal == "at most 2x" and row.at_most(2).used == 0.75 and row.at_most(2).met
    alone = row.at_most(2, alone=True)
    assert alone.goal == "at most 2 s" and alone.used == 1.5 and alone.met is False
    assert row.at_least(3).met is False and row.at_least(3).used == 2
    assert row.at_most(2, also=False).met is False


def test_curves_that_break_off_keep_their_points() -> None:
    results = Results("x", 1)
    with pytest.raises(OSError), growth.Curves(results, "things") as curves:
        for count in (1, 10, 100):
            curves.point(count, "it", "s", [count / 10])
            curves.point(count, "later", "s", [count / 10], since=1)
            if count == 10:
                raise OSError
    assert [curve["points"] for curve in results.growth] == [[[1, [0.1]], [10, [1.0]]]] * 2
    assert [(row.name, row.against, row.ratio) for row in results.rows] == [("it, 10 things", "with 1", 10)]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells")
def test_resident_pages_are_those_of_the_largest_mapping() -> None:
    with mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, 10_000_000, mmap.PAGESIZE):
            memory[page] = 1
        assert rest.resident(psutil.Process()) == pytest.approx(10, abs=0.1)


# --- the gate


def results_of(*rows: Row, failed: str = "", name: str = "part") -> dict[str, Any]:
    made = Results(name, 5)
    made.rows.extend(rows)
    made.failed = failed
    return {"version": 1, "parts": {name: made.to_json()}}


def thing(ratio: float, unit: str = "s", seconds: float = 1) -> Row:
    return Row("a thing", "another", unit, [ratio * seconds], [seconds])


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        (thing(1.2), thing(1), []),
        (thing(1.2, seconds=50), thing(1), []),  # a slower computer
        (thing(1.4), thing(1), ["part: a thing against another is 1.40 times as bad (1.00 before, 1.40 now)"]),
        (thing(0.5), thing(1), []),
        (thing(0.5, "MB/s"), thing(1, "MB/s"), ["part: a thing against another is 2.00 times as bad (1.00 before, 0.50 now)"]),
        (thing(2, "MB/s"), thing(1, "MB/s"), []),
        (Row("new", "x", "s", [1.0], [1.0]), thing(1), ["part: a thing against another is no longer measured"]),
        (Row("a thing", "another", "s", [9.0]), Row("a thing", "another", "s", [1.0]), []),
    ],
)
def test_ratios_are_compared_not_seconds(new: Row, old: Row, said: list[str]) -> None:
    assert gate.compare(results_of(new), results_of(old), 0.3) == said


def test_a_part_that_broke_off_does_not_pass() -> None:
    said = gate.compare(results_of(thing(1), failed="OSError: x"), results_of(thing(1)), 0.3)
    assert said == ["part broke off: OSError: x"]


def test_parts_that_only_one_run_has_are_no_matter() -> None:
    assert gate.compare(results_of(thing(9), name="one"), results_of(thing(1), name="two"), 0.3) == []
    # but a run of which nothing can be compared passes nothing
    assert gate.told(results_of(thing(9), name="one"), results_of(thing(1), name="two"), 0.3) == 1


def test_check_measures_and_compares_and_leaves_the_results_alone(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench" / "results.json"
    run({"one": one(4, 1)})  # misses its goal, as it will again
    kept = file.read_bytes()
    check = ("--check", str(file))
    assert run({"one": one(4.4, 1)}, *check) == 0
    assert run({"one": one(8, 1)}, *check) == 1
    assert "1 ratios compared, 1 worse by more than 30%" in capsys.readouterr().out
    assert run({"one": one(8, 1)}, *check, "--margin", "1.5") == 0
    assert run({"one": broken}, *check) == 1
    # nor is what an earlier check left told as this one's
    capsys.readouterr()
    run({"two": one(1, 1)}, *check)
    assert "0 ratios compared" in capsys.readouterr().out
    assert file.read_bytes() == kept


# --- plots and table


def sample() -> dict[str, Any]:
    """Of the shape of a run, with figures that nobody measured."""
    machine = {
        "system": "Linux 6.1", "processor": "A Processor", "cpus": 2, "qemu": "7.2.0", "accelerator": "tcg",
        "guest": "2 CPUs, 2048 MB", "wherry": "0.1", "python": "3.11",
    }  # fmt: skip
    cold, suspend, grown = Results("cold", 5), Results("suspend", 5), Results("containers", 5)
    cold.timelines("cold", [[("qemu", 0.2), ("kernel", 2.5), ("root", 3.0), ("ssh", 3.8), ("engine", 11.0), ("ready", 11.4)]])
    cold.timelines("floor", [[("empty", 2.4), ("engine", 7.9)]])
    cold.add(Row("cold start", "the floor", "s", [11.6, 11.8, 12.0], [8.0, 7.9, 8.1]).at_most(1.25))
    cold.add(Row("stop, no container", "dockerd's end", "s", [2.0, 2.1], [1.0, 1.1]).at_most(4, alone=True))
    cold.add(Row("ISO", "", "MB", [129.88]))
    suspend.timelines("resume", [[("qemu", 0.2), ("memory", 1.1), ("ssh", 1.3), ("ready", 1.4)]])
    grown.curve("containers", "one more container", "s", [(1, [2.0, 2.1]), (10, [2.2, 2.0]), (100, [2.9, 3.1])])
    grown.add(Row("one more container, 100 containers", "1", "s", [3.0], [2.0]))
    for part in (cold, suspend, grown):
        part.machine = machine
    return {"version": 1, "parts": {part.title: part.to_json() for part in (cold, suspend, grown)}}


def test_the_same_figures_give_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="make bench installs it")
    one, two = draw.everything(sample(), tmp_path / "one"), draw.everything(sample(), tmp_path / "two")
    assert [file.name for file in one] == ["start.svg", "goals.svg", "growth.svg"]
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()
        assert b"<dc:date>" not in first.read_bytes()


def test_a_plot_for_which_nothing_was_measured_is_not_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="make bench installs it")
    data = sample()
    del data["parts"]["cold"], data["parts"]["containers"]
    assert [file.name for file in draw.everything(data, tmp_path)] == ["start.svg"]


def test_the_table_has_each_number_of_the_results() -> None:
    text = table.table(sample())
    assert "QEMU 7.2.0, software emulation (TCG); guest: 2 CPUs, 2048 MB" in text
    assert "| cold start | 11.8 s | the floor: 8.00 s | 1.48 | at most 1.25x (**missed**) |" in text
    assert "| stop, no container | 2.05 s | dockerd's end: 1.05 s | 1.95 | at most 4 s |" in text
    assert "| ISO | 130 MB |  |  |  |" in text


def test_the_readme_has_the_table_of_the_results() -> None:
    if not table.RESULTS.exists():
        pytest.skip("nothing was measured yet")
    assert table.table(load(table.RESULTS)) in README, "python -m tests.bench.table prints it"


# --- the floor


def test_the_floor_is_the_machines_own_command_with_another_initrd() -> None:
    words = [
        "qemu", "-machine", "q35", "-initrd", "/a/initrd", "-append", "console=ttyS0 quiet", "-rtc", "base=utc",
        "-chardev", "socket,id=qmp,fd=5,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
        "-chardev", "socket,id=serial,fd=6,server=on,wait=off", "-serial", "chardev:serial",
    ]  # fmt: skip
    changed = floor.changed(words, Path("/b/floor.cpio"))
    assert [(old, new) for old, new in zip(words, changed, strict=True) if old != new] == [
        ("/a/initrd", "/b/floor.cpio"),
        ("socket,id=qmp,fd=5,server=on,wait=off", "null,id=qmp"),
        ("socket,id=serial,fd=6,server=on,wait=off", "stdio,id=serial,signal=off"),
    ]
    assert "console=ttyS0 quiet rest" in floor.changed(words, Path("/b"), rest=True)


def entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content by name (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""
    found, at = dict[str, tuple[int, bytes]](), 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(13)]
        begin = at + 110
        name = archive[begin : begin + fields[11] - 1].decode()
        data = begin + fields[11] + -(begin + fields[11]) % 4
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], archive[data : data + fields[6]])
        at = data + fields[6] + -fields[6] % 4


def test_the_floors_initrd(tmp_path: Path) -> None:
    """A console, and a program that needs no library and does as it is told."""
    found = entries(floor.initrd(tmp_path).read_bytes())
    assert list(found) == ["dev", "dev/console", "init"]
    assert stat.S_ISCHR(found["dev/console"][0]) and found["init"][0] == stat.S_IFREG | 0o755
    program = tmp_path / "init"
    program.write_bytes(found["init"][1])
    program.chmod(0o755)
    headers = subprocess.run(["readelf", "-l", program], capture_output=True, check=True, text=True).stdout
    assert "INTERP" not in headers
    with subprocess.Popen([program, "rest"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline().strip() == floor.WORD
        assert process.poll() is None
        process.kill()
    assert subprocess.run([program], stdout=subprocess.DEVNULL, check=False).returncode == 1  # not the first process


def test_results_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"engine": 1}))
    with pytest.raises(ValueError, match="no results of this bench"):
        load(tmp_path / "x.json")
