"""In-memory stand-ins: a keeper whose machine is a folder of this computer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher import __version__, control, host, sharing, store
from launcher.config import GIB, MachineConfig
from launcher.control import Framed
from launcher.ssh.keys import make_keys

CONFIG = MachineConfig(arch="amd64", cpus=1, memory=GIB, iso="a" * 64)
WORK = "/var/lib/wherry/work"
_PROGRAM = Path(__file__).parent.parent / "iso/overlay/usr/lib/wherry/work"

# What a fake docker client does: request, folder it runs in -> exit code, stdout, stderr.
Client = Callable[[dict[str, Any], Path], tuple[int, bytes, bytes]]


def make_machine(name: str = "default") -> store.MachineDir:
    directory = store.create(name, CONFIG, make_keys)
    directory.data_disk.touch()
    return directory


def make_iso(sha256: str = CONFIG.iso, **manifest: Any) -> Path:
    """An ISO in the cache, as far as its manifest and its size tell; its folder."""
    folder = store.cache_dir() / "iso" / sha256
    folder.mkdir(parents=True)
    (folder / "wherry.iso").write_bytes(b"x" * 1000)
    told = {"format": 1, "architecture": "amd64", "version": "0.1.0", "sha256": sha256, "size": 1000, **manifest}
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


class FakeKeeper:
    """Serves the control socket of a machine. `docker` is played by `client`; every other command runs here, with the machine's
    work folder in `guest`; so the image's own `work` script does the copies."""

    def __init__(self, name: str, guest: Path) -> None:
        self.directory = make_machine(name)
        self.guest = guest
        self.requests: list[dict[str, Any]] = []
        self.containers: list[dict[str, Any]] = []
        self.info: dict[str, Any] = {}  # the engine's answer to /info
        self.missing: set[str] = set()  # images that the engine does not have
        self.events: list[dict[str, Any]] = []
        self.status = "running"
        self.paused = ""
        self.wherry = __version__
        self.sessions = 0  # what keeps it from a handover
        self.ends = False  # when it is stopped
        self.disk: tuple[int, int] | None = None  # the guest's: bytes in all, free
        self.oom: list[dict[str, Any]] = []
        self.cost: dict[str, Any] | None = None
        self.storage: dict[str, dict[str, Any]] = {}  # answers to `disk`, by action
        self.shares: dict[str, Any] = {}  # how all of them are, beside served
        self.client: Client = lambda request, folder: (0, b"", b"")
        self._threads: list[threading.Thread] = []

    @property
    def docker(self) -> list[list[str]]:
        """The words of every docker client, in order."""
        return [request["argv"][1:] for request in self.requests if request.get("argv", [""])[0] == "docker"]

    @property
    def copies(self) -> list[str]:
        """What is left in the machine's work folder."""
        return sorted(os.listdir(self.guest))

    def start(self) -> None:
        self.guest.mkdir()
        self.directory.run_dir.mkdir(parents=True)
        self._listening = host.current().endpoints().listen(self.directory.control_socket, 128)
        self._lock = host.current().lock(self.directory.lock_file, wait=False)
        self._begin(self._accept)

    def let_go(self) -> None:
        """As at the end of a keeper: nobody can connect any more, the lock is free."""
        self._listening.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def close(self) -> None:
        self.let_go()
        for thread in list(self._threads):
            thread.join(10)
        shutil.rmtree(self.directory.run_dir, ignore_errors=True)

    def _begin(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)  # only then: `close` may be waiting for all of them

    def _accept(self) -> None:
        while True:
            try:
                stream = self._listening.accept()
            except OSError:
                return
            self._begin(self._serve, Framed(stream))

    def _serve(self, framed: Framed) -> None:
        try:
            frame = framed.receive()
            if frame is None:
                return
            request = json.loads(frame[1])
            self.requests.append(request)
            self._answer(framed, request)
        except OSError:
            pass
        finally:
            framed.close()

    def _answer(self, framed: Framed, request: dict[str, Any]) -> None:
        verb = request["verb"]
        if verb == "exec":
            self._exec(framed, request)
            return
        if (verb == "handover" and not self.sessions) or (verb == "stop" and self.ends):
            self.let_go()
        for event in self.events if verb == "watch" else []:
            framed.send_json(event)
        data: Any = {
            "status": {
                "version": 1,
                "status": self.status,
                "paused": self.paused,
                "keeper_pid": os.getpid(),
                "engine_version": "28.5.2",
                "accel": "kvm",
                "keeper": {
                    "pid": os.getpid(),
                    "wherry": self.wherry,
                    "protocol": control.PROTOCOL,
                    "sessions": self.sessions,
                    "uptime": 3.2 * 3600,
                    "disk": self.disk,
                    "oom": self.oom,
                    "cost": self.cost if request.get("cost") else None,
                },
            },
            "watch": {"seconds": 6.2, "accel": "kvm", "engine": "28.5.2", "notes": [], "timeline": [["ready", 6.2]]},
            "engine": self._engine(str(request.get("path"))),
            "stop": {"forced": False},
            "apply": {},
            "disk": self.storage.get(request.get("action", ""), {}),
            "shares": {"shares": self._shares()},
            "handover": {"released": not self.sessions, "sessions": self.sessions},
        }[verb]
        framed.send_json({"ok": True, "data": data})

    def _engine(self, path: str) -> dict[str, Any]:
        image = path.removeprefix("/images/").removesuffix("/json")
        body = self.info if path == "/info" else self.containers
        return {"status": 404 if image in self.missing else 200, "body": json.dumps(body)}

    def _shares(self) -> list[dict[str, Any]]:
        state = {"state": "served", "detail": "", "hidden": 9, **self.shares}
        found = sharing.shares_of(self.directory.read_config())
        return [{**share._asdict(), **state} for share in found]

    def _exec(self, framed: Framed, request: dict[str, Any]) -> None:
        argv = request["argv"]
        if argv[0] == "docker":
            code, out, err = self.client(request, Path(self._local(request["cwd"] or "/")))
        else:
            code, out, err = self._run(framed, [self._local(word) for word in argv])
        for kind, data in ((control.STDOUT, out), (control.STDERR, err)):
            for start in range(0, len(data), control.CHUNK):
                framed.send(kind, data[start : start + control.CHUNK])
        framed.send_json({"code": code}, control.EXIT)

    def _local(self, word: str) -> str:
        return str(_PROGRAM) if word == "/usr/lib/wherry/work" else word.replace(WORK, str(self.guest))

    def _run(self, framed: Framed, argv: list[str]) -> tuple[int, bytes, bytes]:
        environment = {**os.environ, "WHERRY_WORK": str(self.guest)}
        with subprocess.Popen(argv, stdin=-1, stdout=-1, stderr=-1, env=environment) as process:
            assert process.stdin is not None
            while (frame := framed.receive()) is not None and frame[0] != control.STDIN_END:
                if frame[0] == control.STDIN:
                    process.stdin.write(frame[1])
                    framed.send(control.CREDIT, len(frame[1]).to_bytes(4, "big"))
            out, err = process.communicate()
            return process.returncode, out, err
