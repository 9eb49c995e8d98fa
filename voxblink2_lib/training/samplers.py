"""Four samplers: shuffled, by speaker, balanced, and by duration."""

from __future__ import annotations

import numpy as np

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training.corpus import Corpus, Rows
from voxblink2_lib.training.epoch_sampler import EpochSampler
from voxblink2_lib.training.epoch_state import at_least
from voxblink2_lib.training.mixing import default_order, lanes_of, mixed_rows
from voxblink2_lib.training.shared_epochs import Epoch
from voxblink2_lib.training.shuffling import Indices, ranges, shuffle, shuffle_ranges

_BLOCK_ROWS = 1 << 21  # of speakers whose queues are made at a time


class ShuffleSampler(EpochSampler):
    """Every utterance once in each epoch, shuffled.

    On local shards, each order is equally likely. Of shards in a bucket that are too many for
    their cache, a batch has rows of many pieces that are open at once, and each piece is downloaded
    about once in an epoch: see :mod:`voxblink2_lib.training.mixing`, and ``statistics()``.

    Args:
        corpus: the utterances.
        batch_size: most utterances in a batch of one rank; batches of an epoch differ by one.
        seed: of the order.
        rank: of this process; by default as it is in its process group.
        world_size: number of processes that train together; by default likewise.
        drop_last: batches of ``batch_size`` only; utterances that do not fill one on every rank
            are left out of the epoch.
        order: ``"full"``, or ``"mixed-N"`` with N pieces of shards open at once; by default full
            unless shards are remote and do not fit their cache, else with half of the cache open.
            A run that moves to another machine continues with the order in its state.

    Raises:
        TrainingError: an argument is not allowed.
    """

    _has_new_order = True

    def __init__(
        self,
        corpus: Corpus,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
        order: str | None = None,
    ) -> None:
        super().__init__(corpus, seed=seed, rank=rank, world_size=world_size)
        self._batch_size = at_least("batch_size", batch_size, 1)
        self._drop_last = drop_last
        self.order = default_order(corpus) if order is None else order
        self._lanes = lanes_of(self.order, corpus)
        self._parameters = (batch_size, drop_last)

    def _batches(self, generator: np.random.Generator) -> Epoch:
        count = len(self.corpus)
        rows = (
            mixed_rows(self.corpus, self._lanes, generator)
            if self._lanes
            else shuffle(count, generator)
        )
        if not self._drop_last:
            return Epoch(rows, _even(count, self._batch_size))
        full = count // self._batch_size
        return Epoch(rows, np.arange(full + 1) * self._batch_size)


