"""Measure scoring against the simplest code that does the same, on two cores.

Times are taken in turns (A B A B ...), and reported as ratios: the median of the rounds, with
minimum and maximum. Peak memory is measured in separate processes. A benchmark is evidence, not a
gate: it exits with 0 whether or not the targets are met.

Example:
    python benchmarks/scoring.py
    python benchmarks/scoring.py --quick
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import evaluate
import numpy as np
from figures import Figure, figure, run_benchmark, seconds_of
from machine import peak_memory_bytes
from sklearn.metrics import roc_curve

from voxblink2_lib import metrics_path
from voxblink2_lib.scoring import (
    Sweep,
    bootstrap_intervals,
    cosine_scores,
    eer,
    min_dcf,
    open_set_identification,
    read_trials,
)
from voxblink2_lib.scoring.validation import Floats


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    trials: int
    probes: int
    speakers: int
    large_probes: int
    large_speakers: int
    large_part: int
    utterances: int
    metric_scores: int


FULL = Size(5, 10_000_000, 40_000, 5_000, 1_000_000, 111_284, 20_480, 200_000, 1_000_000)
QUICK = Size(3, 200_000, 4_000, 500, 20_000, 2_000, 4_096, 10_000, 20_000)
DIMENSIONS = 256


def verification_data(trials: int, kind: type) -> tuple[Floats, Any]:
    generator = np.random.default_rng(1)
    labels = (generator.random(trials) < 0.3).astype(np.int8)
    scores = generator.normal(size=trials)
    scores += 2 * labels
    return scores.astype(kind), labels


def verify(scores: Floats, labels: Any) -> None:
    sweep = Sweep.of(scores, labels)
    eer(sweep)
    min_dcf(sweep)


def measure_verification(size: Size) -> Iterator[Figure]:
    for kind in (np.float64, np.float32):
        scores, labels = verification_data(size.trials, kind)
        ratios = turns(
            partial(verify, scores, labels), partial(roc_curve, labels, scores), size.rounds
        )
        name = f"{size.trials:,} trials, {np.dtype(kind)}: EER and minDCF / sklearn's roc_curve"
        yield figure(name, ratios, at_most=0.4)
        peak = in_process(peak_of_verification, size.trials, kind)
        yield figure("   peak memory, input included / input", [peak], at_most=3)


def peak_of_verification(trials: int, kind: type) -> float:
    scores, labels = verification_data(trials, kind)
    given: int = scores.nbytes + labels.nbytes
    before = reset_peak()
    verify(scores, labels)
    return float(peak_memory_bytes(None) - before + given) / given


def embeddings(rows: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, DIMENSIONS)).astype(np.float32)


def measure_open_set(size: Size) -> Iterator[Figure]:
    gallery, probes = embeddings(3 * size.speakers, 1), embeddings(size.probes, 2)
    labels = np.repeat(np.arange(size.speakers), 3)
    truth = np.arange(size.probes) % (2 * size.speakers)
    models = gallery[: size.speakers]
    output = np.empty((size.probes, size.speakers), np.float32)
    ratios = turns(
        partial(open_set_identification, gallery, labels, probes, truth),
        partial(np.matmul, probes, models.T, out=output),
        size.rounds,
    )
    name = f"OSSI, {size.probes:,} probes, {size.speakers:,} speakers x 3 / the bare product"
    yield figure(name, ratios, at_most=1.25)
    seconds, peak = in_process(large_open_set, size)
    name = f"OSSI, {size.large_probes:,} probes, {size.large_speakers:,} speakers"
    yield figure(f"{name}: peak memory, embeddings included", [peak / 1e9], unit="GB", at_most=2)
    minutes = seconds / 60 * size.large_probes / size.large_part
    yield figure(f"   time, projected from {size.large_part:,} probes", [minutes], unit="min")


def large_open_set(size: Size) -> tuple[float, float]:
    """Keep all embeddings in memory, identify a part of the probes."""
    before = reset_peak()
    generator = np.random.default_rng(3)
    gallery = generator.standard_normal((size.large_speakers, DIMENSIONS), np.float32)
    probes = generator.standard_normal((size.large_probes, DIMENSIONS), np.float32)
    labels = np.arange(size.large_speakers)
    truth = generator.integers(2 * size.large_speakers, size=size.large_probes)
    part = slice(size.large_probes - size.large_part, None)
    work = partial(open_set_identification, gallery, labels, probes[part], truth[part])
    return seconds_of(work), peak_memory_bytes(None) - before


def measure_trials(size: Size, folder: Path) -> Iterator[Figure]:
    vectors = embeddings(size.utterances, 4)
    generator = np.random.default_rng(5)
    enrolment, test = generator.integers(size.utterances, size=(2, size.trials))
    ratios = turns(
        partial(cosine_scores, vectors, enrolment, test),
        partial(gather_and_dot, vectors, enrolment, test),
        size.rounds,
    )
    name = f"{size.trials:,} trials of {size.utterances:,} embeddings / gather and dot"
    yield figure(name, ratios, at_most=2)
    peak = in_process(peak_of_trials, size)
    yield figure("   memory beyond embeddings, rows and scores", [peak / 1e6], unit="MB")
    file = folder / "trials"
    with open(file, "w", encoding="utf-8") as lines:
        for left, right in zip(enrolment, test, strict=True):
            lines.write(
                f"{(left ^ right) & 1} id{left % 9000:05}/abcdefghijk/{left:06}.wav "
                f"id{right % 9000:05}/abcdefghijk/{right:06}.wav\n"
            )
    ratios = turns(partial(read_trials, file), partial(split_lines, file), min(3, size.rounds))
    yield figure("   reading their list / splitting its lines in Python", ratios)


def gather_and_dot(vectors: Floats, enrolment: Any, test: Any) -> Floats:
    scores = np.empty(len(enrolment), np.float32)
    for start in range(0, len(scores), 1024):
        part = slice(start, start + 1024)
        np.einsum("ij,ij->i", vectors[enrolment[part]], vectors[test[part]], out=scores[part])
    return scores


def peak_of_trials(size: Size) -> float:
    vectors = embeddings(size.utterances, 4)
    rows = np.random.default_rng(5).integers(size.utterances, size=(2, size.trials))
    before = reset_peak()
    scores = cosine_scores(vectors, *rows)
    return peak_memory_bytes(None) - before - scores.nbytes


def split_lines(file: Path) -> int:
    with open(file, encoding="utf-8") as lines:
        return len([line.split() for line in lines])


def measure_bootstrap(size: Size) -> Iterator[Figure]:
    trials, resamples = 37_720, 1000
    scores, labels = verification_data(trials, np.float64)
    few = 50

    def again() -> None:
        generator = np.random.default_rng(6)
        for _ in range(few):
            rows = generator.integers(trials, size=trials)
            verify(scores[rows], labels[rows])

    ours: list[float] = []

    def bootstrap() -> None:
        ours.append(seconds_of(partial(bootstrap_intervals, scores, labels, resamples=resamples)))

    ratios = turns(bootstrap, again, size.rounds)
    name = f"bootstrap of EER and minDCF, {trials:,} trials, {resamples:,} resamples"
    yield figure(name, ours, unit="s", at_most=5)
    scaled = [ratio * few / resamples for ratio in ratios]
    yield figure("   the same / scoring each resample anew", scaled)


class Plain(evaluate.Metric):  # type: ignore[misc]  # evaluate has no type hints
    """The EER as a metric that lets ``evaluate`` convert its input."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.load(metrics_path("eer"))._info()

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return dict(eer(predictions, references)._asdict())


