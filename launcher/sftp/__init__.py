"""SFTP version 3, served: one folder of this computer over one stream, and the extensions of provisioning/shares.md.

It knows no network and no operating system: a stream has `recv` and `sendall`, a tree has the files.
"""
