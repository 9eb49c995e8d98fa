"""Rows of a shard in files of a size that the Hub advises."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.hub.units import pieces
from voxblink2_lib.records import SealedShard
from voxblink2_lib.store.view import ShardRows

ROWS = 40


@given(
    chosen=st.sets(st.integers(0, ROWS - 1), min_size=1),
    sizes=st.lists(st.integers(1, 100), min_size=ROWS, max_size=ROWS),
    most=st.integers(1, 500),
)
def test_pieces_are_all_rows_in_order(chosen: set[int], sizes: list[int], most: int) -> None:
    rows = sorted(chosen)
    edges = [(row, row + 1) for row in rows]
    ranges: list[list[int]] = []
    for start, stop in edges:
        if ranges and ranges[-1][1] == start:
            ranges[-1][1] = stop
        else:
            ranges.append([start, stop])
    shard = SealedShard(0, "audio-00000.arrow", "0" * 64, ROWS, 1)
    part = ShardRows(shard, np.array(ranges, np.int64))
    row_sizes = np.array([sizes[row] for row in rows], np.int64)
    parts = list(pieces(part, row_sizes, most))
    taken = [row for piece in parts for bounds in piece.rows.ranges for row in range(*bounds)]
    assert taken == rows
    assert sum(piece.size_bytes for piece in parts) == row_sizes.sum()
    assert all(piece.size_bytes <= most or piece.rows.rows == 1 for piece in parts)
    # No two neighbours would fit into one file with the first row of the next.
    for piece, following in pairwise(parts):
        first = int(following.rows.ranges[0, 0])
        assert piece.size_bytes + sizes[first] > most
