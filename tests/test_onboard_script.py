"""installers/onboard.sh: finds wherry, else has it installed, and leaves everything else to `wherry up -f`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "installers" / "onboard.sh"
NEEDED = ("sh", "cat", "printf")


class Desk:
    """A computer with a home and a PATH of its own, on which `programs` can be put."""

    def __init__(self, folder: Path) -> None:
        self.home, self.bin, self.project = folder / "home", folder / "bin", folder / "a project"
        for made in (self.home, self.bin, self.project):
            made.mkdir()
        for name in NEEDED:
            (self.bin / name).symlink_to(str(shutil.which(name)))

    def program(self, name: str, text: str, folder: Path | None = None) -> None:
        file = (folder or self.bin) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def run(self, *words: str, **more: str) -> tuple[int, str, str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.home), **more}
        done = subprocess.run(
            ["/bin/sh", SCRIPT, *words], cwd=self.project, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr


TELLS = 'printf "<%s>" wherry "$@"; exit 3'
PIPX = f"""printf '%s ' pipx "$@" >&2; {shutil.which("mkdir")} -p "$HOME/.local/bin"
printf '#!/bin/sh\\n%s\\n' '{TELLS}' > "$HOME/.local/bin/wherry"; {shutil.which("chmod")} 755 "$HOME/.local/bin/wherry"
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_wherry_on_path_is_called_with_every_word_and_its_exit_code(desk: Desk) -> None:
    desk.program("wherry", TELLS)
    assert desk.run() == (3, "<wherry><up>", "")
    assert desk.run("a b.toml", "--yes") == (3, "<wherry><up><-f><a b.toml><--yes>", "")
    (desk.project / "wherry.toml").touch()
    assert desk.run() == (3, "<wherry><up><-f><wherry.toml>", "")


def test_pipx_installs_it_with_a_python_that_is_new_enough(desk: Desk) -> None:
    desk.program("python3", "exit 1")  # an old one
    (desk.bin / "python3.11").symlink_to(sys.executable)
    desk.program("pipx", PIPX)
    code, out, err = desk.run("w.toml")
    assert (code, out) == (3, "<wherry><up><-f><w.toml>")
    assert f"pipx install --python {desk.bin}/python3.11 wherry " in err
    assert f"{desk.home}/.local/bin is not on your PATH" in err
    again = desk.run("w.toml")
    assert again[:2] == (3, "<wherry><up><-f><w.toml>") and "pipx install" not in again[2]


def test_what_is_installed_can_be_said(desk: Desk) -> None:
    (desk.bin / "python3").symlink_to(sys.executable)
    desk.program("pipx", PIPX)
    assert "wherry==1.2 " in desk.run(WHERRY_PACKAGE="wherry==1.2")[2]


def test_without_a_python_it_says_what_to_install(desk: Desk) -> None:
    desk.program("python3", "exit 1")
    desk.program("pipx", PIPX)
    code, out, err = desk.run()
    assert (code, out) == (4, "") and "no Python of 3.11 or later" in err and "sudo apt-get install pipx" in err


def test_a_pip_that_may_not_install_is_told_with_what_does(desk: Desk) -> None:
    """PEP 668: Debian's pip refuses, with its own words."""
    desk.program(
        "python3", 'case "$*" in *"pip --version"*|-c*) exit 0;; *"pip install"*) echo externally-managed >&2; exit 1;; esac'
    )
    code, _, err = desk.run()
    assert code == 4 and "externally-managed" in err and "neither pipx nor pip did it" in err
