"""Done-when 2: kill -9 of a process of ours at a random moment, while a container writes and fsyncs numbered records.

A record counts as acknowledged when its number came to this computer, which the writer prints after fsync. After each kill:
`status` tells the truth, `up` works, every acknowledged record is in the volume, nothing is left behind. WHERRY_SEED repeats a
run (the moments, not what the machine did at them), WHERRY_ROUNDS sets another count.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from tests.vm.driver import SOAK, START_SECONDS, Driver

pytestmark = pytest.mark.vm

SEED = int(os.environ.get("WHERRY_SEED") or secrets.randbelow(10**6))
ROUNDS = int(os.environ.get("WHERRY_ROUNDS") or (100 if SOAK else 3))
HANGS = 60  # seconds after which a command counts as one that hangs

LOG = "/var/lib/wherry/docker/volumes/log/_data/log"
# What is killed, and while which command of ours is under way.
KINDS = (
    ("keeper", ""), ("qemu", ""), ("both", ""),
    ("keeper", "up"), ("qemu", "up"), ("both", "up"), ("command", "up"),
    ("keeper", "stop"), ("qemu", "stop"), ("both", "stop"), ("command", "stop"),
)  # fmt: skip
FEW = (("keeper", ""), ("qemu", "up"), ("keeper", "stop"), ("both", ""))

Process = subprocess.Popen[bytes]


@dataclass
class Round:
    number: int
    victim: str
    during: str
    moment: float = 0.0  # seconds from the beginning of the command, or of the writing, to the kill
    acknowledged: list[str] = field(default_factory=list)
    said: str = ""
    recovery: float = 0.0  # seconds from the kill to the end of the next `up`

    def line(self) -> str:
        where = f"{self.victim} in {self.during}" if self.during else self.victim
        return (
            f"{self.number:>3}  {where:<16} after {self.moment:>5.2f} s   {len(self.acknowledged):>4} records   "
            f"status {self.said:<9} up again after {self.recovery:>5.1f} s"
        )


class Writer:
    """A container that appends records, and the thread that takes its acknowledgements."""

    def __init__(self, driver: Driver, number: int) -> None:
        self.name = f"writer-{number}"
        script = (
            f"n=0; while :; do n=$((n+1)); echo {number}.$n | dd of=/data/log oflag=append conv=notrunc,fsync 2>/dev/null"
            f" && echo {number}.$n; done"
        )
        words = ["run", "--name", self.name, "-v", "log:/data", "wherry.internal/hello", "sh", "-c", script]
        self.acknowledged: list[str] = []
        self.first = threading.Event()
        self.process: Process = driver.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.acknowledged.append(line.decode().strip())
            self.first.set()
        self.first.set()

    def end(self) -> int:
        """The exit code; the command must come to its end by itself."""
        code = self.process.wait(HANGS)
        self._reading.join()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.words = self.process.stderr.read().decode()
        self.process.stdout.close()
        self.process.stderr.close()
        return code


def ours(driver: Driver) -> dict[str, psutil.Process]:
    found = {}
    for process in driver.processes():
        try:
            if "launcher.keeper" in process.cmdline():
                found["keeper"] = process
            elif process.name().startswith("qemu-system"):
                found["qemu"] = process
        except psutil.Error:
            continue
    return found


def end(process: psutil.Process) -> None:
    try:
        process.kill()
        process.wait(60)
    except psutil.NoSuchProcess:
        pass


def kill(driver: Driver, victim: str, command: Process | None, dice: random.Random) -> None:
    """Kill it as soon as it is there; a command that has ended is as good as killed."""
    if victim == "command":
        assert command is not None
        command.kill()
        command.wait()
        return
    wanted = ["keeper", "qemu"] if victim == "both" else [victim]
    dice.shuffle(wanted)
    deadline = time.monotonic() + HANGS
    while wanted and time.monotonic() < deadline:
        found = ours(driver)
        for name in [name for name in wanted if name in found]:
            end(found[name])
            wanted.remove(name)
        if victim == "both" and "keeper" not in wanted:
            return  # a keeper that is dead starts no QEMU any more
        if command is not None and command.poll() is not None:
            return


TRUE = {
    (True, True): ("running", "starting", "stopping"),
    (True, False): ("starting", "stopping", "stopped", "failed"),
    (False, True): ("broken",),
    (False, False): ("stopped",),
}


def true_status(driver: Driver) -> str:
    """What `status` says once it agrees with the processes that there are; each word of it must come in time."""
    deadline = time.monotonic() + HANGS
    while True:
        before = ours(driver).keys()
        said = str(driver.status(timeout=HANGS)["status"])
        after = ours(driver).keys()
        if before == after and said in TRUE["keeper" in after, "qemu" in after]:
            return said
        assert time.monotonic() < deadline, f"status says {said}, there are {sorted(after)}"


def prepare(driver: Driver, during: str) -> Process | None:
    """Begin the command in the middle of which something is killed."""
    if not during:
        return None
    if during == "up":
        for process in ours(driver).values():
            end(process)
    return driver.popen(during, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def play(driver: Driver, now: Round, dice: random.Random, start_seconds: float) -> None:
    writer = Writer(driver, now.number)
    assert writer.first.wait(START_SECONDS)
    assert writer.acknowledged, writer.end()
    spread = {"": 3.0, "up": start_seconds * 1.1, "stop": 6.0}[now.during]
    if now.during == "up":
        time.sleep(dice.uniform(0, 2))
    now.moment = dice.uniform(0, spread)
    command = prepare(driver, now.during)
    time.sleep(now.moment)  # the moment is what is tried, nothing is waited for
    kill(driver, now.victim, command, dice)
    killed = time.monotonic()
    now.said = true_status(driver)
    if command is not None and now.victim != "command":
        command.wait(HANGS)  # whose machine was taken away in the middle
    if now.victim != "command":
        check_end(writer, now)
    driver.up()
    now.recovery = time.monotonic() - killed
    if now.victim == "command":
        check_end(writer, now)
    now.acknowledged = writer.acknowledged


def check_end(writer: Writer, now: Round) -> None:
    code = writer.end()
    # A container that was asked to stop may have ended before the kill.
    assert code in ((125,) if now.during != "stop" else (125, 137, 143)), (code, writer.words)
    assert code != 125 or "wherry: " in writer.words, writer.words


def check(driver: Driver, acknowledged: list[str]) -> None:
    lines = set(driver.ssh(f"cat {LOG}").splitlines())
    lost = [record for record in acknowledged if record not in lines]
    assert lost == []
    assert sorted(ours(driver)) == ["keeper", "qemu"]
    assert len([one for one in driver.processes() if one.name().startswith("qemu-system")]) == 1
    check_nothing_left(driver)


def check_nothing_left(driver: Driver) -> None:
    home = driver.path / "home"
    left = [path for path in home.rglob(".*") if re.search(r"\.\d+-[0-9a-f]{8}|\.import-", path.name)]
    assert left == []
    sockets = sorted(path.name for path in (driver.path / "wherry").rglob("*.sock"))
    assert sockets == (["control.sock", "docker.sock", "qmp.sock", "serial.sock"] if ours(driver) else [])


@pytest.fixture
def rounds() -> Iterator[list[Round]]:
    played: list[Round] = []
    yield played
    print(f"\nWHERRY_SEED={SEED}, {len(played)} rounds")
    for one in played:
        print(one.line())
    done = sorted(one.recovery for one in played if one.recovery)
    if done:
        records = sum(len(one.acknowledged) for one in played)
        print(f"{records} records acknowledged; up again: median {done[len(done) // 2]:.1f} s, slowest {done[-1]:.1f} s")


def test_kill_at_any_moment(driver: Driver, rounds: list[Round]) -> None:
    dice = random.Random(SEED)
    kinds = list(KINDS) * (ROUNDS // len(KINDS) + 1) if len(FEW) < ROUNDS else list(FEW)
    dice.shuffle(kinds)
    driver.up()
    start_seconds = driver.status()["timeline"][-1][1]
    acknowledged: list[str] = []
    for number, (victim, during) in enumerate(kinds[:ROUNDS], 1):
        now = Round(number, victim, during)
        rounds.append(now)
        print(f"round {number}: {victim} {during}", flush=True)
        play(driver, now, dice, start_seconds)
        acknowledged += now.acknowledged
        driver.ssh("docker ps -aq | xargs -r docker rm -f")
        check(driver, acknowledged)
    done = driver.wherry("stop", timeout=180)
    assert done.returncode == 0, done.stderr.decode()
    assert driver.processes() == []
    check_nothing_left(driver)


def test_the_writer_really_flushes(machine: Driver) -> None:
    """What the records above rest on: each costs the data disk a flush (16th field of the kernel's block/stat.rst)."""
    flushes = "for d in /sys/block/vd*; do grep -q wherry-data $d/serial && awk '{print $16}' $d/stat; done"
    before = int(machine.ssh(flushes))
    write = "echo $n | dd of=/data/log oflag=append conv=notrunc,fsync 2>/dev/null || exit 1"
    script = f"for n in 1 2 3 4 5 6 7 8 9 10; do {write}; done"
    machine.docker("run", "--rm", "-v", "flushed:/data", "wherry.internal/hello", "sh", "-c", script)
    assert int(machine.ssh(flushes)) - before >= 10
    assert (
        machine.docker("run", "--rm", "-v", "flushed:/data", "wherry.internal/hello", "wc", "-l", "/data/log").split()[0]
        == "10"
    )
