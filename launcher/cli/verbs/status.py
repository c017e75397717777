"""status and list."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from launcher import __version__, host, release
from launcher.bars import proportion
from launcher.cli.app import App
from launcher.cli.options import machine_name, verb
from launcher.cli.verbs.share import lines_of
from launcher.console import memory, seconds, size, table
from launcher.errors import WherryError

# Exit codes of status; what is none of these does not run.
_CODES: Final = {"running": 0, "broken": 1, "paused": 1, "newer": 6}
_NOT_RUNNING: Final = 3


@click.command()
@machine_name
@click.option("--timeline", is_flag=True, help="How long each part of the last start took.")
@verb
def status(app: App, name: str | None, timeline: bool) -> int:
    """One machine. Exit code 0: it runs, 3: it is stopped or suspended, 1: it is broken, 6: a newer wherry made it."""
    from launcher import machine

    found = machine.status(app.name(name))
    found["shares"] = _shares(found)
    app.console.answer(found, "\n".join(_lines(found) if not timeline else timeline_lines(found)))
    return _CODES.get(found["status"], _NOT_RUNNING)


@click.command("list")
@verb
def list_(app: App) -> None:
    """All machines, the damaged ones too; with -q their names only."""
    from launcher import machine

    found = machine.list_machines()
    if app.settings.quiet and not app.settings.json:
        app.console.answer(found, "\n".join(item["name"] for item in found))
        return
    if not found:
        app.console.answer(found, "")
        app.console.story("There is no machine yet.   wherry up")
        return
    head = ("name", "status", "arch", "cpus", "memory", "disk used", "engine")
    app.console.answer(found, table(head, [_row(item) for item in found]))
    for item in found:
        if item.get("problem"):
            app.console.story(f"{item['name']}: {item['problem']}   {item['next'] or ''}".rstrip())


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    def cell(key: str, show: Callable[[Any], str] = str) -> str:
        value = item.get(key)
        return "-" if value in (None, "") else show(value)

    sizes = cell("memory", memory), cell("disk_used", size)
    return cell("name"), cell("status"), cell("arch"), cell("cpus"), *sizes, cell("engine")


def _shares(found: dict[str, Any]) -> list[dict[str, Any]] | None:
    """None when they cannot be known: then something else is wrong, which is told."""
    from launcher.machine import shares

    newer = release.is_newer(str(found.get("keeper_wherry") or ""))  # of a keeper nothing but its status is asked then
    if found["status"] not in ("running", "stopped", "suspended") or newer:
        return None
    try:
        return shares.listing(found["name"])
    except WherryError:
        return None


def _lines(found: dict[str, Any]) -> list[str]:
    state = found["status"]
    if state == "running" and found.get("uptime_seconds"):
        state += f" {seconds(found['uptime_seconds'])}"
    facts = [f"Docker {found['engine']}"] if found.get("engine") else []
    if found.get("accel") and found["status"] == "running":
        facts.append("no hardware acceleration" if found["accel"] == "tcg" else found["accel"])
    lines = [f"{found['name']:<10}{state:<22} {' · '.join(facts)}".rstrip()]
    if found.get("suspended"):
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(found["suspended"]["at"]))
        lines.append(f"{'saved':<10}{at} · {size(found['suspended']['memory'])} of memory; wherry up resumes it")
    if found.get("cpus"):
        cpus = "1 CPU" if found["cpus"] == 1 else f"{found['cpus']} CPUs"
        lines.append(f"{'has':<10}{found['arch']} · {cpus} · {memory(found['memory'])} memory")
        lines.append(f"{'disk':<10}{size(found.get('disk_used', 0))} here, at most {memory(found['disk'])}")
    if found.get("idle_suspend"):
        use = "" if found.get("idle_suspend_containers") else ", such as a container that runs"
        lines.append(
            f"{'idle':<10}suspends itself after {found['idle_suspend']} min without any use{use}; the next use resumes it"
        )
    lines += _cost_lines(found.get("cost") or {})
    lines += lines_of(found.get("shares") or [])
    lines += _health_lines(found.get("health") or {})
    if found.get("socket"):
        lines.append(f"{'socket':<10}{host.current().endpoints().address(Path(found['socket']))}")
    if found.get("ssh_port"):
        lines.append(f"{'ssh':<10}127.0.0.1:{found['ssh_port']}")
    lines += [f"{'restarts':<10}{cause}: {count}" for cause, count in (found.get("restarts") or {}).items()]
    lines += [f"{'warning':<10}{warning}" for warning in found.get("warnings") or []]
    lines += [f"{'note':<10}{note}" for note in found.get("notes") or []]
    if found.get("keeper_wherry") not in (None, __version__):
        lines.append(f"{'keeper':<10}of wherry {found['keeper_wherry']}; this is {__version__}")
    if found.get("problem"):
        lines.append(f"{'problem':<10}{found['problem']}")
        lines.append(f"{'next':<10}{found['next']}")
    elif found.get("last_error") and found["status"] == "stopped":
        lines.append(f"{'last':<10}{found['last_error'].get('message', '')}")
    return lines


def _cost_lines(cost: dict[str, Any]) -> list[str]:
    """What the machine's processes take of this computer now."""
    if not cost:
        return []
    parts = cost["processes"]
    qemu = f" (QEMU {size(parts['qemu'])})" if parts.get("qemu") else ""
    facts = [f"{size(cost['memory'])} of memory{qemu}"]
    if cost["cpu"] is not None:
        over = "the last minute" if cost["seconds"] >= 55 else f"the last {cost['seconds']} s"
        facts.append(f"{cost['cpu']:.1f} % of a CPU over {over}")
    return [f"{'costs':<10}{', '.join(facts)}"]


def _health_lines(health: dict[str, Any]) -> list[str]:
    """The parts in one line, and what was last mended."""
    parts = [_part(name, part["state"], part["detail"]) for name, part in health.get("parts", {}).items()]
    lines = [f"{'parts':<10}{'   '.join(parts)}"] if parts else []
    if mended := health.get("mended"):
        at = time.strftime("%H:%M", time.localtime(mended["at"]))
        lines.append(f"{'mended':<10}{at} {mended['text']} in {seconds(mended['seconds'])}")
    return lines


def _part(name: str, state: str, detail: str) -> str:
    """`engine ok`, `ports 4 ok`, `clock +3 ms`, `ports repairing (no connection)`."""
    if state != "ok":
        return f"{name} {state}" + (f" ({detail})" if detail else "")
    return f"{name} {detail} ok" if detail.isdigit() else f"{name} {detail or state}"


def timeline_lines(found: dict[str, Any]) -> list[str]:
    """The stages of the last start: when each was reached, how long it took, and its share as a bar."""
    timeline = found.get("timeline") or []
    if not timeline:
        return ["No start is known yet."]
    total = max(at for _, at in timeline) or 1.0
    lines, before = [], 0.0
    for name, at in timeline:
        took = max(0.0, at - before)
        before = max(before, at)
        bar = proportion(took / total, utf8=True) if took >= 0.01 else ""
        lines.append(f"{name:<10}{at:>7.2f} s  +{took:>6.2f} s  {bar}".rstrip())
    return lines
