"""The corpus of the stores that earlier versions made: three videos, of which one has no media."""

from __future__ import annotations

import sys
from pathlib import Path

from support import plain_corpus

DONE, GONE, NEW = VIDEOS = plain_corpus.video_ids(3)
SPEAKER = "id000000"


def make(folder: Path) -> Path:
    """Write the release, and the media under ``media``; return the folder."""
    plain_corpus.make_corpus(folder, VIDEOS)
    (folder / "media" / SPEAKER / f"{GONE}.wav").unlink()
    return folder


if __name__ == "__main__":
    make(Path(sys.argv[1]))
