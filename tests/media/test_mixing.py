"""Levels and frequencies of the mix to 16 kHz mono."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.mixing import Levels, Mixer, channel_weights

Samples = npt.NDArray[np.float64]
SURROUND = ("FL", "FR", "FC", "LFE", "BL", "BR")


def frames_of(
    channels: Samples, *, rate_hz: int, layout: str, sample_format: str = "fltp", size: int = 1024
) -> list[av.AudioFrame]:
    """Pack channels in [-1, 1), shape (channels, samples), into frames of an encoding."""
    packed = sample_format.removesuffix("p")
    full_scale = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31}.get(packed, 1.0)
    zero = 128 if packed == "u8" else 0
    dtype = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}[packed]
    values = channels * full_scale + zero
    values = (values if packed in {"flt", "dbl"} else np.rint(values)).astype(dtype)
    frames = []
    for start in range(0, values.shape[1], size):
        block = values[:, start : start + size]
        if not sample_format.endswith("p"):
            block = block.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(block), format=sample_format, layout=layout
        )
        frame.sample_rate = rate_hz
        frames.append(frame)
    return frames


def mixed(frames: Sequence[av.AudioFrame], *, channel: int | None = None) -> Samples:
    mixer = Mixer(frames[0], Levels(), channel=channel)
    for frame in frames:
        mixer.add(frame)
    return np.asarray(mixer.finish(), np.float64)


def tone(hertz: float, *, rate_hz: int, seconds: float = 1.0) -> Samples:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate_hz)) / rate_hz)


def level_db(samples: Samples, reference: Samples) -> float:
    middle, whole = (each[len(each) // 4 : -len(each) // 4] for each in (samples, reference))
    return float(10 * np.log10(np.mean(middle**2) / np.mean(whole**2)))


# -- Weights ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (("FC",), (1.0,)),
        (("FL", "FR"), (0.5, 0.5)),
        (("FL", "LFE"), (0.5, 0.5)),
        (("NONE", "NONE", "NONE"), (1 / 3, 1 / 3, 1 / 3)),
        (SURROUND, (0.2071, 0.2071, 0.2929, 0.0, 0.1464, 0.1464)),
        (("FL", "FR", "FC", "BC"), (0.2265, 0.2265, 0.3204, 0.2265)),
    ],
)
def test_weights(names: tuple[str, ...], weights: tuple[float, ...]) -> None:
    assert channel_weights(names) == pytest.approx(weights, abs=5e-5)


@given(st.lists(st.sampled_from([*SURROUND, "SL", "SR", "BC", "NONE", "LFE2"]), min_size=1))
def test_full_scale_stays_full_scale(names: list[str]) -> None:
    weights = channel_weights(tuple(names))
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0


# -- Levels ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "sample_format", ["u8", "u8p", "s16", "s16p", "s32", "flt", "fltp", "dblp"]
)
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_equal_channels_have_the_level_of_one(sample_format: str, rate_hz: int) -> None:
    mono = 0.89 * tone(440, rate_hz=rate_hz)
    frames = frames_of(
        np.stack([mono, mono]), rate_hz=rate_hz, layout="stereo", sample_format=sample_format
    )
    result = mixed(frames)
    expected = 0.89 * tone(440, rate_hz=16_000)
    assert len(result) == len(expected)
    assert level_db(result, expected) == pytest.approx(0, abs=0.05)
    inner = slice(200, -200)
    step = 2.0**-7 if sample_format.startswith("u8") else 2.0**-15
    assert np.max(np.abs(result[inner] - expected[inner])) < 1.5 * step


def test_surround_in_phase_keeps_its_peak() -> None:
    channel = 0.9 * np.sign(tone(100, rate_hz=16_000))
    frames = frames_of(np.stack([channel] * 6), rate_hz=16_000, layout="5.1")
    assert np.max(np.abs(mixed(frames))) == pytest.approx(0.9, abs=1e-6)


def test_one_channel_can_be_taken_alone() -> None:
    left, right = tone(300, rate_hz=16_000), 0.5 * tone(700, rate_hz=16_000)
    frames = frames_of(np.stack([left, right]), rate_hz=16_000, layout="stereo")
    np.testing.assert_allclose(mixed(frames, channel=1), right, atol=1e-7)


@pytest.mark.parametrize(
    ("right_gain", "channel"),
    [(-1.0, 0), (-0.9, 0), (-1.2, 1), (-0.7, None), (0.0, None), (1.0, None)],
)
def test_channels_that_cancel_are_noticed(right_gain: float, channel: int | None) -> None:
    # Half of 1 - 0.9 is 26 dB below the louder channel, of 1.2 - 1 21.6 dB, of 1 - 0.7 16.5 dB.
    left = 0.5 * tone(300, rate_hz=48_000)
    frames = frames_of(np.stack([left, right_gain * left]), rate_hz=48_000, layout="stereo")
    levels = Levels()
    mixer = Mixer(frames[0], levels)
    for frame in frames:
        mixer.add(frame)
    mixer.finish()
    assert levels.cancelled_channel() == channel


# -- Rate ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rate_hz", [22_050, 32_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("hertz", [50, 1000, 6000, 7000, 7500])
def test_the_response_is_flat_to_7500_hz(rate_hz: int, hertz: int) -> None:
    source = 0.5 * tone(hertz, rate_hz=rate_hz, seconds=2)
    result = mixed(frames_of(source[None], rate_hz=rate_hz, layout="mono"))
    assert abs(level_db(result, 0.5 * tone(hertz, rate_hz=16_000, seconds=2))) < 0.5


@pytest.mark.parametrize("rate_hz", [22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("hertz", [9000, 10_000, 10_900])
def test_aliases_are_100_db_down(rate_hz: int, hertz: int) -> None:
    source = tone(hertz, rate_hz=rate_hz, seconds=2) * np.hanning(2 * rate_hz)
    result = mixed(frames_of(source[None], rate_hz=rate_hz, layout="mono"))
    assert level_db(result, tone(1000, rate_hz=16_000, seconds=2)) < -100


@given(sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=4))
def test_the_sizes_of_frames_do_not_matter(sizes: list[int]) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, sum(sizes)))
    bounds = np.cumsum([0, *sizes])
    pieces = [
        frames_of(noise[:, a:b], rate_hz=44_100, layout="stereo", size=b - a)[0]
        for a, b in pairwise(bounds)
    ]
    whole = frames_of(noise, rate_hz=44_100, layout="stereo", size=noise.shape[1])
    np.testing.assert_array_equal(mixed(pieces), mixed(whole))


def test_samples_of_an_unknown_type_are_reported() -> None:
    class Format:
        is_planar = False
        name = "dsd"

        @property
        def packed(self) -> Format:
            return self

    class Frame:
        format = Format()

    with pytest.raises(MediaError, match="samples have the unknown type dsd"):
        Mixer(Frame(), Levels())


# -- Numbers that are none -------------------------------------------------------------------------
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_a_number_that_is_none_costs_one_sample(bad: float, layout: str) -> None:
    sound = np.tile(tone(440, rate_hz=44_100), (1 + (layout == "stereo"), 1))
    frames = frames_of(sound, rate_hz=44_100, layout=layout)
    spoiled = sound.copy()
    spoiled[0, 20_000] = bad
    levels = Levels()
    mixer = Mixer(frames[0], levels)
    for frame in frames_of(spoiled, rate_hz=44_100, layout=layout):
        mixer.add(frame)
    differs = np.flatnonzero(np.abs(mixer.finish() - mixed(frames)) > 1e-3)
    assert len(differs) < 200
    assert np.all(np.abs(differs - 20_000 / 44_100 * 16_000) < 100)
    assert levels.cancelled_channel() is None
