"""What a command costs: wherry's own ones against an empty Python process, proxied ones against OpenSSH's warm connection."""

from __future__ import annotations

import subprocess
import sys

from tests.bench.openssh import Master
from tests.bench.place import HELLO, done, started
from tests.bench.results import Results, Row, in_turn
from tests.vm.driver import Driver


def python() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def own(results: Results, rounds: int, driver: Driver, *words: str) -> None:
    ours, theirs = in_turn(rounds * 2, lambda: done(driver, *words), python)
    in_ms(results, " ".join(["wherry", *words]), "python -c pass", ours, theirs)


def proxied(results: Results, rounds: int, driver: Driver, master: Master, words: list[str], there: list[str]) -> None:
    def ours() -> None:
        done(driver, *words)

    def theirs() -> None:
        master.run(*there)

    ours()  # warm
    theirs()
    in_ms(results, " ".join(["wherry", *words]), "ssh, ControlMaster", *in_turn(rounds, ours, theirs))


def in_ms(results: Results, name: str, against: str, ours: list[float], theirs: list[float]) -> None:
    results.add(Row(name, against, "ms", [value * 1000 for value in ours], [value * 1000 for value in theirs]))


def measure(results: Results, rounds: int, _calls: int) -> None:
    with started(results) as driver, Master(driver) as master:
        own(results, rounds, driver, "--version")
        own(results, rounds, driver, "status")
        own(results, rounds, driver, "up")
        proxied(results, rounds, driver, master, ["ssh", "true"], ["true"])
        proxied(results, rounds, driver, master, ["docker", "ps"], ["docker", "ps"])
        there = ["docker", "run", "--rm", "--init", HELLO, "true"]
        proxied(results, rounds, driver, master, ["run", "wherry/hello", "true"], there)
