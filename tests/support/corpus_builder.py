"""Corpora of synthetic numbers, without shards: samplers do not need them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from hypothesis import strategies as st

from voxblink2_lib.store.catalogue import Catalogue, Shard
from voxblink2_lib.training import (
    BalancedSampler,
    BucketSampler,
    Corpus,
    EpochSampler,
    SeededRow,
    ShuffleSampler,
    SpeakerSampler,
)

# Makes the sampler of a rank: from (corpus, seed, rank, world_size).
Make = Callable[[Corpus, int, int, int], EpochSampler]


def corpus(
    speakers: npt.ArrayLike,
    *,
    samples: npt.ArrayLike | None = None,
    shards: Sequence[int] | None = None,
    clip_bytes: int = 1,
) -> Corpus:
    """Return a corpus.

    Args:
        speakers: number of each utterance's speaker, shape (n,).
        samples: length of each utterance at 16 kHz, shape (n,); by default a second.
        shards: number of utterances of each shard; by default all are in one.
        clip_bytes: size of each clip; they follow each other in their shard.
    """
    numbers = np.asarray(speakers, np.int64)
    count = len(numbers)
    rows = [count] if shards is None else list(shards)
    assert sum(rows) == count
    place = np.concatenate([np.arange(size) for size in rows])
    table = pa.table(
        {
            "speaker_id": pa.array([f"id{value:06}" for value in numbers]).dictionary_encode(),
            "video_id": pa.array([f"video{row:06}" for row in range(count)]),
            "utterance_id": pa.array([f"{row:05}" for row in range(count)]),
            "samples": pa.array(
                np.full(count, 16_000) if samples is None else samples, type=pa.int32()
            ),
            "offset": pa.array(place * clip_bytes),
            "size": pa.array(np.full(count, clip_bytes, np.int32)),
        }
    )
    sealed = tuple(
        Shard(f"{number:05}.arrow", value * clip_bytes, value) for number, value in enumerate(rows)
    )
    return Corpus(Catalogue(table, sealed), Path("nowhere"))


def large_catalogue(
    speakers: int, utterances: int, *, rows_per_shard: int = 5_000, clip_bytes: int = 130_000
) -> Catalogue:
    """Return a catalogue of so many speakers, in order, with as many utterances each.

    Names of videos and utterances are empty: there may be millions of them.
    """
    count = speakers * utterances
    rows = np.arange(count)
    nothing = pa.array([""]).take(pa.array(np.zeros(count, np.int32)))
    names = pa.array([f"id{value:06}" for value in range(speakers)])
    codes = pa.array((rows // utterances).astype(np.int32))
    columns = {
        "speaker_id": pa.DictionaryArray.from_arrays(codes, names),
        "video_id": nothing,
        "utterance_id": nothing,
        "samples": np.full(count, 16_000, np.int32),
        "offset": rows % rows_per_shard * clip_bytes,
        "size": np.full(count, clip_bytes, np.int32),
    }
    sizes = [min(rows_per_shard, count - first) for first in range(0, count, rows_per_shard)]
    shards = tuple(
        Shard(f"{number:05}.arrow", size * clip_bytes, size) for number, size in enumerate(sizes)
    )
    return Catalogue(pa.table(columns), shards)


@st.composite
def corpora(draw: st.DrawFn, *, most: int = 60, clip_bytes: int = 1) -> Corpus:
    """Draw a corpus of up to so many utterances, in several shards, of several speakers."""
    count = draw(st.integers(1, most))
    speakers = draw(st.lists(st.integers(0, 7), min_size=count, max_size=count))
    samples = draw(st.lists(st.integers(1, 160_000), min_size=count, max_size=count))
    cuts = draw(st.sets(st.integers(1, count), max_size=5))
    shards = np.diff(sorted({0, count} | cuts)).tolist()
    return corpus(speakers, samples=samples, shards=shards, clip_bytes=clip_bytes)


def shuffle(batch_size: int, *, drop_last: bool = False, order: str = "full") -> Make:
    """Return a factory of a ShuffleSampler."""
    return _maker(ShuffleSampler, batch_size=batch_size, drop_last=drop_last, order=order)


def by_speaker(speakers: int, utterances: int) -> Make:
    """Return a factory of a SpeakerSampler."""
    return _maker(SpeakerSampler, speakers=speakers, utterances=utterances)


def balanced(batch_size: int, per_speaker: int | None = None) -> Make:
    """Return a factory of a BalancedSampler."""
    return _maker(BalancedSampler, batch_size=batch_size, per_speaker=per_speaker)


def bucket(batch_seconds: float, buckets: int = 4) -> Make:
    """Return a factory of a BucketSampler."""
    return _maker(BucketSampler, batch_seconds=batch_seconds, buckets=buckets)


def _maker(kind: Callable[..., EpochSampler], **options: Any) -> Make:
    return lambda corpus, seed, rank, world: kind(
        corpus, seed=seed, rank=rank, world_size=world, **options
    )


def ranks(make: Make, of: Corpus, world: int, *, seed: int = 0) -> list[EpochSampler]:
    """Return the samplers of all ranks."""
    return [make(of, seed, rank, world) for rank in range(world)]


def epoch_of(samplers: Sequence[EpochSampler], epoch: int = 0) -> list[list[list[SeededRow]]]:
    """Return the batches of each rank in an epoch; the samplers are then at its start."""
    batches = []
    for sampler in samplers:
        sampler.set_epoch(epoch)
        batches.append(list(sampler))
        sampler.set_epoch(epoch)
    return batches


def keyed(batches: Sequence[Sequence[SeededRow]]) -> list[list[tuple[int, tuple[int, int, int]]]]:
    """Return rows with their keys: seeded rows compare equal if only their indices do."""
    return [[(int(row), row.key) for row in batch] for batch in batches]
