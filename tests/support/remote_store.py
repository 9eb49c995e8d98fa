"""A small store, of three shards with silence in them, as it is uploaded by hand."""

from __future__ import annotations

from pathlib import Path

from support import shard_builder
from voxblink2_lib.training import Corpus

SHARDS, ROWS_PER_SHARD = 3, 16
ROWS = SHARDS * ROWS_PER_SHARD


def make_store(folder: Path) -> Path:
    """Make the store, with its catalogue; clips are of different lengths."""
    store = folder / "store"
    shards = store / "shards" / "audio"
    shards.mkdir(parents=True)
    for shard in range(SHARDS):
        rows = range(ROWS_PER_SHARD * shard, ROWS_PER_SHARD * (shard + 1))
        sound = [
            shard_builder.clip(row, frames=20 + 5 * (row % 11), speaker=f"id{row // 8:06}")
            for row in rows
        ]
        shard_builder.seal(shards / f"{shard}.arrow", sound)
    Corpus.open(store)
    return store


def files_of(store: Path) -> dict[str, bytes]:
    """Return the content of its files by their paths in it."""
    paths = (path for path in store.rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in paths}
