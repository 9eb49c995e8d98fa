"""Rooms: what a response does to speech, and which files are responses."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.property_settings import fewer_examples
from support.shard_builder import RATE, Array, talk
from support.sounds import SECOND, lag, power, seeded, tone, write

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training import Reverberate
from voxblink2_lib.training.rooms import is_response

# -- Rooms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0, 1, 700])
@pytest.mark.parametrize("gain", [1.0, 0.02])
def test_a_room_without_echoes_changes_nothing(delay: int, gain: float, tmp_path: Path) -> None:
    response = np.zeros(1_000, np.float32)
    response[delay] = gain
    speech = talk(SECOND)
    wet = Reverberate(write(tmp_path / "a" / "delta.wav", response))(speech, seeded())
    assert wet.dtype == np.float32
    assert np.allclose(wet, speech, atol=1e-5)


def test_a_room_keeps_place_and_power(tmp_path: Path) -> None:
    response = seeded(4).standard_normal(8_000) * np.exp(-np.arange(8_000) / 1_000)
    response[:400] *= 0.01
    response[400] = 10
    speech = 0.2 * talk(SECOND)
    wet = Reverberate(write(tmp_path / "a" / "room.wav", response))(speech, seeded())
    assert len(wet) == len(speech)
    assert power(wet) == pytest.approx(power(speech), rel=1e-3)
    assert lag(wet, speech) == 0
    expected = np.convolve(speech, response)[400 : 400 + SECOND]
    assert np.corrcoef(wet, expected)[0, 1] > 0.99999


def test_a_room_of_another_rate(tmp_path: Path) -> None:
    response = np.zeros(4_800, np.float32)
    response[[480, 2_880]] = [1.0, 0.5]  # an echo after 50 ms at 48 kHz: 800 samples at 16 kHz
    click = np.zeros(SECOND, np.float32)
    click[2_000] = 0.5
    wet = Reverberate(write(tmp_path / "a" / "room.wav", response, 48_000))(click, seeded())
    assert np.abs(wet).argmax() == 2_000
    assert 2_500 + np.abs(wet[2_500:]).argmax() == 2_800
    assert wet[2_800] / wet[2_000] == pytest.approx(0.5, abs=0.01)


def test_a_room_whose_first_channel_is_silent(tmp_path: Path) -> None:
    both = np.zeros((100, 2), np.float32)
    both[5, 1] = 1
    folder = write(tmp_path / "a" / "x.wav", both)
    with pytest.raises(TrainingError, match=r"x\.wav is silent"):
        Reverberate(folder)(talk(SECOND), seeded())


# -- What is a response ----------------------------------------------------------------------------


def room(seed: int, *, rt60: float, direct_db: float, seconds: float) -> Array:
    """Return a direct sound after 10 ms, and noise that decays by 60 dB in ``rt60`` seconds.

    Args:
        seed: of the noise.
        rt60: reverberation time.
        direct_db: energy of the direct sound over that of the noise.
        seconds: length.
    """
    at = np.arange(int(seconds * RATE)) / RATE
    response = seeded(seed).standard_normal(len(at)) * 10 ** (-3 * at / rt60)
    response[at < 0.003] = 0
    response[0] = np.sqrt(np.square(response).sum() * 10 ** (direct_db / 10))
    response = np.concatenate([np.zeros(RATE // 100), response])
    response += 1e-3 * np.abs(response).max() * seeded(seed + 1).standard_normal(len(response))
    return np.asarray(response, np.float32)


@fewer_examples(3)
@given(
    seed=st.integers(0, 10**6),
    rt60=st.floats(0.1, 3),
    direct_db=st.floats(-10, 15),
    seconds=st.floats(0.5, 4),
)
def test_any_room_is_a_response(seed: int, rt60: float, direct_db: float, seconds: float) -> None:
    # After the decay there is only the noise of the microphone, 60 dB below the direct sound.
    response = room(seed, rt60=rt60, direct_db=direct_db, seconds=min(seconds, 2 * rt60 + 0.1))
    assert is_response(response, RATE)


def pink(seed: int, samples: int) -> Array:
    spectrum = np.fft.rfft(seeded(seed).standard_normal(samples))
    spectrum /= np.sqrt(np.maximum(1, np.arange(len(spectrum))))
    return np.asarray(np.fft.irfft(spectrum, samples), np.float32)


def knocks(seed: int, samples: int) -> Array:
    generator, sound = seeded(seed), np.zeros(samples)
    for start in generator.integers(0, samples - 2_000, 20):
        sound[start : start + 2_000] += room(seed, rt60=0.1, direct_db=0, seconds=0.2)[:2_000]
    return np.asarray(sound, np.float32)


NOISES: dict[str, Callable[[int, int], Any]] = {
    "white": lambda seed, n: seeded(seed).standard_normal(n),
    "fading": lambda seed, n: seeded(seed).standard_normal(n) * np.linspace(1, 0, n),
    "pink": pink,
    "tone": lambda seed, n: tone(200 + 300 * seed, n),
    "speech": lambda seed, n: talk(n, seed),
    "babble": lambda seed, n: talk(n, seed) + talk(n, seed + 50) + talk(n, seed + 99),
    "knocks": knocks,
}


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("seconds", [1, 3])
def test_no_noise_is_a_response(kind: str, seconds: int) -> None:
    for seed in range(5):
        sound = NOISES[kind](seed, seconds * SECOND)
        assert not is_response(np.asarray(sound, np.float32), RATE), seed


@pytest.mark.parametrize("place", [0, 8_000, 15_999])
def test_a_click_is_a_response_wherever_it_is(place: int) -> None:
    click = np.zeros(SECOND, np.float32)
    click[place] = -0.5
    assert is_response(click, RATE)


def test_a_noise_among_rooms_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "rooms" / "a.wav", room(1, rt60=0.5, direct_db=0, seconds=0.6))
    write(tmp_path / "rooms" / "b.wav", seeded().standard_normal(SECOND))
    with pytest.raises(TrainingError, match=r"/rooms/b\.wav is no impulse response: it has no pea"):
        Reverberate(tmp_path)


def test_a_noise_among_many_rooms_is_refused_when_it_is_used(tmp_path: Path) -> None:
    response = write(tmp_path / "000.wav", room(1, rt60=0.2, direct_db=0, seconds=0.3)) / "000.wav"
    for number in range(1, 70):  # more than are looked at before
        shutil.copy(response, tmp_path / f"{number:03}.wav")
    write(tmp_path / "001.wav", seeded().standard_normal(SECOND))
    reverberate = Reverberate(tmp_path)
    with pytest.raises(
        TrainingError, match=r"/001\.wav is no impulse response.* file rir_list the"
    ):
        use_often(reverberate, talk(1_000))


def use_often(reverberate: Reverberate, speech: Array) -> list[Array]:
    generator = seeded()
    return [reverberate(speech, generator) for _ in range(400)]


def test_what_is_too_long_is_refused_by_name(tmp_path: Path) -> None:
    long = np.zeros(10 * 8_000 + 1, np.float32)
    long[0] = 1
    for name in "abcde":
        write(tmp_path / f"{name}.wav", long, 8_000)
    words = r"at most 10 s; longer are 5 files: \S+a\.wav, \S+b\.wav, \S+c\.wav, \.\.\.\. Remove"
    with pytest.raises(TrainingError, match=words):
        Reverberate(tmp_path)
    whole = write(tmp_path / "whole" / "a.wav", long[:-1], 8_000)
    assert np.abs(Reverberate(whole)(talk(SECOND), seeded())).max() > 0


# -- RIRS_NOISES -----------------------------------------------------------------------------------


def rirs_noises(folder: Path) -> Path:
    """Write what OpenSLR 28 unpacks to, with few files: rooms are clicks, noises are noise."""
    click, noise = np.zeros(800, np.float32), seeded().standard_normal(8_000)
    click[5] = 1
    top = folder / "RIRS_NOISES"
    for size in ("smallroom", "mediumroom"):
        lines = []
        for number in (1, 2):
            name = f"simulated_rirs/{size}/Room00{number}/Room00{number}-00001.wav"
            write(top / name, click)
            lines.append(f"--rir-id {size}-{number} --room-id {number} RIRS_NOISES/{name}\n")
        (top / f"simulated_rirs/{size}/rir_list").write_text("".join(lines))
    real = "real_rirs_isotropic_noises"
    write(top / real / "RVB2014_type1_rir_far.wav", click)
    (top / real / "rir_list").write_text(
        f"--rir-id a --room-id b  RIRS_NOISES/{real}/RVB2014_type1_rir_far.wav\n\n"
    )
    for name in (f"{real}/RVB2014_type1_noise_1.wav", f"{real}/RVB2014_type1_noise_2.wav"):
        write(top / name, noise)
    for number in range(3):
        write(top / f"pointsource_noises/noise-{number}.wav", noise)
    for place in (real, "pointsource_noises"):
        (top / place / "noise_list").write_text("--noise-id a --noise-type isotropic x.wav\n")
    return top


def assert_changes_nothing(folder: Path, speech: Array) -> None:
    for wet in use_often(Reverberate(folder), speech):
        assert np.allclose(wet, speech, atol=1e-5)


@pytest.mark.parametrize(
    ("part", "noises"),
    [
        (".", {"real_rirs_isotropic_noises": 2, "pointsource_noises": 3}),
        ("simulated_rirs", {}),
        ("simulated_rirs/smallroom", {}),
        ("simulated_rirs/smallroom/Room001", {}),
        ("real_rirs_isotropic_noises", {"real_rirs_isotropic_noises": 2}),
    ],
)
def test_of_rirs_noises_only_responses_are_used(
    part: str, noises: dict[str, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = rirs_noises(tmp_path) / part
    with caplog.at_level(logging.WARNING):
        assert_changes_nothing(folder, talk(2_000))
    expected = {
        f"{n} files in {name} are noises; they are not used as rooms." for name, n in noises.items()
    }
    assert set(caplog.messages) == expected


def test_lists_are_followed_where_a_folder_has_another_name(tmp_path: Path) -> None:
    moved = rirs_noises(tmp_path).rename(tmp_path / "rooms")
    (moved / "simulated_rirs").rename(moved / "simulated")
    assert_changes_nothing(moved, talk(2_000))


def test_what_a_list_names_is_taken_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "quiet.wav", np.full(500, 0.1, np.float32))
    with pytest.raises(TrainingError, match=r"quiet\.wav is no impulse response"):
        Reverberate(tmp_path)
    (tmp_path / "rir_list").write_text("quiet.wav\n")
    Reverberate(tmp_path)


def test_a_folder_of_noises_alone(tmp_path: Path) -> None:
    folder = rirs_noises(tmp_path) / "pointsource_noises"
    words = (
        r"no impulse responses in .*/pointsource_noises: its 3 audio files .* a noise_list\. Pass"
    )
    with pytest.raises(TrainingError, match=words):
        Reverberate(folder)
