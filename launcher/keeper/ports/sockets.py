"""Listening sockets of this computer, and why one cannot be had: who has the port, or what the system wants."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import random
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import psutil

from launcher import host
from launcher.errors import WherryError
from launcher.keeper.ports.bindings import CHOSEN_FROM, Binding

log = logging.getLogger("wherry.ports")

BACKLOG: Final = 1024
LOCAL: Final = "127.0.0.1"
_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_TRIES: Final = 400
_IN_USE: Final = (errno.EADDRINUSE, 10048)
_DENIED: Final = (errno.EACCES, errno.EPERM, 10013)
_TOO_MANY: Final = (errno.EMFILE, errno.ENFILE, 10024)
NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, 10049, 10047)
_MORE_FILES: Final = "Publish fewer ports, or raise the limit (ulimit -Hn shows it) and run: wherry restart"


class Taken(WherryError):
    """A port of this computer that cannot be had. `owner` says in a few words who has it, empty when nobody knows.
    `in_use`: the message without the owner, empty when it cannot be had for another reason. `at_the_limit`: no other port
    could be had either."""

    kind = "port-taken"

    def __init__(self, message: str, *, hint: str, owner: str = "", in_use: str = "", at_the_limit: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.owner = owner
        self.in_use = in_use
        self.at_the_limit = at_the_limit


def addresses(binding: Binding, published: Iterable[str]) -> list[str]:
    """The addresses of this computer on which the binding is reached; without one of its own those of publish_address."""
    return [binding.address] if binding.address else list(published)


def name(proto: str, address: str, port: int) -> str:
    """As docker writes it: 127.0.0.1:80/tcp, [::1]:80/tcp."""
    return f"{f'[{address}]' if ':' in address else address}:{port}/{proto}"


class Bound(NamedTuple):
    """A bound socket. `only_local`: peers from elsewhere are to be dropped, the system made us take the wildcard address."""

    socket: socket.socket
    only_local: bool


def bind(binding: Binding, published: Iterable[str], *, reserve: bool = False) -> list[Bound]:
    """Sockets on all addresses of the binding; all or none. Of TCP they listen, unless `reserve`: whoever connects waits.

    Raises Taken.
    """
    sockets: list[Bound] = []
    try:
        for address in addresses(binding, published):
            try:
                sockets.append(_bound(binding.proto, address, binding.port, reserve=reserve))
            except ValueError:  # which the engine takes for no address at all
                shown = name(binding.proto, address, binding.port)
                raise Taken(f"{shown} cannot be published: that is no IP address", hint="For example 127.0.0.1.") from None
            except OSError as error:
                # `localhost` is both, but a computer may have no IPv6.
                if not (error.errno in NO_SUCH_ADDRESS and not binding.address and ":" in address):
                    raise _explained(error, binding, address) from error
    except WherryError:
        close(sockets)
        raise
    return sockets


def close(sockets: Iterable[Bound]) -> None:
    for one in sockets:
        one.socket.close()


def choose(
    proto: str, address: str, published: Iterable[str], avoid: set[int], among: Iterable[int] = ()
) -> tuple[int, list[Bound]] | None:
    """A port that is free here and not in `avoid`; of `among` in their order, else any. None when there is none.

    The sockets are bound and do not listen yet: nobody else can have the port, and who connects is refused.
    """
    for port in list(among) or random.sample(CHOSEN_FROM, _TRIES):
        if port in avoid:
            continue
        try:
            return port, bind(Binding(proto, address, port), published, reserve=True)
        except Taken as error:
            if error.at_the_limit:
                raise
    return None


def listen(binding: Binding, reserved: Iterable[Bound]) -> None:
    """Have reserved sockets do what those of `bind` do. Raises Taken, and closes them."""
    reserved = list(reserved)
    try:
        for one in reserved:
            if one.socket.type == socket.SOCK_STREAM:
                host.current().listen_reserved(one.socket, BACKLOG)
    except OSError as error:
        close(reserved)
        raise _explained(error, binding, binding.address or LOCAL) from error


def _bound(proto: str, address: str, port: int, *, reserve: bool = False) -> Bound:
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    made = socket.socket(family, _KINDS[proto])
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reserve:
            host.current().reserve(made, address, port)
        else:
            host.current().bind_exclusively(made, address, port)
            if proto == "tcp":
                made.listen(BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    wanted_local = ipaddress.ip_address(address).is_loopback
    return Bound(made, wanted_local and not ipaddress.ip_address(made.getsockname()[0]).is_loopback)


def _explained(error: OSError, binding: Binding, address: str) -> Taken:
    shown = name(binding.proto, address, binding.port)
    if error.errno in NO_SUCH_ADDRESS:
        return Taken(f"{shown} cannot be published: this computer has no address {address}", hint="Leave the address out.")
    if error.errno in _TOO_MANY:
        why = "too many files and connections are open"
        return Taken(f"port {shown} cannot be opened: {why}", hint=_MORE_FILES, at_the_limit=True)
    another = _another(binding, address)
    if error.errno in _DENIED:
        why, remedy = host.current().port_denied(binding.proto, binding.port)
        return Taken(f"port {shown} cannot be opened: {why}", hint=f"{remedy}, or publish another: {another}", owner=why)
    if error.errno in _IN_USE:
        owner = owner_of(binding.proto, address, binding.port)
        said, by = f"port {shown} is in use", f" by {owner}" if owner else ""
        return Taken(f"{said}{by}", hint=f"Free it, or publish another: {another}", owner=owner, in_use=said)
    return Taken(f"port {shown} cannot be opened: {error.strerror or error}", hint=f"Publish another: {another}")


def _another(binding: Binding, address: str) -> str:
    """What may be written in its place, with a free port above it."""
    suffix = "" if binding.proto == "tcp" else f"/{binding.proto}"
    above = range(max(binding.port + 1, 1024), min(binding.port + 1000, 65536))
    above = range(binding.port + 8000, min(binding.port + 9000, 65536)) if binding.port < 1024 else above
    for port in above:
        try:
            close([_bound(binding.proto, address, port)])
        except OSError:
            continue
        return f"-p {port}:{binding.inside or binding.target[1]}{suffix}"
    return "-p HOST:CONTAINER"


def owner_of(proto: str, address: str, port: int) -> str:
    """Who has a port: "postgres (pid 812)"; empty where the system does not tell it to us."""
    for entry, pid in _connections(proto):
        local = entry.laddr
        if not local or local.port != port or (proto == "tcp" and entry.status != psutil.CONN_LISTEN):
            continue
        if pid and (local.ip == address or local.ip in ("0.0.0.0", "::") or address in ("0.0.0.0", "::")):  # noqa: S104
            return _process(pid)
    return ""


def _connections(proto: str) -> Iterator[tuple[Any, int | None]]:
    """Each with the process that has it, as far as they can be seen."""
    try:
        yield from ((entry, entry.pid) for entry in psutil.net_connections(proto))
        return
    except (psutil.Error, OSError):  # macOS tells all of them to root only, but anybody those of each process of his own
        pass
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            asked = getattr(process, "net_connections" if hasattr(process, "net_connections") else "connections")  # psutil 5
            yield from ((entry, process.pid) for entry in asked(proto))


def _process(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        words = process.cmdline()
        if "launcher.keeper" in words:
            return f"wherry's machine {words[words.index('launcher.keeper') + 1]} (pid {pid})"
        return f"{process.name()} (pid {pid})"
    except (psutil.Error, IndexError):
        return f"pid {pid}"
