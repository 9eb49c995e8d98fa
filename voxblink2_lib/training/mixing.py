"""The order for shards in buckets: many of their pieces are open at once, each is read once.

Shards come in runs of 16 MiB, shuffled and cut into N lanes of about as many rows. All lanes are
open together; each gives a row in turn, in random order, so that a batch of up to N utterances has
them from as many places, and of about as many speakers:

    lane 0    run 71  | run 3 ...          a run is read from its first piece of 4 MiB to its last;
    lane 1    run 12 | run 40 ...          the rows of a piece are shuffled
    ...
    column    0 1 2 3 4 5 ...              column c has a row of each lane, shuffled

Lanes are opened one after the other, four at first, then one for each eight rows, so that an epoch
does not begin with the download of N pieces. All end together.
"""

from __future__ import annotations

import itertools
import re

import numpy as np

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training.corpus import Corpus
from voxblink2_lib.training.remote_shards import RemoteShards
from voxblink2_lib.training.shuffling import Indices, ranges, shuffle, shuffle_within

FULL = "full"
# These are parts of the order: other numbers are another order.
_PIECE_BYTES = 4 << 20  # of what a cache of remote shards downloads at a time
_PIECES_IN_RUN = 4
_FIRST_LANES, _ROWS_PER_LANE = 4, 8
# An open piece, and one that holds the end of its last clip or was just done.
_CACHED_PIECES_PER_LANE = 2


def default_order(corpus: Corpus) -> str:
    """Return ``"full"``, or ``"mixed-N"`` for remote shards that are too many for their cache."""
    shards = corpus.shards
    if not isinstance(shards, RemoteShards) or corpus.shard_bytes <= shards.cache_bytes:
        return FULL
    return f"mixed-{max(1, shards.cache_bytes // (_CACHED_PIECES_PER_LANE * _PIECE_BYTES))}"


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
            "at once, such as 'mixed-1024'."
        )
    lanes = int(order.removeprefix("mixed-"))
    needed = lanes * _CACHED_PIECES_PER_LANE * _PIECE_BYTES
    if isinstance(corpus.shards, RemoteShards) and needed > corpus.shards.cache_bytes:
        raise TrainingError(
            f"The order {order!r} needs a cache of {needed:,} bytes; the corpus was opened with "
            f"{corpus.shards.cache_bytes:,}. Open it with cache_bytes={needed}."
        )
    return lanes


def mixed_rows(corpus: Corpus, lanes: int, generator: np.random.Generator) -> Indices:
    """Return all rows of a corpus, mixed from so many places at a time, shape (n,)."""
    by_run = shuffle_within(_piece_ranks(corpus, generator), generator)
    columns = lane_columns(len(corpus), lanes)
    rows: Indices = by_run[shuffle_within(columns, generator)]
    return rows


def _piece_ranks(corpus: Corpus, generator: np.random.Generator) -> Indices:
    """Return where the piece in which each clip begins comes: runs are shuffled, shape (n,)."""
    pieces = corpus.pieces(_PIECE_BYTES, in_run=_PIECES_IN_RUN)
    runs = int(pieces.max()) // _PIECES_IN_RUN + 1
    first = shuffle(runs, generator) * np.int32(_PIECES_IN_RUN)
    ranks: Indices = first[pieces // _PIECES_IN_RUN]
    ranks += pieces % _PIECES_IN_RUN
    return ranks


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
    total, opened = 0, []
    while total < rows and (not opened or opened[-1] < lanes):
        opened.append(min(lanes, first + total // _ROWS_PER_LANE))
        total += opened[-1]
    full = max(0, -(-(rows - total) // lanes))
    return np.array([*opened, *itertools.repeat(lanes, full)], np.int32)
