"""The keys of machine.toml, once: `config show`, `config --help` and README's table are made from this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from launcher import config
from launcher.config import ACCELS, BadValue, format_size
from launcher.errors import Usage

Kind = Literal[
    "number", "minutes", "size", "accel", "program", "url", "file", "subnet", "access", "address", "switch", "table", "client",
    "paths", "fixed",
]  # fmt: skip


@dataclass(frozen=True)
class Key:
    """One key: its dotted name, what its value is, what it is without being set, and in one line what it does."""

    name: str
    kind: Kind
    default: str  # as one says it; what cpus and memory are without being set depends on the computer
    what: str
    restart: bool = True  # a machine that runs must be started again for it
    later: bool = False  # kept, not used by this release
    changed_by: str = ""  # for what is decided once: the command that changes it all the same


KEYS: Final = (
    Key("cpus", "number", "this computer's", "Number of CPUs."),
    Key("memory", "size", "a quarter of this computer's, 2G at least", "Memory."),
    Key("stop_seconds", "number", "30", "Seconds that containers get to stop when the machine is shut down."),
    Key(
        "idle_suspend",
        "minutes",
        "auto",
        "Minutes without any use after which the machine is suspended; 0 for never, auto: 5 where it is emulated.",
        restart=False,
    ),
    Key(
        "idle_suspend_containers",
        "switch",
        "false",
        "Suspend it while containers run, too, when nobody uses the socket, a port or a share: true, false.",
        restart=False,
    ),
    Key("accel", "accel", "auto", f"Accelerator: {', '.join(ACCELS)}."),
    Key("qemu", "program", "found", "Path of the QEMU to use."),
    Key("publish_address", "address", "127.0.0.1,::1", "Addresses of this computer for ports that name none (-p 80:80)."),
    Key(
        "host_access", "access", "all", "What containers reach of this computer: all, none, or a list of ports.", restart=False
    ),
    Key("ssh_agent", "switch", "false", "Offer this computer's ssh agent to containers: true, false."),
    Key("client", "client", "auto", "Docker client of wherry docker, run, compose: auto, host, guest.", restart=False),
    Key("network.proxy", "url", "none", "Proxy through which the engine and upgrade fetch."),
    Key("network.ca", "file", "none", "Certificates (PEM) that the engine and upgrade trust beside the usual ones."),
    Key("network.subnet", "subnet", "the engine's", "Private network for containers.", restart=False, later=True),
    Key("shares.home", "switch", "true", "Share your home with the machine: true, false.", restart=False),
    Key("shares.folders", "paths", "none", "More folders of this computer: PATH or PATH:ro, with commas.", restart=False),
    Key("shares.hidden", "paths", "none", "Changes to the private places: PATH is one more, -PATH is none.", restart=False),
    Key("shares.events", "switch", "true", "Tell containers of changes made on this computer: true, false.", restart=False),
    Key("shares.virtiofs", "switch", "false", "Linux: serve folders without private places by virtiofsd: true, false."),
    Key("engine.KEY", "table", "see config show", "A key of dockerd's daemon.json; not hosts, data-root, containerd."),
    Key("arch", "fixed", "this computer's", "Architecture.", changed_by="Make another machine: wherry init NAME --arch ARCH"),
    Key("disk", "fixed", "100G", "What the disk may grow to.", changed_by="wherry disk grow SIZE"),
    Key("iso", "fixed", "this release's", "SHA-256 of the ISO that the machine runs.", changed_by="wherry upgrade"),
    Key("version", "fixed", "1", "Version of the file.", changed_by="It is wherry's own."),
)

ENGINE: Final = "engine."

# daemon.json of dockerd 28 (docs.docker.com/reference/cli/dockerd, "Daemon configuration file"). Another key is passed on,
# since an engine may know more; but one that differs by a letter or two is a slip.
ENGINE_KEYS: Final = (
    "allow-direct-routing", "authorization-plugins", "bip", "bip6", "bridge", "builder", "cdi-spec-dirs", "cgroup-parent",
    "containerd-namespace", "containerd-plugins-namespace", "debug", "default-address-pools", "default-cgroupns-mode",
    "default-gateway", "default-gateway-v6", "default-network-opts", "default-runtime", "default-shm-size",
    "default-ulimits", "dns", "dns-opts", "dns-search", "exec-opts", "exec-root", "experimental", "features",
    "firewall-backend", "fixed-cidr", "fixed-cidr-v6", "group", "host-gateway-ip", "host-gateway-ips", "http-proxy",
    "https-proxy", "icc", "init", "init-path", "insecure-registries", "ip", "ip-forward", "ip-forward-no-drop", "ip-masq",
    "ip6tables", "iptables", "ipv6", "labels", "live-restore", "log-driver", "log-format", "log-level", "log-opts",
    "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts", "metrics-addr", "mtu",
    "no-new-privileges", "no-proxy", "node-generic-resources", "oom-score-adjust", "pidfile", "proxies", "raw-logs",
    "registry-mirrors", "rootless", "runtimes", "seccomp-profile", "selinux-enabled", "shutdown-timeout", "storage-driver",
    "storage-opts", "swarm-default-advertise-addr", "tls", "tlscacert", "tlscert", "tlskey", "tlsverify", "userland-proxy",
    "userland-proxy-path", "userns-remap",
)  # fmt: skip
_LISTS: Final = frozenset({
    "authorization-plugins", "cdi-spec-dirs", "default-address-pools", "dns", "dns-opts", "dns-search", "exec-opts",
    "host-gateway-ips", "insecure-registries", "labels", "node-generic-resources", "registry-mirrors", "storage-opts",
})  # fmt: skip
# Its values are text, numbers too: dockerd refuses {"max-file": 3}.
_TEXTS: Final = frozenset({"log-opts"})


def find(name: str) -> Key:
    """The key of that dotted name. Raises BadValue, with the nearest, when there is none."""
    for key in KEYS:
        if key.name == name or (key.kind == "table" and name.startswith(ENGINE) and name != ENGINE):
            return key
    raise config.unknown_key(name, [key.name for key in KEYS])


def path(name: str) -> list[str]:
    """The parts of a dotted key, by TOML's own rules: engine.runtimes."io.containerd.x". Raises BadValue for what is no key."""
    import tomllib

    try:
        inner: Any = tomllib.loads(f"{name}=0")
    except tomllib.TOMLDecodeError:
        inner = None
    parts: list[str] = []
    while isinstance(inner, dict) and len(inner) == 1:
        part, inner = next(iter(inner.items()))
        parts.append(part)
    if inner != 0 or "\n" in name or "=" in name:
        raise BadValue(name, f"{name!r} is no key.", hint="wherry config show")
    return parts


