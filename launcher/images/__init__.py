"""The guest ISOs of this computer: where they come from, how they are kept, how they go."""

from launcher.images.cache import Iso, by_sha
from launcher.images.importer import import_file
from launcher.images.source import resolve

__all__ = ["Iso", "by_sha", "import_file", "resolve"]
