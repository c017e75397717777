"""What the images are made of. All share one layer, which is busybox and Debian's C library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

PREFIX: Final = "wherry.test"
SUITE: Final = "trixie"
PACKAGES: Final = (
    *("busybox-static", "libc-bin", "tzdata"),
    *("docker-registry", "nginx", "postgresql", "redis-server", "redis-tools"),
    *("bash", "coreutils", "diffutils", "findutils", "grep", "sed", "tar", "util-linux"),
    *("gcc", "libc6-dev", "make"),
    *("fio", "git", "inotify-tools", "mariadb-server", "nodejs", "sqlite3", "sshfs"),
    *("python3", "python3-pip", "python3-watchdog"),
)
# Wanted by maintainer scripts, or by a part that is never loaded here (the compiler of postgres' JIT is 120 MB).
SKIP: Final = frozenset({
    *("libllvm19", "libz3-4", "locales", "libc-l10n", "libperl5.40", "perl-modules-5.40", "systemd"),
    *("galera-4", "libdbi-perl", "mariadb-client", "perl", "perl-base"),
})  # fmt: skip
# From the npm registry: as the well-known images of Node have it, in /usr/local.
NPM: Final = ("npm@10.9.9", "nodemon@3.1.14")
# Archives of their own, each with one image: they are large, and loaded only where they are needed.
APART: Final = frozenset({"mariadb", "node", "workshop"})


@dataclass(frozen=True)
class Image:
    """Globs of what is taken from the packages, less those of `leave`; their libraries come by themselves. Own files and links;
    folders with their modes.

    programs: C sources beside this file, each linked statically to /bin/NAME. config: as the image has it.
    """

    take: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
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

# As the well-known images do: the folder is given to the server's user, a new database is made when there is none.
_MARIADB = """\
#!/bin/sh
set -eu
mkdir -p /data /run/mysqld
chown -R mysql:mysql /data /run/mysqld
chmod 700 /data
if [ ! -d /data/mysql ]; then
    cd /usr/share/mariadb
    { printf 'CREATE DATABASE mysql;\\nUSE mysql;\\n'; cat mariadb_system_tables.sql mariadb_performance_tables.sql \\
        mariadb_system_tables_data.sql; } | mariadbd --no-defaults --bootstrap --user=mysql --datadir=/data