def parse(name: str, text: str) -> Any:
    """The value, as machine.toml holds it, from the words of a command line. Raises BadValue."""
    key = find(name)
    if key.kind == "fixed":
        raise BadValue(name, f"{name} cannot be set.", hint=key.changed_by)
    if key.kind == "table":
        return _engine_value(name, text)
    if key.kind == "access":
        return _access(text)
    if key.kind == "switch":
        if text.strip().lower() not in ("true", "false"):
            raise BadValue(name, f"{name} = {text!r}: true or false.")
        return text.strip().lower() == "true"
    if key.kind == "paths":
        return _paths(text)
    if key.kind == "minutes" and text.strip() == "auto":
        return "auto"
    if key.kind in ("number", "minutes"):
        try:
            return int(text)
        except ValueError:
            raise BadValue(name, f"{name} = {text!r}: a number is wanted.") from None
    if key.kind == "size":
        try:
            return format_size(config.parse_size(text))
        except Usage as error:
            raise BadValue(name, f"{name}: {error.message}") from None
    return text


def _access(text: str) -> str | list[int]:
    """all, none, or ports: 8080,5432 or, as in the file, [8080, 5432]."""
    words = text.strip().removeprefix("[").removesuffix("]").replace(",", " ").split()
    return [int(word) for word in words] if words and all(word.isdecimal() for word in words) else text.strip()


def _paths(text: str) -> list[str]:
    """Paths with commas or, as in the file, a list."""
    import tomllib

    try:
        value = tomllib.loads(f"value = {text}\n").get("value")
    except tomllib.TOMLDecodeError:
        value = None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return [word.strip() for word in text.split(",") if word.strip()]


def _engine_value(name: str, text: str) -> Any:
    """TOML where the text is some, else the text itself, so that 5m needs no quotes."""
    import tomllib

    parts = path(name)[1:]
    check_engine_key(parts[0])
    try:
        values = tomllib.loads(f"value = {text}\n")
    except tomllib.TOMLDecodeError:
        values = {}
    value = values["value"] if list(values) == ["value"] else text
    if parts[0] in _LISTS and not isinstance(value, list):
        raise BadValue(name, f"{name} is a list.", hint=f"""wherry config set {name} '["{text}"]'""")
    if parts[0] in _TEXTS and len(parts) == 2 and not isinstance(value, str):
        return text
    return value


def check_engine_key(part: str) -> None:
    """Raises BadValue for a key of daemon.json that is probably a slip."""
    import difflib

    if part in config.ENGINE_REFUSED or part in ENGINE_KEYS:
        return
    near = difflib.get_close_matches(part, ENGINE_KEYS, n=1, cutoff=0.8)
    if near:
        raise BadValue(
            ENGINE + part, f"unknown key {ENGINE + part!r}, {ENGINE + near[0]} is the nearest.",
            hint="A key that only your engine knows can be written by hand: wherry config edit",
        )  # fmt: skip
