"""The order for shards in buckets: many of their pieces are open at once, each is read once.

Shards come in runs of 4 MiB, shuffled and cut into N lanes of about as many rows. All lanes are
open together; each gives a row in turn, in random order, so that a batch of up to N utterances has
them from as many places, and of about as many speakers:

    lane 0    run 71 | run 3 ...           a run is read from its first clip to its last, in pieces
    lane 1    run 12 | run 40 ...          of 1 MiB, of which one or two are in use
    ...
    column    0 1 2 3 4 5 ...              each column has a row of each lane, shuffled

Lanes are opened one after the other, four at first, then one for each eight rows, so that an epoch
does not begin with the download of N pieces. All end together.
"""

from __future__ import annotations

import itertools
import re

import numpy as np

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training.corpus import Corpus, Rows
from voxblink2_lib.training.remote_shards import RemoteShards
from voxblink2_lib.training.shuffling import Indices, ranges, shuffle, shuffle_within

FULL = "full"
# These are parts of the order: other numbers are another order.
_RUN_BYTES = 4 << 20
_FIRST_LANES, _ROWS_PER_LANE = 4, 8
# Two pieces in the cache: the open one, and one that holds the end of a clip or was just done.
_LANE_BYTES = 2 << 20
_BLOCK_ROWS = 1 << 20


def default_order(corpus: Corpus) -> str:
    """Return ``"full"``, or ``"mixed-N"`` for remote shards that are too many for their cache."""
    shards = corpus.shards
    if not isinstance(shards, RemoteShards) or corpus.shard_bytes <= shards.cache_bytes:
        return FULL
    return f"mixed-{max(1, shards.cache_bytes // _LANE_BYTES)}"


def lanes_of(order: str, corpus: Corpus) -> int:
    """Return N of ``"mixed-N"``, and 0 for ``"full"``.

    Raises:
        TrainingError: it is another text, or the cache is too small for N pieces.
    """
    if order == FULL:
        return 0
    if not re.fullmatch(r"mixed-[1-9][0-9]{0,8}", order):
        raise TrainingError(
            f"order is {order!r}; expected is {FULL!r} or 'mixed-N', with N pieces of shards open "
            "at once, such as 'mixed-4096'."
        )
    lanes = int(order.removeprefix("mixed-"))
    needed = lanes * _LANE_BYTES if lanes > 1 else 0
    if isinstance(corpus.shards, RemoteShards) and needed > corpus.shards.cache_bytes:
        raise TrainingError(
            f"The order {order!r} needs a cache of {needed:,} bytes; the corpus was opened with "
            f"{corpus.shards.cache_bytes:,}. Open it with cache_bytes={needed}."
        )
    return lanes


def mixed_rows(corpus: Corpus, lanes: int, generator: np.random.Generator) -> Indices:
    """Return all rows of a corpus, mixed from so many places at a time, shape (n,)."""
    stored, starts, sizes = _runs(corpus)
    order = shuffle(len(starts), generator)
    rows = shuffle_within(lane_columns(len(corpus), lanes), generator)
    by_run = ranges(starts[order], sizes[order])
    if stored is not None:
        by_run = stored[by_run]
    for start in range(0, len(rows), _BLOCK_ROWS):  # NumPy takes indices of 64 bits
        part = rows[start : start + _BLOCK_ROWS]
        part[:] = by_run[part]
    return rows


def _runs(corpus: Corpus) -> tuple[Indices | None, Rows, Rows]:
    """Return the rows as they are stored, and the start and size of each run among them.

    The first is ``None`` where that is the order of the corpus.
    """
    stored = None if corpus.is_in_stored_order else corpus.stored_rows
    runs = corpus.pieces(_RUN_BYTES)
    runs = runs if stored is None else runs[stored]
    starts = np.append(0, 1 + np.flatnonzero(runs[1:] != runs[:-1]))
    return stored, starts, np.diff(starts, append=len(runs))


def lane_columns(rows: int, lanes: int) -> Indices:
    """Return the column of each row, of all lanes one after the other, shape (rows,).

    Example:
        Four lanes of three rows each, and a fifth that opens when eight rows are done:

        >>> lane_columns(13, 6).tolist()
        [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 2]
    """
    opened = _open_lanes(rows, lanes)
    # Lane l opens in the first column with more than l lanes.
    begin = np.searchsorted(opened, np.arange(opened[-1]), side="right")
    sizes = len(opened) - begin
    excess = int(opened.sum()) - rows
    sizes[len(sizes) - excess :] -= 1  # the last column is not full
    return ranges(begin, sizes)


def _open_lanes(rows: int, lanes: int) -> Indices:
    """Return the number of open lanes in each column until there is a place for each row."""
    first = min(_FIRST_LANES, lanes)
    opened: list[int] = []
    total = 0
    while total < rows and (not opened or opened[-1] < lanes):
        opened.append(min(lanes, first + total // _ROWS_PER_LANE))
        total += opened[-1]
    full = max(0, -(-(rows - total) // lanes))
    return np.array([*opened, *itertools.repeat(lanes, full)], np.int32)
