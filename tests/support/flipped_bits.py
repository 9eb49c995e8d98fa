"""Read shards in which bits were flipped, as all readers of stores do. Run as a process of its own.

Where a reader uses a value before it is checked, such a shard ends the process.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import numpy as np

from voxblink2_lib.embedding.blocks import find_blocks
from voxblink2_lib.errors import (
    ClipDamagedError,
    StoreError,
    TrainingError,
    VoxBlink2Error,
)
from voxblink2_lib.store.shard_check import open_shard, shard_batches
from voxblink2_lib.training import Corpus, Reader

MEMORY_BYTES = 6 << 30
Rows = list[dict[str, object]]


def read_rows(path: Path) -> Rows:
    """Read all rows as ``verify`` and ``load_dataset`` do."""
    return [row for batch in shard_batches(open_shard(path)) for row in batch.to_pylist()]


def read_clips(path: Path) -> None:
    """Read all clips as training does."""
    corpus = Corpus.open(path.parent)
    reader = Reader(corpus)
    for row in range(len(corpus)):
        with contextlib.suppress(ClipDamagedError, TrainingError):
            reader.read(row)


def read_blocks(path: Path) -> None:
    """Read names and audio as ``embed`` does."""
    for block in find_blocks(path).blocks:
        list(block.read())


def check_message(error: VoxBlink2Error, shard: Path) -> None:
    """Check that an error names the shard, and is no longer than a few lines."""
    assert shard.name in str(error), error
    assert len(str(error)) < 1000, error


def flip(data: bytes, seed: int) -> bytes:
    """Return bytes of which one bit is another."""
    random = np.random.default_rng(seed)
    flipped = bytearray(data)
    flipped[random.integers(len(data))] ^= 1 << random.integers(8)
    return bytes(flipped)


def main(shard: Path, seeds: range) -> None:
    """Write how many of the damages were reported, and in how many rows differ."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    data, rows = shard.read_bytes(), read_rows(shard)
    reported = different = 0
    for seed in seeds:
        shard.write_bytes(flip(data, seed))
        for path in shard.parent.glob(".catalogue/*"):
            path.unlink()
        try:
            different += read_rows(shard) != rows
        except StoreError as error:
            check_message(error, shard)
            reported += 1
        for read in (read_clips, read_blocks):
            try:
                read(shard)
            except VoxBlink2Error as error:
                check_message(error, shard)
    sys.stdout.write(f"{reported} {different}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3])))
