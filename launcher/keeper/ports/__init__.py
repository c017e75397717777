"""Published ports: listeners of this computer, bound before a container starts, whose connections QEMU hands to the guest."""
