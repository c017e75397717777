"""The server of shared folders: SFTP over any stream, confined to one folder; knows no network."""
