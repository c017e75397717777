"""The scripts of the .pkg, run with a /usr/local of their own and with words in place of what only a Mac has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from installers.macos import flatpkg

SCRIPTS = Path(flatpkg.__file__).parent / "scripts"
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare"),
]

WHERRY = """#!/bin/sh
echo "${AS:-root}: wherry $*" >>"$SAID"
case $* in
"list -q") printf 'default\\nother\\n' ;;
"stop $FAILS" | "$FAILS") exit 5 ;;
esac
"""
FAKES = {
    "stat": 'echo "$CONSOLE"',
    "sudo": 'export AS=$2; shift 3; exec "$@"',
    "pkgutil": 'echo "pkgutil $*" >>"$SAID"',
}


class Mac:
    """What is below /usr/local, and who sits before it."""

    def __init__(self, folder: Path) -> None:
        self.local, self.programs, self.said = folder / "local", folder / "bin", folder / "said"
        self.home = self.local / "lib/wherry"
        for made in (self.programs, self.local / "bin", self.home / "python/bin", self.home / "python/lib", self.home / "iso"):
            made.mkdir(parents=True)
        for name, text in FAKES.items():
            self.program(self.programs / name, f"#!/bin/sh\n{text}\n")
        self.program(self.home / "python/bin/wherry", WHERRY)
        self.program(self.home / "python/bin/python3", '#!/bin/sh\necho "python3 $*" >>"$SAID"\n')
        self.program(self.home / "uninstall", flatpkg._filled("uninstall", {"IDENTIFIER": flatpkg.IDENTIFIER}))
        (self.local / "bin/wherry").symlink_to("../lib/wherry/python/bin/wherry")
        (self.home / "iso/wherry-arm64.iso").touch()

    def program(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script: str | Path, *, console: str = "jo", fails: str = "-", **more: str) -> tuple[int, list[str]]:
        """The exit code, and what was asked of wherry and of macOS."""
        self.said.write_text("")
        inside = ["sh", "-c", 'mount --bind "$1" /usr/local && exec "$2"', "sh", self.local, script]
        path = f"{self.programs}:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = {"PATH": path, "SAID": str(self.said), "CONSOLE": console, "FAILS": fails, **more}
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", *inside], env=environment, check=False, stdin=subprocess.DEVNULL
        )
        return done.returncode, self.said.read_text().splitlines()


@pytest.fixture
def mac(tmp_path: Path) -> Mac:
    return Mac(tmp_path)


def test_an_older_one_stops_its_machines_and_goes(mac: Mac) -> None:
    assert mac.run(SCRIPTS / "preinstall") == (0, ["jo: wherry list -q", "jo: wherry stop default", "jo: wherry stop other"])
    assert not mac.home.exists()
    assert mac.run(SCRIPTS / "preinstall") == (0, []), "where there is none"


def test_a_machine_that_does_not_stop_ends_the_installation(mac: Mac) -> None:
    code, said = mac.run(SCRIPTS / "preinstall", fails="default")
    assert (code, said) == (1, ["jo: wherry list -q", "jo: wherry stop default"])
    assert (mac.home / "python/bin/wherry").exists(), "nothing is changed"


def test_the_iso_goes_to_whom_the_screen_belongs(mac: Mac) -> None:
    compiled = "python3 -I -m compileall -q /usr/local/lib/wherry/python/lib"
    taken = "jo: wherry iso import /usr/local/lib/wherry/iso/wherry-arm64.iso"
    assert mac.run(SCRIPTS / "postinstall") == (0, [compiled, taken])
    assert mac.run(SCRIPTS / "postinstall", console="root") == (0, [compiled]), "at the login window it is nobody's"
    (mac.home / "iso/wherry-arm64.iso").unlink()
    assert mac.run(SCRIPTS / "postinstall") == (0, [compiled])


def test_it_is_removed_after_its_user_was_asked(mac: Mac) -> None:
    script = "/usr/local/lib/wherry/uninstall"
    assert mac.run(script) == (1, []), "root's own machines are not meant"
    code, said = mac.run(script, SUDO_USER="jo", fails="uninstall")
    assert (code, said) == (5, ["jo: wherry uninstall"])
    assert mac.home.exists()
    assert mac.run(script, SUDO_USER="jo") == (0, ["jo: wherry uninstall", "pkgutil --forget wherry.pkg"])
    assert not mac.home.exists()
    assert not (mac.local / "bin/wherry").is_symlink()
