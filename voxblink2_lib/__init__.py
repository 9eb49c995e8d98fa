"""The library behind the ``voxblink2`` dataset: from the VoxBlink2 release to sealed Arrow shards.

Importing it is cheap: neither torch nor yt-dlp is loaded before they are needed.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
