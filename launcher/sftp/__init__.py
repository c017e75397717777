"""The file server of a share: SFTP over any stream, knowing neither network nor machine."""
