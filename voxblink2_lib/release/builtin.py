"""Paths of the built-in release: a small one in VoxBlink2's form, with its media.

Eight synthetic speakers, eighteen videos, three utterances each. Sixteen videos have a media file;
requests for the other two fail with the status in ``FAULTS``, like requests for many real videos.
``tools/make_demo.py`` makes all of it.
"""

from __future__ import annotations

from pathlib import Path

RELEASE: Path = Path(__file__).parent / "builtin_data" / "release"
"""Folder with ``data/spk2videos`` and ``vb2_meta.tar.gz``, as the authors publish them."""
MEDIA: Path = Path(__file__).parent / "builtin_data" / "media"
"""Folder with the media files, ``<speaker>/<video>.<extension>``."""
FAULTS: dict[str, int] = {"demoGone404": 404, "demoShut403": 403}
"""Videos with annotations but no media -> HTTP status of the demo's site for them."""
