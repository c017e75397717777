"""The keeper: one background process per machine that owns QEMU, the console and the SSH connection."""
