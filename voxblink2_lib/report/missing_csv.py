"""The list of missing videos, as a CSV file that programs and spreadsheets can open safely."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from voxblink2_lib.files import atomic_write
from voxblink2_lib.foreign_text import csv_cell
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.redaction import redact
from voxblink2_lib.store.ledger_statistics import MissingVideo

CSV_COLUMNS = (
    "speaker_id",
    "video_id",
    "status",
    "reason",
    "attempts",
    "last_try",
    "next_try",
    "config",
)
ROWS_PER_STEP = 100_000


def write_missing(
    videos: Iterable[tuple[str, MissingVideo]],
    path: Path,
    *,
    total: int | None = None,
    progress: Progress = no_progress,
) -> Counter[str]:
    r"""Write a CSV file of missing videos: UTF-8, a header, one line per video.

    ``last_try`` and ``next_try`` are ISO 8601 in UTC, to the second. With an empty ``next_try``
    a video is not retried by itself; one of status ``planned`` is downloaded by the next run.

    Reasons are made safe for spreadsheets: an apostrophe goes before a first ``=``, ``+``, ``-``
    or ``@``, and control characters and line ends become escapes such as ``\n``. Ids are written
    as they are, since programs read them: one that begins with ``-`` may look odd in a
    spreadsheet, and is harmless, since a formula with any effect needs characters that no id has.

    Args:
        videos: in the order of the file, each with its configuration.
        path: the file. It appears when it is complete.
        total: number of the videos, for the progress.
        progress: counts videos.

    Returns:
        The number of videos of each configuration.
    """
    counts: Counter[str] = Counter()
    with (
        atomic_write(path) as file,
        text_over(file) as text,
        progress("Listing missing videos", unit="video", total=total) as advance,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for number, (config, video) in enumerate(videos, start=1):
            counts[config] += 1
            times = (_iso(video.updated_at), _iso(video.next_at))
            words = csv_cell(redact(video.reason.strip()))
            writer.writerow((*map(csv_cell, video[:3]), words, video.attempts, *times, config))
            if not number % ROWS_PER_STEP:
                advance(ROWS_PER_STEP)
        advance(counts.total() % ROWS_PER_STEP)
    return counts


def _iso(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def text_over(file: BinaryIO) -> Iterator[io.TextIOWrapper]:
    """Write text to a binary file, which stays open."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
    try:
        yield text
    finally:
        text.detach()
