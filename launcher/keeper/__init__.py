"""The keeper: one background process per machine that owns QEMU, the console and the SSH connection."""

import sys

# paramiko imports it where it can, for `Match exec` in an ssh_config, which nobody reads here: a sixth of a keeper's start.
sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
