"""All the words that may follow `wherry`: its verbs, boot2docker's words, docker's words, and those that are still to come."""

from __future__ import annotations

from typing import Final

# Verb -> (module in launcher.cli.verbs, what it does). The order is that of --help.
VERBS: Final = {
    "up": ("start", "Start the machine, make it if there is none. The one command to know."),
    "run": ("proxied", "docker run, with --init, -it and --rm where they are wanted."),
    "docker": ("proxied", "The docker client against the machine; starts the machine if needed."),
    "compose": ("proxied", "docker compose against the machine, in the project's folder."),
    "init": ("start", "Make a machine without starting it."),
    "stop": ("stop", "Shut the machine down cleanly."),
    "suspend": ("stop", "Save the machine to disk, containers and all; up resumes it."),
    "restart": ("start", "Stop, then up."),
    "upgrade": ("upgrade", "Move a machine to this release's ISO; --rollback goes back."),
    "status": ("status", "One machine: running 0, stopped or suspended 3, broken 1."),
    "list": ("status", "All machines, the damaged ones too."),
    "delete": ("delete", "Delete a machine and everything on its disk; asks first."),
    "repair": ("repair", "Mend a machine that is broken or whose disk is damaged; keeps its data."),
    "ssh": ("proxied", "A shell or a command in the machine."),
    "cp": ("cp", "Copy files: SRC DST, with NAME:path on one side."),
    "logs": ("logs", "The machine's logs: serial, engine, keeper, shares or qemu."),
    "iso": ("iso", "The machine's images: list, pull, import, build, verify, prune."),
    "config": ("config", "Settings: show, get, set, unset, edit, path."),
    "doctor": ("doctor", "Look at everything that a machine needs, and say what to do."),
    "env": ("env", "Shell code that leads docker in this terminal to the machine."),
    "context": ("context", "The machine's docker context: create, use, remove."),
    "link": ("link", "By request: `docker` on PATH, or the usual socket, leads to the machine."),
    "unlink": ("link", "Take back a link; what was there before comes back."),
    "port": ("port", "Published ports: list; add and remove forwards by hand."),
    "share": ("share", "Folders of this computer that the machine has: list, add, remove."),
    "disk": ("disk", "The data disk: info, grow, reclaim, backup, restore."),
    "autostart": ("autostart", "At login: hold the machine's socket, or with --now start it: enable, disable, status."),
    "uninstall": ("uninstall", "Take back all that wherry put outside of its own folders; asks before machines go."),
    "ip": ("about", "The address at which published ports are reached."),
    "version": ("about", "Versions of wherry and of the engine."),
    "help": ("about", "Help for a verb."),
    "completion": ("completion", "Shell code that completes wherry's words: bash, zsh, fish, powershell."),
}

# Another word for a verb, with the options that it stands for. boot2docker's, but for start.
ALIASES: Final = {
    "start": ("up",),
    "shellinit": ("env",),
    "down": ("stop",),
    "save": ("suspend",),
    "halt": ("stop",),
    "poweroff": ("stop",),
    "destroy": ("delete",),
    "info": ("status", "--json"),
    "download": ("iso", "pull"),
    "reset": ("restart", "--force"),
    "ls": ("list",),
}

# docker's own commands, which one types from habit.
DOCKER: Final = frozenset(
    {
        "attach", "build", "builder", "buildx", "commit", "container", "create", "diff", "events", "exec", "export", "history",
        "image", "images", "import", "inspect", "kill", "load", "login", "logout", "manifest", "network", "node", "pause",
        "plugin", "ps", "pull", "push", "rename", "rm", "rmi", "search", "secret", "service", "stack", "stats", "swarm",
        "system", "tag", "top", "trust", "unpause", "update", "volume", "wait",
    }
)  # fmt: skip

COMPOSE: Final = {"docker-compose": "compose"}
