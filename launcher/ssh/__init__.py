"""SSH to the guest: keys, one warm connection, the requests that paramiko has no call for."""
