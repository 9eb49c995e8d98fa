"""Sources of media: a folder, or the network.

``close_sources`` is for tests only.
"""

from __future__ import annotations

from voxblink2_lib.sources.base import Media, Source, SourceSpec, parse_source, stored_source
from voxblink2_lib.sources.opening import close_sources, open_source

__all__ = [
    "Media",
    "Source",
    "SourceSpec",
    "close_sources",
    "open_source",
    "parse_source",
    "stored_source",
]
