"""QEMU: its command line, what this computer has of it, its monitor, its process."""
