"""The proxied verbs: run, docker, compose, ssh. No click here: this path must start in tens of milliseconds."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from launcher.cli import stdio
from launcher.cli.run import HELLO_IMAGE, docker_words
from launcher.cli.words import Leading
from launcher.console import Console, is_terminal
from launcher.errors import Interrupted, Usage, WherryError, of_system

# docker run's own code for "the tool failed", and ssh's.
LOST: Final = {"run": 125, "docker": 125, "compose": 125, "ssh": 255}

# What belongs to this computer and would mislead a program in the machine.
# SSL_CERT_* and BUILDX_CONFIG name files of this computer, and Go programs, which all docker clients are, fail without them.
_BLOCKED: Final = frozenset(
    {"PATH", "HOME", "SHELL", "TMPDIR", "PWD", "OLDPWD", "_", "SHLVL", "TERM", "SSL_CERT_FILE", "SSL_CERT_DIR", "BUILDX_CONFIG"}
)
# bash's exported functions and Windows' "=C:" are no names that a program could want.
_BLOCKED_STARTS: Final = ("LD_", "DYLD_", "SSH_", "DOCKER_", "XDG_", "BASH_FUNC_", "=")

# A word that is a program's name and cannot be a line for the shell.
_PLAIN: Final = re.compile(r"[\w./+-]+")

_KILLED: Final = 137  # 128 + SIGKILL
# Seconds that a container ended before its client: that may have removed it, which takes a while on a busy machine.
_ENDED_WITHIN: Final = 15.0

_SHORT_V: Final = re.compile(r"-[A-Za-z]*v")  # also the last letter of several

_SSH_HELP: Final = """Usage: wherry ssh [COMMAND...]

  A shell in the machine, or COMMAND in it with its exit code. One word is a line for the machine's shell
  (wherry ssh 'ls | wc -l'), several words are taken as they are."""


def main(leading: Leading) -> int:
    """Run a proxied verb; its exit code is the command's own, or the verb's code for "wherry itself failed"."""
    settings = leading.settings
    console = Console(json=False, quiet=settings.quiet, debug=settings.debug)
    if settings.debug:
        import logging

        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(relativeCreated)6d ms %(name)s: %(message)s")
    try:
        # As in App.name: an empty --machine is a mistake, not the default.
        name = (os.environ.get("WHERRY_MACHINE") or "default") if settings.machine is None else settings.machine
        return _dispatch(leading.verb, name, leading.rest, console)
    except KeyboardInterrupt:
        return 130
    except Interrupted as error:
        console.error(error)
        return 130
    except WherryError as error:
        console.error(error)
        return LOST[leading.verb]
    except OSError as error:
        console.error(of_system(error))
        return LOST[leading.verb]


def _dispatch(verb: str, name: str, words: list[str], console: Console) -> int:
    from launcher import host

    machine = Machine(name, console)
    if told := host.current().rewritten_words(words):
        console.warning(told)
    if verb == "ssh":
        return _ssh(machine, words)
    if verb == "run":
        words = docker_words(words, terminal=_both_ends())
    elif verb == "compose":
        words = ["compose", *words]
    return _docker(machine, words)


def _docker(machine: Machine, words: list[str]) -> int:
    from launcher.cli import dockerflags, hostclient
    from launcher.cli.words import scan

    arguments = scan(words, dockerflags.DOCKER).arguments
    verb = arguments[0] if arguments else len(words)
    program = hostclient.select(machine.name, "".join(words[verb : verb + 1]), machine.console)
    if program is not None:
        return machine.become(program, words)
    if words[verb : verb + 1] == ["compose"]:
        from launcher.cli import compose

        return compose.run(machine, words[:verb], words[verb + 1 :])
    if words[verb : verb + 1] and _names_files(words[verb:]):
        from launcher.cli import hostfiles

        if found := hostfiles.handler(words, verb):
            return found[0](machine, words, found[1])
    if words[verb : verb + 1] and words[verb] in ("build", "buildx", "image", "builder"):
        from launcher.cli import build

        return build.run(machine, words, verb)
    return machine.client(["docker", *words])


def _names_files(words: list[str]) -> bool:
    """Whether a file of this computer may be among the words; all other commands are spared the look."""
    command = words[1] if words[0] in ("container", "image") and len(words) > 1 else words[0]
    if command in ("save", "export", "load", "import", "cp"):
        return True
    return command in ("run", "create", "exec") and any(
        "file" in word or "seccomp" in word or word.startswith(("--volume", "--mount")) or _SHORT_V.match(word)
        for word in words
    )


def _ssh(machine: Machine, words: list[str]) -> int:
    if words in (["--help"], ["-h"]):
        print(_SSH_HELP)
        return 0
    if words[:1] == ["--"]:
        words = words[1:]  # as with ssh itself
    if words and words[0].startswith("-"):
        raise Usage(f"ssh takes a command, {words[0]} is none.", hint="wherry ssh --help")
    argv = words or ["sh", "-l"]
    if len(words) == 1 and not _PLAIN.fullmatch(words[0]):
        argv = ["sh", "-c", words[0]]
    tty = _all_ends() or (_both_ends() and not words)
    if not tty and not words:
        _tell_no_terminal(machine.console)
    # As ssh does by default: the guest's shell is not this computer's.
    spoken = {name: value for name, value in os.environ.items() if name == "LANG" or name.startswith("LC_")}
    return machine.command(argv, client=False, create=False, tty=tty, env=spoken)


def _both_ends() -> bool:
    return is_terminal(sys.stdin) and is_terminal(sys.stdout)


def _all_ends() -> bool:
    return _both_ends() and is_terminal(sys.stderr)


def _tell_no_terminal(console: Console) -> None:
    from launcher import host

    if told := host.current().no_terminal():
        console.warning(told)


def environment(own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment, less what belongs to this computer."""
    return {name: value for name, value in own.items() if name not in _BLOCKED and not name.startswith(_BLOCKED_STARTS)}