def measure_metrics(size: Size, folder: Path) -> Iterator[Figure]:
    scores, labels = verification_data(size.metric_scores, np.float64)
    metric = evaluate.load(metrics_path("eer"), cache_dir=str(folder))
    compute = partial(metric.compute, predictions=scores, references=labels)
    ratios = turns(compute, partial(eer, scores, labels), size.rounds)
    name = f"metric eer, {size.metric_scores:,} scores: compute / our own function"
    yield figure(name, ratios, at_most=1.2)
    plain = partial(Plain(cache_dir=str(folder)).compute, predictions=scores, references=labels)
    yield figure("   the same / evaluate's own conversion", turns(compute, plain, size.rounds))
    gallery, probes = embeddings(3 * size.speakers, 1), embeddings(size.probes, 2)
    truth = np.arange(size.probes) % (2 * size.speakers)
    labels = np.repeat(np.arange(size.speakers), 3)
    ossi = evaluate.load(metrics_path("ossi"), cache_dir=str(folder))
    ratios = turns(
        partial(
            ossi.compute,
            predictions=probes,
            references=truth,
            gallery=gallery,
            gallery_labels=labels,
        ),
        partial(open_set_identification, gallery, labels, probes, truth),
        size.rounds,
    )
    yield figure("metric ossi: compute / our own function", ratios, at_most=1.2)


# -- Measuring -------------------------------------------------------------------------------------


def turns(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> list[float]:
    """Return ours / theirs of each round; the first round only warms up."""
    return [seconds_of(ours) / seconds_of(theirs) for _ in range(rounds + 1)][1:]


def in_process(work: Callable[..., Any], *arguments: object) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def reset_peak() -> int:
    """Reset the peak memory; return the memory in use."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_memory_bytes(None)


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    yield from measure_verification(size)
    yield from measure_open_set(size)
    yield from measure_trials(size, folder)
    yield from measure_bootstrap(size)
    yield from measure_metrics(size, folder)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
