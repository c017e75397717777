"""The control socket: who connects gets a thread, one request, one result."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import psutil

from launcher import __version__, control
from launcher.control import Framed
from launcher.errors import NotRunning, Usage, WherryError, from_json
from launcher.keeper import access, engine, sessions, told
from launcher.keeper.listener import Listener
from launcher.keeper.proxy.server import GUEST
from launcher.keeper.slots import StartSlots
from launcher.keeper.storage import Storage
from launcher.keeper.supervisor import Supervisor

log = logging.getLogger("wherry.keeper.server")

_LOOKS: Final = ("status", "handover", "watch")  # may be cut at any time: the client sees it, and asks the next keeper
_LAST_WORDS: Final = 5.0  # seconds for the answer to who waits for the end
_MEMORY_TOLD_WITHIN: Final = 2.0  # seconds; when a command of `docker exec` was killed by hand, no container ends
_RELAY_SECONDS: Final = 5.0  # a client that comes with the first connection waits so long for the channels


def _uses(request: dict[str, Any]) -> bool:
    """Whether the machine is used by it: `status` asks for the shares, too."""
    return request.get("verb") != "shares" or request.get("reload") is True


class Shared(Protocol):
    """The shared folders: each as the request `shares` answers, and machine.toml's put in force."""

    def listing(self, *, count: bool = False) -> list[dict[str, Any]]: ...
    def reload(self) -> None: ...


