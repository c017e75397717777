"""doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli.app import App
from launcher.cli.options import machine_name, verb
from launcher.console import size, table
from launcher.errors import Usage

if TYPE_CHECKING:
    from launcher.machine.checks import Check


@click.command()
@machine_name
@click.option(
    "--bundle", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a report: .zip or .tar.gz."
)
@click.option("--force", is_flag=True, help="Also over a FILE that is there.")
@verb
def doctor(app: App, name: str | None, bundle: Path | None, force: bool) -> int:
    """Look at everything that a machine needs, and say what to do. Changes nothing. Exit code 1 when something is a failure."""
    from launcher.machine import bundle as bundles
    from launcher.machine import doctor as doctors

    if force and bundle is None:
        raise Usage("--force is for --bundle.")
    if bundle is not None:
        bundles.packer(bundle, force=force)  # before the work
    chosen = app.name(name)
    checks = doctors.doctor(chosen, named=name is not None or app.settings.machine is not None)
    lines = [line for check in checks for line in _lines(check)]
    data = {"checks": [asdict(check) for check in checks], "failed": doctors.failed(checks), "bundle": None}
    if bundle is not None:
        files = bundles.collect(chosen, checks)
        bundles.write(bundle, files, force=force)
        data["bundle"] = {"path": str(bundle.absolute()), "files": {file: len(content) for file, content in files.items()}}
        rows = [(file, size(len(content))) for file, content in files.items()]
        lines += ["", f"{bundle} holds, with secrets taken out:", table(("file", "size"), rows)]
        lines.append("Look at it before you pass it on.")
    app.console.answer(data, "\n".join(lines))
    return 1 if doctors.failed(checks) else 0


def _lines(check: Check) -> list[str]:
    head = f"{check.status:<9} {check.name:<15} {check.text}"
    return [head, *(f"{'':<25} -> {command}" for command in (check.step or "").splitlines())]
