"""The keeper: one background process per machine that owns QEMU, the console and the SSH connection."""

import sys
from types import ModuleType
from typing import cast

# paramiko.config imports invoke where there is one, for `Match exec` of an ssh_config, which nobody reads here: 20-50 ms of a
# start, with unittest.mock and a YAML parser. None in its place is an ImportError, for which paramiko is prepared.
sys.modules.setdefault("invoke", cast(ModuleType, None))
