"""The guest ISOs of this computer: where they come from, how they are kept, how they go.

`wherry docker` comes by here: what speaks HTTP is imported when something is fetched, not before.
"""

from launcher.images.cache import Iso, by_sha
from launcher.images.importer import import_file
from launcher.images.source import IsoSource, parse_source, resolve, restore
from launcher.images.transport import Transport

__all__ = ["Iso", "IsoSource", "Transport", "by_sha", "import_file", "parse_source", "resolve", "restore"]