class Server:
    """Serves one supervisor. `start` listens before it returns.

    `others`: what else a handover would cut short. `relayed`: whether clients in the guest have a relay to us, asked for with
    the seconds to wait for that to be known. `learn_agent` hears of the ssh agent of who asks for the status, which every
    command does.
    """

    def __init__(
        self,
        keeper: Supervisor,
        others: Callable[[], int] = lambda: 0,
        ports: Callable[[], list[dict[str, Any]]] = list,
        change_port: Callable[[str, str], None] = lambda _action, _forward: None,
        relayed: Callable[[float], bool] = lambda _: False,
        learn_agent: Callable[[str | None], None] = lambda _: None,
        shares: Shared | None = None,
        cost: Callable[[], dict[str, Any] | None] = lambda: None,
        oom: Callable[..., list[dict[str, Any]]] = lambda **_: [],
    ) -> None:
        self._keeper = keeper
        self._ports = ports
        self._change_port = change_port
        self._relayed = relayed
        self._learn_agent = learn_agent
        self._shares = shares
        self._cost = cost
        self._oom = oom
        self.storage = Storage(keeper)
        self._listener = Listener(keeper.directory.control_socket, lambda stream: self._serve(Framed(stream)), "control")
        # As many clients may start at once in the guest as it has CPUs, two at least: one that waits for the engine must not
        # keep all others out.
        self._slots = StartSlots(max(2, keeper.config.cpus))
        self._started = psutil.Process().create_time()
        self._waiting: set[threading.Thread] = set()
        self._others = others
        self._working = 0  # requests that a handover would cut short
        self._using = 0  # of these: that use the machine
        self._used = 0  # and how many there were
        self._at_disk = 0  # commands that work on the disk
        self._leaving = False
        self._counting = threading.Lock()  # for the five above

    def uses(self) -> tuple[int, int]:
        """Requests under way that use the machine, and how many there ever were."""
        with self._counting:
            return self._using, self._used

    def hindrance(self) -> str:
        """Why the machine cannot be suspended now: QEMU saves no machine whose disk it copies."""
        return "a command works on its disk" if self._at_disk else ""

    def start(self) -> None:
        """Raises WherryError when the socket's path is too long for the system."""
        self._listener.start()

    def close(self) -> None:
        """Nobody can connect any more; who waits for the end of the machine still hears of it."""
        ours = self._listener.in_place  # where our folder was deleted and made anew, a newer keeper listens there
        self._listener.close()
        if ours:
            with contextlib.suppress(OSError):
                self._keeper.directory.control_socket.parent.rmdir()  # refused as long as QEMU's sockets are in it
        for waiting in list(self._waiting):
            waiting.join(_LAST_WORDS)

    def _serve(self, framed: Framed) -> None:
        try:
            frame = framed.receive()
            if frame is None:
                return
            request: dict[str, Any] = json.loads(frame[1])
            control.check_request(request)
            if request.get("verb") in _LOOKS:
                self._answer(framed, request)
                return
            with self._work(used=_uses(request)):
                self._answer(framed, request)
        except WherryError as error:
            self._send(framed, {"ok": False, "error": error.to_json()})
        except OSError as error:
            log.info("a request ended early: %s", error)
        except Exception as error:
            log.exception("a request failed")
            self._send(framed, {"ok": False, "error": WherryError(f"the keeper failed: {error!r}").to_json()})
        finally:
            framed.close()
            self._waiting.discard(threading.current_thread())

    @contextlib.contextmanager
    def _work(self, *, used: bool) -> Iterator[None]:
        """Keeps a handover waiting. Raises NotRunning when one is under way: nothing was begun, the next keeper does it."""
        with self._counting:
            if self._leaving:
                raise NotRunning("the machine's keeper is being replaced.", hint="Try again.")
            self._working += 1
            self._using += used
            self._used += used
        try:
            yield
        finally:
            with self._counting:
                self._working -= 1
                self._using -= used

    @staticmethod
    def _send(framed: Framed, value: dict[str, Any]) -> None:
        try:
            framed.send_json(value)
        except OSError as error:
            log.info("nobody heard the answer: %s", error)

    def _answer(self, framed: Framed, request: dict[str, Any]) -> None:
        verb = request.get("verb")
        if verb in ("watch", "stop", "suspend"):
            self._waiting.add(threading.current_thread())
        if verb == "exec":
            self._exec(framed, request)
        elif verb == "watch":
            framed.send_json({"ok": True, "data": told.start(self._keeper, framed.send_json)})
        elif verb == "stop":
            framed.send_json(
                {"ok": True, "data": told.stop(self._keeper, framed.send_json, force=request.get("force") is True)}
            )
        elif verb == "wake":
            framed.send_json({"ok": True, "data": {"woken": self._keeper.nap.wake()}})
        elif verb == "suspend":
            framed.send_json({"ok": True, "data": told.suspend(self._keeper, framed.send_json)})
        elif verb == "status":
            agent = request.get("ssh_agent")
            self._learn_agent(agent if isinstance(agent, str) else None)
            framed.send_json({"ok": True, "data": {**self._keeper.state.to_json(), "keeper": self._about(request)}})
        elif verb == "handover":
            self._hand_over(framed, request)
        elif verb == "port":
            self._change_port(str(request.get("action")), str(request.get("forward")))
            framed.send_json({"ok": True, "data": None})
        elif verb == "apply":
            framed.send_json({"ok": True, "data": self._apply()})
        elif verb == "shares":
            framed.send_json({"ok": True, "data": self._share(reload=request.get("reload") is True)})
        elif verb == "disk":
            framed.send_json({"ok": True, "data": self._disk(framed, request)})
        elif verb == "engine":
            framed.send_json({"ok": True, "data": self._engine(request)})
        else:
            raise Usage(f"the keeper does not know {verb!r}.")

    @property
    def _sessions(self) -> int:
        return self._working + self._others()

    def _about(self, request: dict[str, Any]) -> dict[str, Any]:
        since = request.get("oom_since")
        return {
            "pid": os.getpid(),
            "start": self._started,
            "wherry": __version__,
            "protocol": control.PROTOCOL,
            "sessions": self._sessions,
            "uptime": self._keeper.uptime,
            "health": self._keeper.health.to_json(),
            "ports": self._ports(),
            "shares": self._shares.listing() if self._shares is not None else [],
            "disk": self._keeper.healer.clock.disk,
            "cost": self._cost() if request.get("cost") is True else None,
            "oom": self._oom(since=since, within=_MEMORY_TOLD_WITHIN) if isinstance(since, float) else self._oom(),
        }

    def _hand_over(self, framed: Framed, request: dict[str, Any]) -> None:
        """Let a newer keeper take the machine. The answer is out before this process begins to end."""
        with self._counting:
            released = not self._sessions and not self._leaving and self._keeper.may_leave
            self._leaving = self._leaving or released
        try:
            framed.send_json({"ok": True, "data": {"released": released, "sessions": self._sessions}})
        except OSError:  # who asked is gone: nobody would take over
            with self._counting:
                self._leaving = self._leaving and not released
            raise
        if released:
            log.info("wherry %s takes the machine over", request.get("wherry"))
            self._keeper.leave()

    def _ready(self) -> None:
        """Raises what keeps a command from the guest."""
        self._keeper.wait_ready()

    def _exec(self, framed: Framed, request: dict[str, Any]) -> None:
        self._ready()
        if request.get("ensure_hello") is True:
            code, _, words = self._keeper.connection().run(["/usr/lib/wherry/engine", "ensure-hello"], timeout=120)
            if code != 0:
                raise from_json(
                    {"kind": "engine", "message": f"the hello image is missing: {words.decode(errors='replace').strip()}"}
                )
        self._lead_to_us(request)
        sessions.serve_exec(framed, request, self._keeper, self._slots)

    def _apply(self) -> dict[str, Any]:
        """Put in force what machine.toml says now, of the settings that take no restart."""
        self._ready()
        config = self._keeper.directory.read_config()
        self._keeper.config = self._keeper.config.changed(
            idle_suspend=config.idle_suspend, idle_suspend_containers=config.idle_suspend_containers
        )
        access.apply(self._keeper.connection(), config)
        return {}

    def _share(self, *, reload: bool) -> dict[str, Any]:
        """The shared folders; with `reload` those that machine.toml names now."""
        if self._shares is None:
            return {"shares": []}
        if reload:
            self._ready()
            self._shares.reload()
        return {"shares": self._shares.listing(count=True)}

    def _disk(self, framed: Framed, request: dict[str, Any]) -> dict[str, Any]:
        self._ready()

        def tell(done: int, total: int) -> None:
            framed.send_json({"event": "progress", "name": request["action"], "done": done, "total": total})

        with self._counting:
            self._at_disk += 1  # one at a time gets to work
        try:
            return self.storage.do(request, tell)
        finally:
            with self._counting:
                self._at_disk -= 1

    def _lead_to_us(self, request: dict[str, Any]) -> None:
        """Docker clients in the guest, in a shell too, go through the same proxy as those of this computer."""
        env = request.get("env")
        if isinstance(env, dict) and self._relayed(_RELAY_SECONDS if request.get("client") is True else 0):
            env.setdefault("DOCKER_HOST", f"unix://{GUEST}")

    def _engine(self, request: dict[str, Any]) -> dict[str, Any]:
        self._ready()
        method, path = request.get("method"), request.get("path")
        if not isinstance(method, str) or not isinstance(path, str) or not path.startswith("/"):
            raise Usage("an engine call needs a method and a path.")
        status, body = engine.request(self._keeper.connection(), method, path)
        return {"status": status, "body": body.decode("utf-8", "replace")}
