"""One QEMU process: started cut loose from the terminal, watched, ended by force when nothing gentler helped."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

from launcher import host, proc
from launcher.errors import LaunchFailed

log_keeper = logging.getLogger("wherry.keeper")


class QemuProcess:
    """A QEMU that this process started."""

    def __init__(self, child: proc.Process, argv: Sequence[str], log: Path) -> None:
        self._child = child
        self.argv = list(argv)
        self.log = log
        self.pid = child.pid
        self.stamp = host.current().process_stamp(child.pid) or ""  # empty: it has ended already; poll() tells

    @classmethod
    def start(
        cls,
        program: Path,
        argv: Sequence[str],
        *,
        cwd: Path,
        log: Path,
        pass_fds: Sequence[int] = (),
        lock_fd: int | None = None,
        stdio: bool = False,
    ) -> Self:
        """Start QEMU in `cwd`; what it prints goes to `log`, which is emptied.

        `lock_fd` is inherited on purpose: the lock is taken for as long as this QEMU lives, whoever else ends. With `stdio` the
        standard streams are pipes for the monitor. Raises MissingOnHost when the program is not there, or not started.
        """
        words = [os.fspath(program), *argv]
        log_keeper.info("+ %s", shlex.join(words))
        # Windows, where the streams are pipes, hands over no descriptors.
        handed = () if stdio else (*pass_fds, *(() if lock_fd is None else (lock_fd,)))
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            child = proc.spawn(
                words,
                cwd=cwd,
                stdin=proc.PIPE if stdio else proc.DEVNULL,
                stdout=proc.PIPE if stdio else descriptor,
                stderr=descriptor,
                pass_fds=handed,
                detach=host.current().detach_options(),
                tied=host.current().tied_options(),
            )
        finally:
            os.close(descriptor)
        return cls(child, words, log)

    @property
    def stdio(self) -> tuple[IO[bytes], IO[bytes]]:
        """QEMU's output and input; only after `start(stdio=True)`."""
        if self._child.stdout is None or self._child.stdin is None:
            raise RuntimeError("this QEMU was started without stdio")
        return self._child.stdout, self._child.stdin

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs. 0 proves nothing: a guest's panic ends in 0 as well."""
        return self._child.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, or None when it still runs after `timeout` seconds."""
        try:
            return self._child.wait(timeout)
        except proc.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Ask QEMU to end, which flushes the disk; on Windows this is `kill`."""
        self._child.terminate()

    def kill(self) -> None:
        self._child.kill()

    def tail(self, lines: int = 20) -> str:
        """The last words of the log."""
        try:
            text = self.log.read_bytes()[-64 << 10 :].decode(errors="replace")
        except OSError as error:
            return f"({self.log}: {error})"
        return "\n".join(text.splitlines()[-lines:])

    def failure(self, what: str = "QEMU ended before the machine was up") -> LaunchFailed:
        """The error for a start that came to nothing: exit code and the log's tail. The command is in the keeper's log."""
        code = self.poll()
        ended = "it still runs" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
        return LaunchFailed(f"{what} ({ended}).", hint="wherry logs qemu", detail=self.tail() or None)
