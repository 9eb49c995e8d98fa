"""Measure the order of an epoch of VoxBlink2: 9.9 million utterances of 111,284 speakers.

Time and memory of each sampler, in a process of its own, beside NumPy's permutation of as many
numbers. How well the orders of local and of remote shards mix speakers, and how often the latter
downloads a piece. And the equal error rate of a small model, trained on synthetic vectors for equal
steps in three orders: full, mixed as of remote shards, and that of earlier versions, which shuffled
windows of neighbours. It is scaled: windows, lanes and corpus are in the proportion of VoxBlink2.

Example:
    python benchmarks/order.py
    python benchmarks/order.py --quick --json
"""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from figures import Figure, figure, run_benchmark
from order_inputs import windowed_rows, write_catalogue
from order_model import train_and_score

from voxblink2_lib.store.catalogue import Catalogue
from voxblink2_lib.training import Corpus, ShuffleSampler
from voxblink2_lib.training.mixing import lane_columns
from voxblink2_lib.training.shuffling import ranges, shuffle, shuffle_within
from voxblink2_lib.training.statistics import order_statistics

SPEAKERS, QUICK_SPEAKERS = 111_284, 2_000
ROUNDS, QUICK_ROUNDS = 3, 1
MODEL_SPEAKERS, QUICK_MODEL_SPEAKERS = 1_600, 200
LANES, PIECE_BYTES = 4_096, 1 << 20
SAMPLERS = {
    "ShuffleSampler, full": "ShuffleSampler(corpus, batch_size=64)",
    "ShuffleSampler, mixed": "ShuffleSampler(corpus, batch_size=64, order='mixed-4096')",
    "SpeakerSampler": "SpeakerSampler(corpus, speakers=32, utterances=2)",
    "BalancedSampler": "BalancedSampler(corpus, batch_size=64)",
    "BucketSampler": "BucketSampler(corpus, batch_seconds=400)",
}
# Memory is the peak since the imports, which 5 in clear_refs sets back to what is in use.
_MAKE = """
import re, sys, time
from pathlib import Path
import numpy as np
from voxblink2_lib.store.catalogue import Catalogue
from voxblink2_lib.training import *

def resident(name):
    return int(re.search(name + r":\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

Path("/proc/self/clear_refs").write_text("5")
before, started = resident("VmRSS"), time.process_time()
corpus = Corpus(Catalogue.read(Path(sys.argv[1])), Path("nowhere"))
rows = {sampler}.epoch_batches(0).rows
taken = time.process_time() - started
peak = resident("VmHWM") - before
started = time.process_time()
np.random.default_rng(0).permutation(len(rows))
print(taken, peak, time.process_time() - started)
"""


def make_epoch(sampler: str, catalogue: Path) -> tuple[float, float, float]:
    """Return CPU time and memory of an epoch in a new process, and the time of a permutation."""
    script = _MAKE.replace("{sampler}", sampler)
    command = [sys.executable, "-c", script, str(catalogue)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, megabytes, permutation = map(float, done.stdout.split())
    return seconds, megabytes, permutation


def costs(catalogue: Path, rounds: int) -> Iterator[Figure]:
    """Yield time and memory of each sampler."""
    for name, sampler in SAMPLERS.items():
        seconds, megabytes, permutation = zip(
            *(make_epoch(sampler, catalogue) for _ in range(rounds)), strict=True
        )
        ratios = [own / other for own, other in zip(seconds, permutation, strict=True)]
        target: dict[str, Any] = {} if name == "BucketSampler" else {"at_most": 2}
        yield figure(f"{name}: an epoch, CPU time", list(seconds), unit="s", **target)
        yield figure(f"{name}: the same / a permutation by NumPy", ratios)
        yield figure(f"{name}: peak memory", list(megabytes), unit="MB", at_most=400)


def mixing(corpus: Corpus) -> Iterator[Figure]:
    """Yield how well the orders mix, beside a uniform order, and what the mixed one downloads."""
    for order in ("full", f"mixed-{LANES}"):
        for batch_size in (64, 512):
            sampler = ShuffleSampler(corpus, batch_size=batch_size, order=order)
            epoch = sampler.epoch_batches(0)
            values = order_statistics(corpus.speaker, epoch)
            share = values.batch_speakers / values.uniform_batch_speakers
            name = f"{order}: speakers in a batch of {batch_size} / uniform"
            yield figure(name, [share], at_least=0.99 if order == "full" else 0.9)
        parts = values.speaker_parts / values.uniform_speaker_parts
        yield figure(f"{order}: hundredths of the epoch with a speaker / uniform", [parts])
    yield figure(
        f"{order}: downloads of a piece in an epoch", [downloads_per_piece(corpus)], at_most=1.3
    )


def downloads_per_piece(corpus: Corpus) -> float:
    """Return it for a part of the corpus, with as small a part of the cache."""
    part = corpus.select(np.arange(min(len(corpus), 300_000)))
    lanes = max(1, LANES * len(part) // len(corpus))
    rows = ShuffleSampler(part, batch_size=64, order=f"mixed-{lanes}").epoch_batches(0).rows
    cached: OrderedDict[tuple[str, int], None] = OrderedDict()
    downloads, pieces = 0, set()
    for place in map(part.place, rows.tolist()):
        last = (place.offset + place.size - 1) // PIECE_BYTES
        for number in range(place.offset // PIECE_BYTES, last + 1):
            piece = (place.shard, number)
            downloads += piece not in cached
            pieces.add(piece)
            cached[piece] = None
            cached.move_to_end(piece)
            if len(cached) > 2 * lanes:
                cached.popitem(last=False)
    return downloads / len(pieces)


Order = Callable[[int, np.random.Generator], npt.NDArray[Any]]


def scaled_orders(share: float) -> dict[str, Order]:
    """Return the orders of a corpus that is such a share of VoxBlink2."""

    def mixed(rows: int, generator: np.random.Generator) -> npt.NDArray[Any]:
        starts = np.arange(0, rows, 33)  # clips of 4 MiB
        runs = shuffle(len(starts), generator)
        by_run = ranges(starts[runs], np.diff(starts, append=rows)[runs])
        columns = lane_columns(rows, max(1, round(LANES * share)))
        return by_run[shuffle_within(columns, generator)]

    def windowed(rows: int, generator: np.random.Generator) -> npt.NDArray[Any]:
        return windowed_rows(rows, generator, window=round(65_536 * share))

    return {"full": shuffle, "mixed": mixed, "windowed": windowed}


def models(speakers: int, rounds: int) -> Iterator[Figure]:
    """Yield the error rates of models after equal steps, in turns."""
    orders = scaled_orders(speakers / SPEAKERS)
    rates: dict[str, list[float]] = {name: [] for name in orders}
    for seed in range(rounds):
        for name, order in orders.items():
            rates[name].append(train_and_score(order, speakers, seed))
    yield figure(
        "EER of a small model, full order", [100 * each for each in rates["full"]], unit="%"
    )
    for name in ("windowed", "mixed"):
        ratios = [own / full for own, full in zip(rates[name], rates["full"], strict=True)]
        yield figure(f"the same, {name} / full", ratios)


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    """Yield all figures."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    path = folder / "audio.arrow"
    write_catalogue(path, QUICK_SPEAKERS if quick else SPEAKERS)
    yield from costs(path, rounds)
    yield from mixing(Corpus(Catalogue.read(path), Path("nowhere")))
    yield from models(QUICK_MODEL_SPEAKERS if quick else MODEL_SPEAKERS, rounds)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
