"""The list of missing videos, as a CSV file that programs and spreadsheets can open safely."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from voxblink2_lib.files import atomic_write
from voxblink2_lib.progress import Advance
from voxblink2_lib.store.ledger_statistics import MissingVideo

CSV_COLUMNS = (*("speaker_id", "video_id", "status", "reason", "attempts", "last_try", "next_try"),)
ROWS_PER_STEP = 100_000

# Control characters, line ends, and what turns the direction of writing round.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")

# Also after a semicolon, which parts cells where the comma is in numbers. The wide forms of
# the four signs begin a formula too.
_FORMULA = re.compile(r"(^|;\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")


def write_missing(
    rows: Iterable[MissingVideo], path: Path, *, progress: Advance = lambda _: None
) -> int:
    """Write a CSV file of missing videos: UTF-8, a header, one line a video.

    ``last_try`` and ``next_try`` are ISO 8601 in UTC, to the second. An empty ``next_try`` says
    that the video will not be asked for by itself; one of status ``planned`` is asked for by the
    next run.

    Reasons are made safe for spreadsheets: an apostrophe goes before a first ``=``, ``+``, ``-``
    or ``@``, and control characters and line ends become a space. Ids are written as they are,
    since programs read them: one that begins with ``-`` may look odd in a spreadsheet, and can
    do no harm, since a formula that does anything needs characters that no id has.

    Args:
        rows: in the order of the file.
        path: the file. It appears when it is whole.
        progress: called after each 100,000 rows.

    Returns:
        The number of videos.
    """
    count = 0
    with atomic_write(path) as file, _text_over(file) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for count, row in enumerate(rows, start=1):
            times = (_iso(row.updated_at), _iso(row.next_at))
            writer.writerow((*row[:3], _cell(row.reason), row.attempts, *times))
            if not count % ROWS_PER_STEP:
                progress(1)
    return count


def plain(words: str) -> str:
    r"""Return words on one line, without characters that cannot be seen.

    >>> plain("two\nlines ")
    'two lines'
    """
    return _UNSEEN.sub(" ", words).strip()


def _cell(reason: str) -> str:
    """Return a reason as a cell that no spreadsheet takes for a formula.

    >>> _cell("=1+1"), _cell("- not found"), _cell("HTTP 404")
    ("'=1+1", "'- not found", 'HTTP 404')
    """
    return _FORMULA.sub(r"\1'", plain(reason))


def _iso(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def _text_over(file: BinaryIO) -> Iterator[io.TextIOWrapper]:
    """Write text to a binary file, which stays open."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
    try:
        yield text
    finally:
        text.detach()
