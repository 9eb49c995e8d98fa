"""What is taken out of waveforms and features, and how much of it at most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.property_settings import fewer_examples
from support.shard_builder import RATE, Array, talk
from support.sounds import SECOND, power, seeded, strength, tone

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training import DropChunks, DropFrequencies, SpecAugment

PROPERTY = fewer_examples(2)


def lengths_of_runs(flags: Any) -> list[int]:
    """Return the lengths of the runs of ``True``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    lengths: list[int] = (edges[1::2] - edges[::2]).tolist()
    return lengths


# -- Chunks ----------------------------------------------------------------------------------------


@PROPERTY
@given(samples=st.integers(1, 40_000), chunks=st.integers(1, 6), seed=st.integers(0, 10**6))
@example(samples=1, chunks=1, seed=0)
def test_chunks_are_silent_and_the_rest_stays(samples: int, chunks: int, seed: int) -> None:
    speech = np.ones(samples, np.float32)
    dropped = DropChunks(chunks=(1, chunks), seconds=(0.05, 0.1))(speech, seeded(seed))
    assert dropped.shape == speech.shape
    assert dropped.dtype == np.float32
    assert set(np.unique(dropped)) <= {0, 1}
    assert dropped.mean() >= 0.5
    runs = lengths_of_runs(dropped == 0)
    assert len(runs) <= chunks
    assert sum(runs) <= chunks * 1_600
    # Chunks may overlap, but the first has at least its shortest length, if that leaves a half.
    assert max(runs, default=0) >= min(800, samples // (2 * chunks))
    assert speech.all()


def test_chunks_are_anywhere_and_as_many_as_drawn() -> None:
    drop, generator, counts = DropChunks(seconds=(0.01, 0.01)), seeded(), np.zeros(10 * SECOND)
    numbers = set()
    for _ in range(300):
        is_silent = drop(np.ones(10 * SECOND, np.float32), generator) == 0
        counts += is_silent
        numbers.add(len(lengths_of_runs(is_silent)))
    assert numbers == {1, 2, 3, 4, 5}
    tenths = counts.reshape(10, -1).sum(axis=1) / counts.sum()
    # About 900 chunks: three standard deviations of a tenth of them are 0.03.
    assert tenths == pytest.approx([0.1] * 10, abs=0.03)


# -- Frequencies -----------------------------------------------------------------------------------


def gains(sound: Array, plain: Array) -> Any:
    """Return the gain of each 20 Hz, shape (400,)."""
    powers = [np.square(np.abs(np.fft.rfft(each, RATE))) for each in (sound, plain)]
    sums = [each[:8_000].reshape(400, 20).sum(axis=1) for each in powers]
    return np.sqrt(sums[0] / sums[1])


@pytest.mark.parametrize("seed", range(6))
def test_a_band_is_gone_and_the_rest_stays(seed: int) -> None:
    noise = 0.1 * seeded(9).standard_normal(SECOND).astype(np.float32)
    drop = DropFrequencies(bands=(1, 1), width_hz=(400, 400))
    dropped = drop(noise, seeded(seed))
    assert dropped.dtype == np.float32
    assert dropped.shape == noise.shape
    gain = gains(dropped, noise)
    (gone,) = lengths_of_runs(gain < 0.5)  # one run
    assert gone * 20 <= 400 + 40
    assert (np.abs(gain - 1) < 0.1).sum() >= 400 - 700 / 20
    assert gain.min() < 0.05


def test_bands_are_anywhere_and_as_many_as_drawn() -> None:
    noise, generator = 0.1 * seeded(9).standard_normal(SECOND).astype(np.float32), seeded(1)
    drop, counts, numbers = DropFrequencies(width_hz=(100, 100)), np.zeros(400), set()
    for _ in range(150):
        is_gone = gains(drop(noise, generator), noise) < 0.5
        counts += is_gone
        numbers.add(len(lengths_of_runs(is_gone)))
    assert numbers == {1, 2, 3}
    quarters = counts.reshape(4, -1).sum(axis=1) / counts.sum()
    # About 300 bands: three standard deviations of a quarter are 0.08.
    assert quarters == pytest.approx([0.25] * 4, abs=0.08)


def test_a_tone_in_the_band_is_gone_and_others_stay() -> None:
    other = tone(7_000, 2 * SECOND)
    drop = DropFrequencies(bands=(1, 1), width_hz=(2_000, 2_000))
    results = [drop(tone(1_000, 2 * SECOND) + other, seeded(seed)) for seed in range(40)]
    without = [result for result in results if strength(result, 1_000) < 0.001]
    assert 2 <= len(without) <= 10  # within 500 Hz of the middle: one in eight
    for result in without:
        # At its ends a tone has other frequencies, too.
        assert power((result - other)[1_600:-1_600]) < 1e-5


@pytest.mark.parametrize("samples", [1, 2, 399, 31_999])
def test_frequencies_of_sounds_of_any_length(samples: int) -> None:
    dropped = DropFrequencies()(talk(SECOND * 2)[:samples], seeded())
    assert dropped.shape == (samples,)
    assert np.isfinite(dropped).all()
    assert not DropFrequencies()(np.zeros(samples, np.float32), seeded()).any()


# -- SpecAugment -----------------------------------------------------------------------------------


@PROPERTY
@given(
    frames=st.integers(1, 400),
    count=st.integers(0, 4),
    widest=st.integers(0, 120),
    seed=st.integers(0, 10**6),
)
def test_masks_are_at_most_as_wide_as_allowed(
    frames: int, count: int, widest: int, seed: int
) -> None:
    augment = SpecAugment(1.0, time_masks=count, frames=widest, frequency_masks=count, bands=widest)
    masks = augment.draw(frames=frames, bands=80, generator=seeded(seed))
    for flags, places in zip(masks, (frames, 80), strict=True):
        assert flags.shape == (places,)
        assert flags.dtype == np.bool_
        runs = lengths_of_runs(flags)
        assert len(runs) <= count
        assert sum(runs) <= min(count * widest, places // 2)


def test_masks_follow_their_distribution() -> None:
    generator = seeded(2)
    augment = SpecAugment(0.6, frames=10, bands=8)
    drawn = [augment.draw(frames=201, bands=80, generator=generator) for _ in range(3_000)]
    widths = np.array([(each.frames.sum(), each.bands.sum()) for each in drawn])
    # Uniform on 0 to 10 and 0 to 8 in six of ten. Standard deviations of the means are 0.06.
    assert widths.mean(axis=0) == pytest.approx([0.6 * 5, 0.6 * 4], abs=0.2)
    assert widths.max(axis=0).tolist() == [10, 8]
    both = (widths > 0).all(axis=1).mean()
    assert both == pytest.approx(0.6 * 10 / 11 * 8 / 9, abs=0.03)
    in_time = np.mean([each.frames for each in drawn], axis=0)
    assert in_time[20:-20].max() < 1.5 * in_time[20:-20].mean()


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_never_and_always(probability: float) -> None:
    augment, generator = SpecAugment(probability, time_masks=3, frames=50), seeded()
    drawn = [augment.draw(frames=200, bands=80, generator=generator) for _ in range(40)]
    assert all(bool(each.frames.any()) == bool(probability) for each in drawn)


# -- What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (DropChunks, {"chunks": (0, 2)}, r"chunks is \(0, 2\); expected are the lowest and the hi"),
        (DropChunks, {"seconds": (0.2, 0.1)}, r"seconds is \(0\.2, 0\.1\); expected"),
        (DropFrequencies, {"bands": (3, 2)}, r"bands is \(3, 2\); expected .*, 1 or more"),
        (DropFrequencies, {"width_hz": (1, 400)}, r"width_hz is \(1, 400\); .*, 20 or more"),
        (SpecAugment, {"bands": -1}, "and bands are 1, 10, 1 and -1; expected are numbers of 0"),
    ],
)
def test_numbers_that_are_none(kind: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        kind(**options)