fi
exec mariadbd --no-defaults --user=mysql --datadir=/data --socket=/run/mysqld/mysqld.sock --skip-networking "$@"
"""

_COREUTILS = (
    *(
        "basename",
        "cat",
        "chmod",
        "chown",
        "cp",
        "cut",
        "date",
        "dd",
        "df",
        "dirname",
        "du",
        "echo",
        "env",
        "expr",
        "head",
        "id",
    ),
    *("install", "ln", "ls", "mkdir", "mkfifo", "mknod", "mktemp", "mv", "od", "pwd", "readlink", "realpath", "rm", "rmdir"),
    *("sha256sum", "shred", "sleep", "sort", "stat", "sync", "tail", "tee", "test", "touch", "tr", "truncate", "uniq", "wc"),
)
_GITCONFIG = "[user]\n\tname = Nobody\n\temail = n@example.org\n[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n"
_TOOLS = ("bash", "cmp", "diff", "find", "flock", "grep", "sed", "tar", "xargs")
# The compiler, without its other languages, link-time optimization and sanitizers.
_GCC = (
    *("usr/bin/gcc*", "usr/bin/*-gcc-1?", "usr/bin/*-as", "usr/bin/as", "usr/bin/ld", "usr/bin/ld.bfd", "usr/bin/*-ld"),
    *("usr/bin/*-ld.bfd", "usr/bin/ar", "usr/bin/*-ar", "usr/bin/make", "usr/libexec/gcc/*/cc1", "usr/libexec/gcc/*/collect2"),
    "usr/libexec/gcc/*/liblto_plugin.so",
    *("usr/lib/gcc/*/crt*.o", "usr/lib/gcc/*/libgcc.a", "usr/lib/gcc/*/libgcc_s.so", "usr/lib/gcc/*/libgcc_eh.a"),
    *("usr/lib/gcc/*/include/std*.h", "usr/lib/gcc/*/include/limits.h", "usr/lib/gcc/*/include/syslimits.h"),
    *("usr/lib/*/crt*.o", "usr/lib/*/Scrt1.o", "usr/lib/*/libc.so", "usr/lib/*/libc_nonshared.a", "usr/lib/*/libm.so"),
    *("usr/lib/*/libm.so.6", "usr/lib/*/libmvec.so.1", "usr/include/*.h"),
    *("usr/include/*/asm/*", "usr/include/*/bits/*", "usr/include/*/gnu/*", "usr/include/*/sys/*", "usr/include/*/a.out.h"),
)  # fmt: skip
_PYTHON = ("usr/bin/python3*", "usr/bin/pip3", "usr/lib/python3*")
_NO_PYTHON = ("*/sitecustomize.py", "*/ensurepip/*", "*/idlelib/*", "*/pydoc_data/*", "*-config*", "*/turtledemo/*", "*/*.exe")
_GIT = ("usr/bin/git", "usr/bin/git-*-pack", "usr/lib/git-core/git-sh-setup", "usr/share/git-core/*")
# Headers of the kernel that no header of the C library reads.
_NO_HEADERS = tuple(
    f"usr/include/{name}/*" for name in ("drm", "linux/*", "misc", "mtd", "rdma", "scsi", "sound", "video", "xen")
)


IMAGES: Final = {
    "base": Image(config={"Cmd": ["sh"]}),
    "echo": Image(programs=("udp-echo",), config={"Cmd": ["/bin/udp-echo"], "ExposedPorts": {"7/udp": {}}}),
    "mariadb": Image(
        take=("usr/sbin/mariadbd", "usr/bin/mariadb", "usr/share/mariadb/*tables*.sql", "usr/share/mariadb/english/*"),
        files={
            "usr/bin/entry": _MARIADB,
            "etc/passwd": _PASSWD + "mysql:x:999:999::/:/bin/false\n",
            "etc/group": _GROUP + "mysql:x:999:\n",
        },
        config={"Entrypoint": ["/usr/bin/entry"], "Volumes": {"/data": {}}},
    ),
    "nginx": Image(
        take=("usr/sbin/nginx", "etc/nginx/mime.types", "usr/share/nginx/html/*"),
        files={"etc/nginx/nginx.conf": _NGINX},
        folders={"var/lib/nginx": 0o755, "var/log/nginx": 0o755},
        config={"Cmd": ["nginx"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"},
    ),
    "node": Image(
        take=(
            "usr/bin/node",
            "usr/share/nodejs/*",
            "usr/local/bin/*",
            "usr/local/lib/node_modules/*",
            *(f"usr/bin/{name}" for name in ("bash", "env")),
        ),
        leave=("*/npm/docs/*", "*/npm/man/*", "*.md", "*/corepack/*", "*/nodejs/@types/*", "*/undici-types"),
        config={
            "Env": [
                "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "NODE_PATH=/usr/local/lib/node_modules/nodemon/node_modules",
                "HOME=/root",
            ],
            "Cmd": ["node"],
        },
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
    "workshop": Image(
        take=(
            *(f"usr/bin/{name}" for name in (*_COREUTILS, *_TOOLS)),
            *(*_GCC, *_PYTHON, *_GIT),
            *("usr/bin/fio", "usr/bin/inotifywait", "usr/bin/sqlite3", "usr/bin/sshfs"),
        ),
        leave=(*_NO_PYTHON, *_NO_HEADERS),
        files={"usr/bin/cc": '#!/bin/sh\nexec gcc "$@"\n', "root/.gitconfig": _GITCONFIG},
        # Debian's pip looks there, and the package that has it makes it by a script.
        links={
            "etc/ssl/certs/ca-certificates.crt": "/usr/lib/python3/dist-packages/pip/_vendor/certifi/cacert.pem",
            "usr/bin/sh": "bash",  # busybox's takes its own tar and find before those of the packages
        },
        config={"Cmd": ["bash"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]},
    ),
}
REGISTRY: Final = Image(take=("usr/bin/docker-registry",))
