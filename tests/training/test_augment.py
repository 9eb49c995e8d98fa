"""What augmentation does to sound, measured."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shard_builder import Array, talk
from support.sounds import SECOND, lag, loudest_hz, power, seeded, strength, tone, write

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training import (
    AddNoise,
    Codec,
    DropChunks,
    DropFrequencies,
    RandomChoice,
    Reverberate,
    Sequential,
    SpecAugment,
)
from voxblink2_lib.training.augment import Augmentation, change_speed
from voxblink2_lib.training.codecs import CODECS

# -- Noise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 7.0, 20.0])
def test_noise_has_the_ratio_that_was_asked_for(snr_db: float, tmp_path: Path) -> None:
    noise = 3 * seeded(5).standard_normal(3 * SECOND).astype(np.float32)
    folder = write(tmp_path / "a" / "noise.wav", noise)
    speech = 0.05 * talk(2 * SECOND)
    noisy = AddNoise(folder, snr_db=(snr_db, snr_db))(speech, seeded())
    assert noisy.dtype == np.float32
    assert noisy.shape == speech.shape
    assert np.abs(noisy).max() < 1
    ratio = 10 * np.log10(power(speech) / power(noisy - speech))
    assert ratio == pytest.approx(snr_db, abs=0.01)


def test_ratios_fill_their_range(tmp_path: Path) -> None:
    folder = write(tmp_path / "a" / "noise.wav", tone(1_000, SECOND))
    speech, add = 0.05 * talk(SECOND), AddNoise(folder, snr_db=(3.0, 9.0))
    generator = seeded(2)
    ratios = [
        10 * np.log10(power(speech) / power(add(speech, generator) - speech)) for _ in range(200)
    ]
    assert 2.99 < min(ratios) < 3.3
    assert 8.7 < max(ratios) < 9.01
    assert np.mean(ratios) == pytest.approx(6, abs=0.4)


def test_babble_is_of_several_files(tmp_path: Path) -> None:
    pitches = [300, 500, 700, 1_100, 1_700, 2_300]
    for hz in pitches:
        write(tmp_path / "babble" / f"{hz}.wav", tone(hz, 3 * SECOND))
    speech = np.full(SECOND, 0.01, np.float32)
    counts = set()
    generator = seeded(1)
    for _ in range(60):
        noise = AddNoise(tmp_path, snr_db=(0, 0), files=(2, 4))(speech, generator) - speech
        heard = [strength(noise, hz) for hz in pitches]
        counts.add(sum(level > 0.2 * max(heard) for level in heard))
    # The same file may come twice.
    assert {2, 3, 4} <= counts <= {1, 2, 3, 4}


def test_noise_comes_from_anywhere_in_a_file(tmp_path: Path) -> None:
    ramp = np.linspace(0.1, 1, 10 * SECOND, dtype=np.float32)
    folder, speech = write(tmp_path / "a" / "ramp.wav", ramp), 1e-3 * tone(440, SECOND, peak=1)
    places = []
    for seed in range(60):
        noise = AddNoise(folder, snr_db=(0, 0))(speech, seeded(seed)) - speech
        # Of a ramp, the ratio of its ends says where it was taken.
        rise = float(noise[-1] / noise[0])
        places.append((1 / (rise - 1)) * (SECOND - 1) - 0.1 / 0.9 * (10 * SECOND - 1))
    assert -200 < min(places) < SECOND
    assert 8 * SECOND < max(places) < 9 * SECOND + 200


def test_short_noise_is_repeated(tmp_path: Path) -> None:
    short = seeded(3).standard_normal(1_000).astype(np.float32)
    speech = 0.01 * talk(4_500)
    noisy = AddNoise(write(tmp_path / "a" / "short.wav", short), snr_db=(0, 0))(speech, seeded())
    noise = noisy - speech
    assert np.allclose(noise[:1_000], noise[1_000:2_000], atol=1e-6)
    assert np.allclose(noise[:500], noise[4_000:], atol=1e-6)
    assert np.corrcoef(noise[:1_000], short)[0, 1] > 0.9999


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_noise_of_other_rates_keeps_its_pitch(rate: int, tmp_path: Path) -> None:
    folder = write(tmp_path / "a" / "tone.wav", tone(1_234, 3 * rate, rate=rate), rate)
    speech = np.full(2 * SECOND, 0.01, np.float32)
    noise = AddNoise(folder, snr_db=(0, 0))(speech, seeded()) - speech
    assert loudest_hz(noise) == pytest.approx(1_234, abs=1)


def test_stereo_noise_is_mixed(tmp_path: Path) -> None:
    both = np.stack([tone(500, 2 * SECOND), tone(900, 2 * SECOND)], axis=1)
    speech = np.full(SECOND, 0.01, np.float32)
    noise = (
        AddNoise(write(tmp_path / "a" / "x.wav", both), snr_db=(0, 0))(speech, seeded()) - speech
    )
    assert strength(noise, 500) == pytest.approx(strength(noise, 900), rel=0.01)
    assert strength(noise, 500) > 0.005


def test_silent_noise_adds_nothing(tmp_path: Path) -> None:
    folder, speech = write(tmp_path / "a" / "x.wav", np.zeros(SECOND, np.float32)), talk(SECOND)
    assert np.array_equal(AddNoise(folder)(speech, seeded()), speech)


def test_loud_noise_does_not_clip(tmp_path: Path) -> None:
    folder = write(tmp_path / "a" / "x.wav", talk(SECOND, seed=9))
    noisy = AddNoise(folder, snr_db=(-10, -10))(2 * talk(SECOND), seeded())
    assert np.abs(noisy).max() == pytest.approx(1)


# -- Codecs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("samples", [32_000, 31_999, 4_801])
def test_codecs_keep_length_and_place(name: str, samples: int) -> None:
    speech = talk(samples)
    for seed in range(4):
        decoded = Codec([name])(speech, seeded(seed))
        assert decoded.dtype == np.float32
        assert decoded.shape == (samples,)
        assert abs(lag(decoded, speech)) <= 1
        likeness = np.corrcoef(decoded, speech)[0, 1]
        assert 0.95 < likeness < 0.99999  # it is another sound, but not much
        assert power(decoded) == pytest.approx(power(speech), rel=0.2)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("gain", [2.5, 6.0])
def test_codecs_of_loud_speech(name: str, gain: float) -> None:
    # At 8 kHz, speech at full scale goes beyond it; what is wrapped around does not correlate.
    speech = np.clip(gain * talk(2 * SECOND), -1, 1)
    decoded = Codec([name])(speech, seeded())
    assert np.corrcoef(decoded, speech)[0, 1] > 0.9
    beyond = Codec([name])(1.5 * speech, seeded())
    assert np.corrcoef(beyond, speech)[0, 1] > 0.9


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("samples", [1, 100, 319])
def test_codecs_of_very_short_sounds(name: str, samples: int) -> None:
    decoded = Codec([name])(talk(SECOND)[:samples], seeded())
    assert decoded.shape == (samples,)
    assert np.isfinite(decoded).all()
    assert np.abs(Codec([name])(np.zeros(samples, np.float32), seeded())).max() < 1e-3


@pytest.mark.parametrize("name", ["gsm", "ulaw"])
def test_telephones_have_no_high_tones(name: str) -> None:
    assert strength(Codec([name])(tone(6_000, SECOND), seeded()), 6_000) < 0.005
    assert strength(Codec([name])(tone(1_000, SECOND), seeded()), 1_000) > 0.05


@pytest.mark.parametrize("name", ["mp3", "vorbis"])
def test_the_quality_of_a_codec_is_drawn(name: str) -> None:
    decoded = [Codec([name])(talk(SECOND), seeded(seed)) for seed in range(8)]
    off = [power(waveform - talk(SECOND)) for waveform in decoded]
    assert max(off) > 1.5 * min(off)


def test_all_codecs_are_used() -> None:
    speech, generator = talk(4_000), seeded()
    every = Codec()
    results = {every(speech, generator).tobytes() for _ in range(60)}
    fixed = {Codec([name])(speech, seeded()).tobytes() for name in ("gsm", "ulaw")}
    assert fixed <= results
    assert len(results) > 20


# -- One of several --------------------------------------------------------------------------------


def _twice(sound: Array, _: np.random.Generator) -> Array:
    return 2 * sound


def _thrice(sound: Array, _: np.random.Generator) -> Array:
    return 3 * sound


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_maybe_is_as_likely_as_it_says(probability: float) -> None:
    maybe, generator = RandomChoice(probability, _twice, _thrice), seeded()
    waveform = np.ones(1, np.float32)
    factors = [int(maybe(waveform, generator)[0]) for _ in range(3_000)]
    counts = np.bincount(factors, minlength=4)[1:] / 3_000
    expected = [1 - probability, probability / 2, probability / 2]
    # Three standard deviations of 3,000 draws are under 0.03.
    assert counts.tolist() == pytest.approx(expected, abs=0.03)
    assert probability not in (0, 1) or counts[0] == 1 - probability


# -- One after the other ---------------------------------------------------------------------------


def test_steps_are_applied_in_order() -> None:
    def one_more(sound: Array, _: np.random.Generator) -> Array:
        return sound + 1

    ones = np.ones(1, np.float32)
    assert Sequential(_twice, one_more)(ones, seeded())[0] == 3
    assert Sequential(one_more, _twice)(ones, seeded())[0] == 4


def test_each_step_has_its_own_probability() -> None:
    chain = Sequential(RandomChoice(0.3, _twice), Sequential(RandomChoice(0.6, _thrice)))
    generator, ones = seeded(3), np.ones(1, np.float32)
    factors = [int(chain(ones, generator)[0]) for _ in range(3_000)]
    shares = [factors.count(factor) / 3_000 for factor in (1, 2, 3, 6)]
    # Independent of one another; three standard deviations are under 0.03.
    assert shares == pytest.approx([0.7 * 0.4, 0.3 * 0.4, 0.7 * 0.6, 0.3 * 0.6], abs=0.03)


# -- Speed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [0.9, 1.1, 0.5, 2.0, 1.03])
def test_speed_changes_pitch_and_length(speed: float) -> None:
    samples = 2 * SECOND
    changed = change_speed(tone(1_000, round(samples * speed)), speed, samples)
    assert changed.dtype == np.float32
    assert changed.shape == (samples,)
    assert loudest_hz(changed) == pytest.approx(1_000 * speed, rel=1e-3)
    assert strength(changed, 1_000 * speed) == pytest.approx(0.1, rel=0.02)


def test_no_speed_changes_nothing() -> None:
    speech = talk(SECOND)
    assert np.array_equal(change_speed(speech, 1.0, SECOND), speech)
    assert np.array_equal(change_speed(speech, 1.0, 100), speech[:100])
    assert change_speed(speech, 1.0, SECOND + 5)[SECOND:].tolist() == [0] * 5


# -- Determinism -----------------------------------------------------------------------------------


def _augmentations(folder: Path) -> dict[str, Augmentation]:
    for number in range(4):
        write(folder / "noise" / f"{number}.wav", talk(3 * SECOND, seed=number))
        response = seeded(number).standard_normal(2_000) * np.exp(-np.arange(2_000) / 200)
        write(folder / "rooms" / f"{number}.wav", response)
    every: dict[str, Augmentation] = {
        "noise": AddNoise(folder / "noise", files=(1, 3)),
        "rooms": Reverberate(folder / "rooms"),
        "codec": Codec(),
    }
    every |= {"chunks": DropChunks(), "frequencies": DropFrequencies()}
    chain = Sequential(*(RandomChoice(0.5, each) for each in every.values()))
    return {**every, "maybe": RandomChoice(0.8, *every.values()), "chain": chain}


@pytest.mark.parametrize(
    "name", ["noise", "rooms", "codec", "chunks", "frequencies", "maybe", "chain"]
)
def test_the_same_seed_gives_the_same_sound(name: str, tmp_path: Path) -> None:
    speech = talk(SECOND)
    before = speech.copy()
    first, second = (_augmentations(tmp_path)[name] for _ in range(2))
    second = pickle.loads(pickle.dumps(second))  # as a spawned worker gets it
    results = [first(speech, seeded(seed)) for seed in range(12)]
    assert all(
        np.array_equal(second(speech, seeded(seed)), results[seed]) for seed in reversed(range(12))
    )
    assert len({result.tobytes() for result in results}) > 2
    assert np.array_equal(speech, before)


# -- Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AddNoise, Reverberate])
def test_a_folder_without_sound(kind: type[AddNoise | Reverberate], tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(TrainingError, match=r"no audio files in .*; looked for \.flac, \.mp3"):
        kind(tmp_path)
    with pytest.raises(TrainingError, match=r"no audio files in .*/nothing"):
        kind(tmp_path / "nothing")


@pytest.mark.parametrize("kind", [AddNoise, Reverberate])
def test_a_file_that_is_no_sound(kind: type[AddNoise | Reverberate], tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"junk")
    with pytest.raises(TrainingError, match=r"x\.wav cannot be decoded: .+"):
        kind(tmp_path)(talk(SECOND), seeded())


def test_files_without_samples(tmp_path: Path) -> None:
    folder = write(tmp_path / "a" / "x.wav", np.zeros(0, np.float32))
    with pytest.raises(TrainingError, match=r"x\.wav has no samples"):
        AddNoise(folder)(talk(SECOND), seeded())
    with pytest.raises(TrainingError, match=r"x\.wav is silent; an impulse response was exp"):
        Reverberate(folder)(talk(SECOND), seeded())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"snr_db": (9.0, 3.0)}, r"snr_db is \(9\.0, 3\.0\); expected are the lowest and the hig"),
        (
            {"files": (0, 3)},
            r"files is \(0, 3\); expected are the lowest and the highest, 1 or more",
        ),
        ({"files": (4, 3)}, r"files is \(4, 3\)"),
    ],
)
def test_ranges_that_are_none(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "a" / "x.wav", talk(SECOND))
    with pytest.raises(TrainingError, match=words):
        AddNoise(folder, **options)


@pytest.mark.parametrize("names", [["mp3", "aac"], []])
def test_codecs_that_nobody_knows(names: list[str]) -> None:
    with pytest.raises(
        TrainingError, match=r"are not all available\. Available: mp3, vorbis, opus"
    ):
        Codec(names)


@pytest.mark.parametrize("probability", [1.5, -0.1, float("nan")])
@pytest.mark.parametrize("kind", [lambda p: RandomChoice(p, _twice), SpecAugment])
def test_chances_that_are_none(probability: float, kind: Callable[[float], object]) -> None:
    words = rf"probability is {probability:g}; expected is a number from 0 to 1"
    with pytest.raises(TrainingError, match=words):
        kind(probability)


@pytest.mark.parametrize(("steps", "got"), [([], "none"), ([_twice, 0.5], r"0\.5")])
def test_steps_that_are_none(steps: list[Any], got: str) -> None:
    words = "to be augmentations, one or more, each called with a waveform and a generator; got "
    with pytest.raises(TrainingError, match=f"The steps are {words}{got}"):
        Sequential(*steps)
    with pytest.raises(TrainingError, match=f"The choices are {words}{got}"):
        RandomChoice(0.5, *steps)
