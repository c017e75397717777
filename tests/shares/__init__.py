"""What judges a share, runnable by itself against any folder: on this computer, in the guest, in a container."""
