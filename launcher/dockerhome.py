"""docker's own folder on this computer: contexts, and which is current (docker/cli: cli/context/store, cli/config)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from launcher import files, host, proc
from launcher.errors import WherryError

DEFAULT: Final = "default"  # not kept anywhere: what docker uses when no context is chosen


@dataclass(frozen=True)
class Context:
    """One place to send commands to. `extra` is what a program keeps beside docker's own fields; docker leaves it alone."""

    name: str
    host: str  # unix:///path, ssh://…, empty when it names no engine
    description: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class DockerHome:
    """The folder; touches nothing until something is written. Files that are no JSON raise WherryError."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Path(os.environ.get("DOCKER_CONFIG") or Path(host.current().home(), ".docker"))

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def current(self) -> str:
        """The current context's name; DOCKER_HOST and DOCKER_CONTEXT, which come first, are not looked at."""
        name = _read(self.config_file).get("currentContext")
        return name if isinstance(name, str) and name else DEFAULT

    def make_current(self, name: str) -> None:
        """A file that says nothing else goes with the choice, but for a link."""
        config = _read(self.config_file)
        if name == DEFAULT:
            config.pop("currentContext", None)
        else:
            config["currentContext"] = name
        if not config and not self.config_file.is_symlink():
            self.config_file.unlink(missing_ok=True)
            return
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Dotfiles are links in many homes; the link stays.
        files.write_private(self.config_file.resolve(), json.dumps(config, indent="\t", ensure_ascii=False).encode())

    def context(self, name: str) -> Context | None:
        """The context of that name; None when there is none, also for `default`."""
        meta = _read(self._meta(name) / "meta.json")
        if not meta:
            return None
        about, endpoints = _object(meta.get("Metadata")), _object(meta.get("Endpoints"))
        host = _object(endpoints.get("docker")).get("Host")
        extra = {key: value for key, value in about.items() if key != "Description"}
        return Context(name, host if isinstance(host, str) else "", str(about.get("Description", "")), extra)

    def names(self) -> list[str]:
        """Of every context that is kept; one whose file cannot be read has none."""
        found = []
        for file in sorted((self.path / "contexts" / "meta").glob("*/meta.json")):
            try:
                name = _read(file).get("Name")
            except WherryError:
                continue
            if isinstance(name, str) and self._meta(name) == file.parent:
                found.append(name)
        return found

    def write(self, context: Context) -> None:
        about = {"Description": context.description, **context.extra}
        endpoints = {"docker": {"Host": context.host, "SkipTLSVerify": False}}
        meta = {"Name": context.name, "Metadata": about, "Endpoints": endpoints}
        folder = self._meta(context.name)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_private(folder / "meta.json", json.dumps(meta).encode())

    def remove(self, name: str) -> None:
        for folder in (self._meta(name), self.path / "contexts" / "tls" / _identity(name)):
            shutil.rmtree(folder, ignore_errors=True)

    def exists(self, name: str) -> bool:
        return name == DEFAULT or self.context(name) is not None

    def helpers(self) -> dict[str, str]:
        """Programs that keep passwords, with the key of config.json that names each: docker-credential-… -> credsStore."""
        config = _read(self.config_file)
        named = {value: f'credHelpers "{registry}"' for registry, value in _object(config.get("credHelpers")).items()}
        named[config.get("credsStore")] = "credsStore"
        return {f"docker-credential-{name}": key for name, key in named.items() if isinstance(name, str) and name}

    def advice(self) -> list[str]:
        """One line, with its fix, for each helper that is not on this computer."""
        missing = {helper: key for helper, key in self.helpers().items() if proc.find(helper) is None}
        return [
            f"docker login needs {helper}, which is not here   remove {key} from {self.config_file}"
            for helper, key in missing.items()
        ]

    def _meta(self, name: str) -> Path:
        return self.path / "contexts" / "meta" / _identity(name)


def _identity(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read(file: Path) -> dict[str, Any]:
    """Empty when there is none. Raises WherryError for what cannot be read: it is not ours to write over."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WherryError(f"{file} cannot be read: {error}", hint="mend or remove it") from error
    if not isinstance(data, dict):
        raise WherryError(f"{file} is no JSON object.", hint="mend or remove it")
    return data
