"""What the images are made of. All share one layer, which is busybox and Debian's C library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

PREFIX: Final = "wherry.test"
SUITE: Final = "trixie"
PACKAGES: Final = (
    "busybox-static",
    "docker-registry",
    "libc-bin",
    "nginx",
    "postgresql",
    "redis-server",
    "redis-tools",
    "tzdata",
)
# Wanted by maintainer scripts, or by a part that is never loaded here (the compiler of postgres' JIT is 120 MB).
SKIP: Final = frozenset({"libllvm19", "libz3-4", "locales", "libc-l10n", "libperl5.40", "perl-modules-5.40", "systemd"})


@dataclass(frozen=True)
class Image:
    """Globs of what is taken from the packages, whose libraries come by themselves; own files; folders with their modes.

    programs: C sources beside this file, each linked statically to /bin/NAME. config: as the image has it.
    """

    take: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)
    programs: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)


_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33::/:/bin/false
postgres:x:70:70::/:/bin/sh
nobody:x:65534:65534::/:/bin/false
"""
_GROUP = "root:x:0:\ntty:x:5:\nwww-data:x:33:\npostgres:x:70:\nnogroup:x:65534:\n"

# Small parts of everything: a shell, users, the dynamic linker.
BASE: Final = Image(
    take=("usr/bin/busybox", "usr/lib64/ld-linux*", "usr/lib/ld-linux*", "usr/lib/*/libc.so.6", "usr/lib/locale/C.utf8/*"),
    files={"etc/passwd": _PASSWD, "etc/group": _GROUP, "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n"},
    folders={"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777, "run": 0o755, "proc": 0o755, "sys": 0o755, "dev": 0o755},
)

_NGINX = """\
worker_processes 1;
daemon off;
error_log stderr;
pid /run/nginx.pid;
events { worker_connections 512; }
http {
    include mime.types;
    access_log /dev/stdout;
    server { listen 80; root /usr/share/nginx/html; }
}
"""

# As the well-known images do: a new cluster when there is none, then the server; nothing is synced while it is made.
_POSTGRES = """\
#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA" && chmod 700 "$PGDATA"
    initdb --no-sync --auth=trust --locale=C --encoding=UTF8 >/dev/null
    echo "host all all all trust" >>"$PGDATA/pg_hba.conf"
fi
exec postgres -c "listen_addresses=*" -c unix_socket_directories=/tmp "$@"
"""

IMAGES: Final = {
    "base": Image(config={"Cmd": ["sh"]}),
    "echo": Image(programs=("udp-echo",), config={"Cmd": ["/bin/udp-echo"], "ExposedPorts": {"7/udp": {}}}),
    "nginx": Image(
        take=("usr/sbin/nginx", "etc/nginx/mime.types", "usr/share/nginx/html/*"),
        files={"etc/nginx/nginx.conf": _NGINX},
        folders={"var/lib/nginx": 0o755, "var/log/nginx": 0o755},
        config={"Cmd": ["nginx"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"},
    ),
    "postgres": Image(
        take=(
            "usr/lib/postgresql/*/bin/postgres",
            "usr/lib/postgresql/*/bin/initdb",
            "usr/lib/postgresql/*/bin/psql",
            "usr/lib/postgresql/*/bin/pg_isready",
            "usr/lib/postgresql/*/lib/dict_snowball.so",
            "usr/lib/postgresql/*/lib/plpgsql.so",
            "usr/share/postgresql/*/postgres.bki",
            "usr/share/postgresql/*/*.sql",
            "usr/share/postgresql/*/*.sample",
            "usr/share/postgresql/*/*.txt",
            "usr/share/postgresql/*/timezonesets/*",
            "usr/share/postgresql/*/extension/plpgsql*",
            "usr/share/postgresql/*/tsearch_data/*.stop",
            "usr/share/zoneinfo/UTC",
            "usr/share/zoneinfo/Etc/UTC",
        ),
        files={"usr/bin/entry": _POSTGRES},
        folders={"data": 0o777},
        config={
            "Entrypoint": ["/usr/bin/entry"],
            "Env": [
                "PATH=/usr/lib/postgresql/17/bin:/usr/bin:/bin",
                "PGDATA=/data/cluster",
                "PGHOST=/tmp",
                "PGUSER=postgres",
                "TZ=UTC",
            ],
            "ExposedPorts": {"5432/tcp": {}},
            "StopSignal": "SIGINT",
            "User": "postgres",
            "Volumes": {"/data": {}},
        },
    ),
    "reaper": Image(programs=("reaper",), config={"Cmd": ["/bin/reaper"], "ExposedPorts": {"8080/tcp": {}}}),
    "redis": Image(
        take=("usr/bin/redis-server", "usr/bin/redis-check-rdb", "usr/bin/redis-cli"),
        config={"Cmd": ["redis-server", "--save", "", "--protected-mode", "no"], "ExposedPorts": {"6379/tcp": {}}},
    ),
}
REGISTRY: Final = Image(take=("usr/bin/docker-registry",))