class Machine:
    """The machine that a proxied command works on; started when the first command needs it."""

    def __init__(self, name: str, console: Console) -> None:
        self.name = name
        self.console = console
        self._control: Path | None = None

    def control(self, *, create: bool = True) -> Path:
        """The control socket of the machine, which runs now."""
        if self._control is None:
            from launcher import running, store

            directory = store.machine(self.name)
            if running.for_us(directory):
                self._control = directory.control_socket
                return self._control
            from launcher import machine

            with self.console.telling(lambda: last_start(self.name)) as reporter:
                self._control = machine.control_path(self.name, reporter, create)
        return self._control

    def client(self, argv: list[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None) -> int:
        """Run the docker client in the machine, on our terminal or pipes."""
        wanted = stdio.wants_terminal(argv)
        tty = _all_ends() or (_both_ends() and wanted)
        if wanted and not tty:
            _tell_no_terminal(self.console)
        hello = HELLO_IMAGE in argv
        stdin = tty or stdio.reads_input(argv)
        began = time.time()
        code = self.command(argv, client=True, create=True, tty=tty, cwd=cwd, env=env, stdin=stdin, ensure_hello=hello)
        if code == _KILLED:
            self._tell_memory(max(began, time.time() - _ENDED_WITHIN))  # what others were killed for is none of it
        return code

    def _tell_memory(self, since: float) -> None:
        """What the machine says of memory: 137 alone tells nobody what to do."""
        from launcher import control

        try:
            killed = control.status(self.control(), oom_since=since)["keeper"].get("oom", [])
        except WherryError:
            return
        for entry in killed:
            if entry["at"] >= since:
                self.console.warning(f"{entry['text']}.   {entry['hint']}")

    def become(self, program: Path, words: list[str]) -> int:
        """Let the docker client of this computer take our place, led to the machine."""
        from launcher import host, store
        from launcher.cli import hostclient

        control = self.control()
        if HELLO_IMAGE in words:
            from launcher.cli import remote

            remote.call(control, ["/usr/lib/wherry/engine", "ensure-hello"]).check("having the hello image")
        for line in hostclient.advice():
            self.console.warning(line)
        address = host.current().endpoints().address(store.machine(self.name).engine_socket)
        return hostclient.become(program, words, address)

    def command(
        self, argv: list[str], *, client: bool, create: bool, tty: bool, stdin: bool = True, ensure_hello: bool = False,
        cwd: str | None = None, env: Mapping[str, str] | None = None,
    ) -> int:  # fmt: skip
        """Run a command in the machine; `create` makes the machine when there is none."""
        control = self.control(create=create)
        from launcher.cli import proxied

        return proxied.run_exec(
            control, argv, env=environment() if env is None else env, cwd=cwd or working_directory(), tty=tty, client=client,
            stdin=stdin, ensure_hello=ensure_hello,
        )  # fmt: skip


def last_start(name: str) -> float | None:
    """How long the machine's last start took, in seconds; None when it is not known, as that of a suspended one: to resume it
    is another thing."""
    from launcher import saved, store

    directory = store.machine(name)
    try:
        timeline = [] if saved.is_suspended(directory) else directory.read_state().timeline
    except WherryError:
        return None
    whole = bool(timeline) and timeline[-1][0] == "ready" and timeline[0][0] != "qemu"  # which was to resume one
    return float(timeline[-1][1]) if whole else None


def working_directory() -> str | None:
    """Where the command is called from, as the machine has it; None when that folder was removed."""
    from launcher import host

    try:
        return host.current().guest_path(os.getcwd())  # noqa: PTH109  no Path on this fast way
    except OSError:
        return None