class SpeakerSampler(EpochSampler):
    """Batches of ``speakers`` different speakers with ``utterances`` utterances each.

    In a turn each speaker is used once, but for those that do not fill a batch. No utterance of a
    speaker is repeated before all others were used. An epoch has about as many utterances as the
    corpus; it does not cover each of them.

    Args:
        corpus: the utterances.
        speakers: number of speakers in a batch of one rank.
        utterances: number of utterances of each of them.
        seed: of the order.
        rank: of this process; by default as it is in its process group.
        world_size: number of processes that train together; by default likewise.
    """

    order = "speakers"
    _has_new_order = True
    _drop_last = True  # a part of a batch would not have its speakers and utterances

    def __init__(
        self,
        corpus: Corpus,
        *,
        speakers: int,
        utterances: int,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__(corpus, seed=seed, rank=rank, world_size=world_size)
        self._speakers = at_least("speakers", speakers, 1)
        self._utterances = at_least("utterances", utterances, 1)
        if speakers > len(corpus.speakers):
            raise TrainingError(
                f"Batches of {speakers} different speakers were requested; the corpus has "
                f"{len(corpus.speakers)}."
            )
        self._parameters = (speakers, utterances)

    def _batches(self, generator: np.random.Generator) -> Epoch:
        count, each = len(self.corpus.speakers), self._utterances
        per_turn = count // self._speakers  # batches of a turn
        batches = max(1, len(self.corpus) // (self._speakers * each))
        turns = -(-batches // per_turn)
        queues = _queues(self.corpus, turns * each, generator)
        turns_had = np.zeros(count, np.int64)  # some speakers miss one
        rows = np.empty((turns, per_turn * self._speakers, each), np.int32)
        for turn in rows:
            chosen = shuffle(count, generator)[: len(turn)]
            turn[:] = queues[chosen[:, None], turns_had[chosen, None] * each + np.arange(each)]
            turns_had[chosen] += 1
        return Epoch(rows.ravel(), np.arange(turns * per_turn + 1) * self._speakers * each)


class BalancedSampler(EpochSampler):
    """Every speaker equally often in each epoch, whatever the number of its utterances.

    How often the utterances of a speaker are used in an epoch differs by at most one.

    Args:
        corpus: the utterances.
        batch_size: most utterances in a batch of one rank; batches of an epoch differ by one.
        per_speaker: number of uses of each speaker in an epoch; by default the average number of
            utterances of a speaker, rounded up.
        seed: of the order.
        rank: of this process; by default as it is in its process group.
        world_size: number of processes that train together; by default likewise.
    """

    order = "balanced"
    _has_new_order = True

    def __init__(
        self,
        corpus: Corpus,
        *,
        batch_size: int,
        per_speaker: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__(corpus, seed=seed, rank=rank, world_size=world_size)
        self._batch_size = at_least("batch_size", batch_size, 1)
        average = -(-len(corpus) // len(corpus.speakers))
        self._each = at_least("per_speaker", average if per_speaker is None else per_speaker, 1)
        self._parameters = (batch_size, self._each)

    def _batches(self, generator: np.random.Generator) -> Epoch:
        queues = _queues(self.corpus, self._each, generator).ravel()
        rows = queues[shuffle(len(queues), generator)]
        return Epoch(rows, _even(len(rows), self._batch_size))


class BucketSampler(EpochSampler):
    """Every utterance once in each epoch, in batches of similar durations, for whole utterances.

    Args:
        corpus: the utterances.
        batch_seconds: the most audio in a batch of one rank, padding included. (The last of an
            epoch may have twice as much if batches have fewer utterances than there are ranks.)
        buckets: number of classes of duration, of equally many utterances.
        seed: of the order.
        rank: of this process; by default as it is in its process group.
        world_size: number of processes that train together; by default likewise.
    """

    order = "buckets"

    def __init__(
        self,
        corpus: Corpus,
        *,
        batch_seconds: float,
        buckets: int = 20,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__(corpus, seed=seed, rank=rank, world_size=world_size)
        self._buckets = at_least("buckets", buckets, 1)
        self._samples = int(batch_seconds * SAMPLE_RATE_HZ)
        longest = int(corpus.samples.max())
        if self._samples < longest:
            raise TrainingError(
                f"batch_seconds is {batch_seconds:g}; the longest utterance, "
                f"{corpus.names([int(corpus.samples.argmax())])[0]}, takes "
                f"{longest / SAMPLE_RATE_HZ:g} s."
            )
        self._parameters = (self._samples, buckets)

    def _batches(self, generator: np.random.Generator) -> Epoch:
        by_length = np.argsort(self.corpus.samples, kind="stable").astype(np.int32)
        batches: list[Indices] = []
        for bucket in np.array_split(by_length, min(self._buckets, len(by_length))):
            size = self._samples // max(1, int(self.corpus.samples[bucket[-1]]))
            bounds = _even(len(bucket), size)
            batches += np.split(generator.permutation(bucket), bounds[1:-1])
        order = generator.permutation(len(batches))
        chosen = [batches[place] for place in order]
        return Epoch(np.concatenate(chosen), np.cumsum([0, *map(len, chosen)]))

    def _shares(self, places: Rows, epoch: Epoch) -> list[Rows]:
        # Similar durations together: shares across batches would be mostly padding.
        samples = self.corpus.samples[epoch.rows[places]]
        places = places[np.argsort(-samples, kind="stable")]
        samples = np.maximum(-np.sort(-samples), 1)
        for most in (self._samples, 2 * self._samples):  # twice is always enough
            shares, first = [], 0
            while first < len(places):
                size = most // int(samples[first])
                shares.append(places[first : first + size])
                first += size
            if len(shares) <= self._world:
                break
        while len(shares) < self._world:
            largest = shares.pop(max(range(len(shares)), key=lambda index: len(shares[index])))
            shares += np.array_split(largest, 2)
        return shares


def _even(count: int, most: int) -> Rows:
    """Return the bounds of the fewest parts of at most ``most``, whose sizes differ by one."""
    parts = max(1, -(-count // most))
    return np.arange(parts + 1, dtype=np.int64) * count // parts


def _queues(corpus: Corpus, each: int, generator: np.random.Generator) -> Indices:
    """Return a queue of utterances of each speaker, shape (speakers, each).

    It has all utterances of the speaker once, shuffled, then all of them again, shuffled anew.
    """
    count = np.bincount(corpus.speaker)
    ends = np.cumsum(count)
    queues = np.empty((len(count), each), np.int32)
    start = 0
    while start < len(count):
        rows_before = ends[start] - count[start]
        end = max(start + 1, int(np.searchsorted(ends, rows_before + _BLOCK_ROWS, side="right")))
        queues[start:end] = _places_in_order(count[start:end], each, generator) + rows_before
        start = end
    for part in np.array_split(queues, 1 + queues.size // _BLOCK_ROWS):
        part[:] = corpus.by_speaker[part]
    return queues


def _places_in_order(counts: Rows, each: int, generator: np.random.Generator) -> Indices:
    """Return the queues of some speakers, whose utterances are numbered one after the other."""
    repeats = -(-each // counts)  # how often a speaker's utterances are needed
    sizes = np.repeat(counts, repeats)  # of each repetition
    order = shuffle_ranges(sizes, generator)
    first = np.repeat(np.cumsum(counts) - counts, repeats)
    ends = np.cumsum(counts * repeats)
    places = (ends - counts * repeats)[:, None] + np.arange(each)
    queues: Indices = ranges(first, sizes)[order[places]]
    return queues
