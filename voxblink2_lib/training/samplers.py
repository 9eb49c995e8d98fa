"""Four samplers: shuffled, by speaker, balanced, and by duration."""

from __future__ import annotations

import numpy as np

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training.corpus import Corpus, Rows
from voxblink2_lib.training.epoch_sampler import Epoch, EpochSampler, at_least


class ShuffleSampler(EpochSampler):
    """Every utterance once in each epoch, shuffled.

    Blocks of neighbouring rows are shuffled, and then the rows within groups of many blocks: the
    rows of a group are in few places, which a cache of remote shards or of the operating system can
    hold. A corpus smaller than a group is shuffled as a whole.

    Args:
        corpus: the utterances.
        batch_size: most utterances in a batch of one rank; batches of an epoch differ by one.
        seed: of the order.
        rank: of this process; by default as it is in its process group.
        world_size: number of processes that train together; by default likewise.
        drop_last: batches of ``batch_size`` only; utterances that do not fill one on every rank
            are left out of the epoch.
        block_rows: number of neighbours that stay in one group.
        window_rows: number of rows in a group, which is shuffled as a whole.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
        block_rows: int = 64,
        window_rows: int = 1 << 16,
    ) -> None:
        super().__init__(corpus, seed=seed, rank=rank, world_size=world_size)
        self._batch_size = at_least("batch_size", batch_size, 1)
        self._drop_last = drop_last
        self._block_rows = at_least("block_rows", block_rows, 1)
        self._window_rows = at_least("window_rows", window_rows, 1)

    def _batches(self, generator: np.random.Generator) -> Epoch:
        shard = self.corpus.shard
        is_first = np.ones(len(shard), bool)
        is_first[1:] = shard[1:] != shard[:-1]
        of_shard = np.flatnonzero(is_first)
        place = np.arange(len(shard)) - np.repeat(of_shard, np.diff([*of_shard, len(shard)]))
        starts = np.flatnonzero(place % self._block_rows == 0)
        sizes = np.diff([*starts, len(shard)])
        blocks = generator.permutation(len(starts))
        rows = _ranges(starts[blocks], sizes[blocks])
        for first in range(0, len(rows), self._window_rows):
            generator.shuffle(rows[first : first + self._window_rows])
        if not self._drop_last:
            return Epoch(rows, _even(len(rows), self._batch_size))
        full = len(rows) // self._batch_size
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

    def _batches(self, generator: np.random.Generator) -> Epoch:
        count, each = len(self.corpus.speakers), self._utterances
        per_turn = count // self._speakers  # batches of a turn
        batches = max(1, len(self.corpus) // (self._speakers * each))
        turns = -(-batches // per_turn)
        queues = _queues(self.corpus, turns * each, generator)
        turns_had = np.zeros(count, np.int64)  # some speakers miss one
        rows = []
        for _ in range(turns):
            chosen = generator.permutation(count)[: per_turn * self._speakers]
            places = turns_had[chosen, None] * each + np.arange(each)
            rows.append(queues[chosen[:, None], places].ravel())
            turns_had[chosen] += 1
        return Epoch(np.concatenate(rows), np.arange(turns * per_turn + 1) * self._speakers * each)


class BalancedSampler(EpochSampler):
    """Every speaker equally often in each epoch, whatever the number of its utterances.

    No utterance of a speaker is repeated in an epoch before all others were used.

    Args:
        corpus: the utterances.
        batch_size: most utterances in a batch of one rank; batches of an epoch differ by one.
        per_speaker: number of uses of each speaker in an epoch; by default the average number of
            utterances of a speaker, rounded up.
        seed: of the order.
        rank: of this process; by default as it is in its process group.
        world_size: number of processes that train together; by default likewise.
    """

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

    def _batches(self, generator: np.random.Generator) -> Epoch:
        rows = _queues(self.corpus, self._each, generator).ravel()
        generator.shuffle(rows)
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

    def _batches(self, generator: np.random.Generator) -> Epoch:
        by_length = np.argsort(self.corpus.samples, kind="stable")
        batches: list[Rows] = []
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


def _ranges(starts: Rows, sizes: Rows) -> Rows:
    """Return start, start + 1, ... of each range, concatenated."""
    before = np.cumsum(sizes) - sizes
    values: Rows = np.arange(sizes.sum()) + np.repeat(starts - before, sizes)
    return values


def _queues(corpus: Corpus, each: int, generator: np.random.Generator) -> Rows:
    """Return a queue of utterances of each speaker, shape (speakers, each).

    It has all utterances of the speaker once, shuffled, then all of them again, shuffled anew.
    """
    speaker = corpus.speaker.astype(np.int64)
    count = np.bincount(speaker)
    repeats = -(-each // count)  # how often a speaker's utterances are needed
    rows = np.repeat(np.arange(len(speaker)), repeats[speaker])
    repeat = _ranges(np.zeros(len(speaker), np.int64), repeats[speaker])
    order = np.lexsort((generator.random(len(rows)), repeat, speaker[rows]))
    ends = np.cumsum(count * repeats)
    places: Rows = (ends - count * repeats)[:, None] + np.arange(each)
    return rows[order[places]]
