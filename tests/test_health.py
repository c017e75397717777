"""What the parts of a machine report, and how `status` says it."""

from __future__ import annotations

import time

from launcher.cli.verbs.status import _health_lines
from launcher.keeper.health import Health


def test_parts_in_one_line_in_order() -> None:
    health = Health()
    health.report("clock", "ok", "+3 ms")
    health.report("ports", "repairing", "no connection")
    health.report("engine", "failed", "no answer")
    health.report("ports", "ok", "4")
    health.report("engine", "ok")
    health.report("zebra", "failed")
    assert _health_lines(health.to_json()) == ["parts     engine ok   ports 4 ok   clock +3 ms   zebra failed"]


def test_a_part_that_is_not_well_says_why() -> None:
    health = Health()
    health.report("engine", "repairing", "no answer for 12 s")
    assert _health_lines(health.to_json()) == ["parts     engine repairing (no answer for 12 s)"]
    assert health.state("engine") == "repairing"
    health.forget()
    assert health.state("engine") is None and _health_lines(health.to_json()) == []


def test_what_was_mended_last() -> None:
    health = Health()
    health.mended("an older one", 9)
    health.mended("woke after 9 h: clock set", 0.8123)
    at = time.strftime("%H:")
    assert _health_lines(health.to_json())[0][16:] == "woke after 9 h: clock set in 0.8 s"
    assert _health_lines(health.to_json())[0].startswith("mended    " + at)
