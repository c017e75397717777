"""The engine's containers without an engine: as much of its API as published ports need, over HTTP on a unix socket."""

from __future__ import annotations

import contextlib
import copy
import http.server
import itertools
import json
import queue
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

NO_SWARM = 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm.'


class Dockerd(socketserver.ThreadingUnixStreamServer):
    """`containers`: what GET /containers/ID/json answers, by id; names work too. `fails`: starts are refused. `refuses`: status
    and message that the GETs of a path are answered. `before_answers` is called with the path of each GET when its answer is
    made, and not sent yet."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.path = path
        self.containers: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.services: list[dict[str, Any]] = []
        self.fails = False
        self.refuses: dict[str, tuple[int, str]] = {}
        self.before_answers: Callable[[str], None] = lambda _path: None
        self.calls: list[str] = []
        self.numbers = itertools.count(1)  # of containers; their creators come at once
        self.listeners: list[queue.SimpleQueue[dict[str, Any] | None]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go as they like."""

    def find(self, reference: str) -> dict[str, Any] | None:
        return next((one for one in self.containers.values() if reference in (one["Id"], one["Name"].lstrip("/"))), None)

    def add(self, identity: str, bindings: dict[str, Any], **settings: Any) -> dict[str, Any]:
        self.containers[identity] = made = {
            "Id": identity,
            "Name": f"/name-{identity}",
            "State": {"Running": False, "Status": "created"},
            "Config": {},
            "HostConfig": {"NetworkMode": "bridge", "PortBindings": bindings, **settings},
            "NetworkSettings": {"Ports": {}},
        }
        return made

    def set_running(self, identity: str, running: bool) -> None:
        one = self.containers[identity]
        one["State"] = {"Running": running, "Status": "running" if running else "exited"}
        one["NetworkSettings"]["Ports"] = {
            key: [
                {"HostIp": entry.get("HostIp") or "0.0.0.0", "HostPort": str(entry.get("HostPort")).partition("-")[0]}
                for entry in entries
            ]
            for key, entries in (one["HostConfig"].get("PortBindings") or {}).items()
            if running
        }
        self.tell("start" if running else "die", identity)

    def remove(self, identity: str) -> None:
        del self.containers[identity]
        self.tell("destroy", identity)

    def tell(self, action: str, identity: str, kind: str = "container", **attributes: str) -> None:
        for listener in list(self.listeners):
            listener.put({"Type": kind, "Action": action, "Actor": {"ID": identity, "Attributes": attributes}})

    def end_events(self) -> None:
        for listener in list(self.listeners):
            listener.put(None)

    def running(self) -> list[dict[str, Any]]:
        return [
            {
                "Id": one["Id"],
                "State": "running" if one["State"]["Running"] else "exited",
                "Ports": [
                    {"IP": entry["HostIp"], "PublicPort": int(entry["HostPort"]), "Type": key.partition("/")[2]}
                    for key, entries in one["NetworkSettings"]["Ports"].items()
                    for entry in entries
                ],
            }
            for one in self.containers.values()
        ]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Dockerd  # type: ignore[assignment]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def _say(self, status: int, value: Any = None) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        path = re.sub(r"^/v[0-9.]+/+", "/", urlsplit(self.path).path)
        self.server.calls.append(f"GET {path}")
        if path == "/events":
            self._events()
            return
        status, answer = self._answer(path)
        self.server.before_answers(path)
        self._say(status, answer)

    def _answer(self, path: str) -> tuple[int, Any]:
        if path in self.server.refuses:
            status, message = self.server.refuses[path]
            return status, {"message": message}
        if path == "/services":
            return (200, self.server.services) if self.server.services else (503, {"message": NO_SWARM})
        if path == "/containers/json":
            return 200, self.server.running()
        if path.startswith("/images/"):
            found = self.server.images.get(path.removeprefix("/images/").removesuffix("/json"))
            return 200 if found else 404, found or {"message": "no such image"}
        found = self.server.find(unquote(path.split("/")[2]))
        return 200 if found else 404, copy.deepcopy(found) or {"message": "no such container"}

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        mine: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.server.listeners.append(mine)
        while (event := mine.get()) is not None:
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.server.listeners.remove(mine)
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def do_POST(self) -> None:
        path = re.sub(r"^/v[0-9.]+/+", "/", urlsplit(self.path).path)
        self.server.calls.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/containers/create":
            self._create(json.loads(body))
            return
        found = self.server.find(path.split("/")[2])
        if found is None:
            self._say(404, {"message": "no such container"})
        elif self.server.fails:
            self._say(500, {"message": "the engine will not"})
        elif path.endswith("/start") and found["State"]["Running"]:
            self._say(304)
        else:
            self.server.set_running(found["Id"], True)
            self._say(204)

    def _create(self, wanted: dict[str, Any]) -> None:
        if self.server.fails:
            self._say(404, {"message": "no such image"})
            return
        identity = f"{next(self.server.numbers):064x}"
        self.server.add(identity, {}, **wanted.get("HostConfig") or {})
        self._say(201, {"Id": identity})

    def do_DELETE(self) -> None:
        url = urlsplit(self.path)
        self.server.calls.append(f"DELETE {url.path}")
        found = self.server.containers[url.path.split("/")[2]]
        if found["State"]["Running"] and "force=1" not in url.query:
            self._say(409, {"message": "it is running"})
            return
        self.server.remove(found["Id"])
        self._say(204)


@contextlib.contextmanager
def dockerd(path: Path) -> Iterator[Dockerd]:
    made = Dockerd(path)
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        made.end_events()
        made.shutdown()
        thread.join()
        made.socket.shutdown(socket.SHUT_RDWR)
        made.socket.close()
