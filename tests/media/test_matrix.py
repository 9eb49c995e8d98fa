"""Self-naming files of every kind, whole and damaged, through a run: the right sound and pictures.

The files, and how late their clips may be, are listed in ``support.matrix_recipes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from support import matrix_recipes as recipes
from support.media_matrix import CutVideo, cut_all, cut_files
from support.self_naming import (
    LOUD,
    NAMES,
    PEAK,
    SPANS,
    Floats,
    Recipe,
    due,
    gain_of,
    lag_of,
    make,
    wrong_frames,
)
from support.synthetic_audio import MediaCache

from voxblink2_lib.records import frame_start_sample

Results = Mapping[str, CutVideo]
# 16 bits at most: what rounding or a codec adds at full scale is clipped there.
_FULL_SCALE = 32767 / 32768
_TENTH_OF_A_DECIBEL = 10 ** (0.1 / 20)


@pytest.fixture(scope="module")
def results(media_cache: MediaCache, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What one run made of the files of the default tier."""
    return cut_all(media_cache, recipes.DEFAULT, tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def more_results(media_cache: MediaCache, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What one run made of the files of the slow tier."""
    return cut_all(media_cache, recipes.MORE, tmp_path_factory.mktemp("matrix"))


def name_of(recipe: Recipe) -> str:
    return recipe.name


def second_name(pair: tuple[Recipe, Recipe]) -> str:
    return pair[1].name


def start_of(name: str) -> int:
    return frame_start_sample(int(name))


def check(recipe: Recipe, video: CutVideo) -> None:
    """Compare clips with the truth, and pictures with their numbers."""
    expected = set(NAMES) - set(recipe.missing)
    assert (video.status, set(video.clips)) == (recipe.status, expected), video
    assert video.missing.keys() == set(recipe.missing)
    lags = {
        name: lag_of(samples, start_sample=start_of(name)) for name, samples in video.clips.items()
    }
    wrong = {name: lag for name, lag in lags.items() if abs(lag - recipe.lag) > recipe.within}
    assert not wrong, f"allowed: {recipe.lag:g} late, within {recipe.within:g} samples"
    if recipe.with_video:
        check_pictures(recipe, video)


def check_pictures(recipe: Recipe, video: CutVideo) -> None:
    assert video.faces.keys() == video.clips.keys()
    spans = dict(zip(NAMES, SPANS, strict=True))
    wrong = {
        name: wrong_frames(clip, due(spans[name], recipe.fps)) for name, clip in video.faces.items()
    }
    assert not any(wrong.values()), f"wrong pictures: {wrong}"


# -- In time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", recipes.DEFAULT, ids=name_of)
def test_sound_is_in_time_and_pictures_are_the_right_ones(recipe: Recipe, results: Results) -> None:
    check(recipe, results[recipe.name])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes.MORE, ids=name_of)
def test_sound_of_more_files_is_in_time(recipe: Recipe, more_results: Results) -> None:
    check(recipe, more_results[recipe.name])


def test_the_matrix_is_as_large_as_it_claims() -> None:
    names = [recipe.name for recipe in recipes.ALL]
    assert len(set(names)) == len(names)
    assert len(recipes.DEFAULT) >= 60


# -- Damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", recipes.DAMAGED, ids=second_name)
def test_what_damage_does_not_touch_is_as_in_the_whole_file(
    pair: tuple[Recipe, Recipe], results: Results
) -> None:
    check_damage(pair, results)


@pytest.mark.slow
@pytest.mark.parametrize("pair", recipes.MORE_DAMAGED, ids=second_name)
def test_what_damage_does_not_touch_is_as_in_more_whole_files(
    pair: tuple[Recipe, Recipe], results: Results, more_results: Results
) -> None:
    check_damage(pair, {**results, **more_results})


def check_damage(pair: tuple[Recipe, Recipe], results: Results) -> None:
    whole, damaged = (results[recipe.name].clips for recipe in pair)
    assert damaged
    for name, samples in damaged.items():
        lags = [lag_of(clip, start_sample=start_of(name)) for clip in (samples, whole[name])]
        assert abs(lags[0] - lags[1]) <= pair[1].within, name
        shifted = delayed(whole[name], lags[0] - lags[1])
        assert deviation(samples[MARGIN], shifted[MARGIN]) < 1e-3, name


# A delay by part of a sample is wrong at both ends.
MARGIN = slice(400, -400)


def delayed(samples: Floats, delay: float) -> Floats:
    """Return samples so much later, by a fraction of a sample."""
    turn = np.exp(-2j * np.pi * delay * np.fft.rfftfreq(len(samples)))
    return np.asarray(np.fft.irfft(np.fft.rfft(samples) * turn, len(samples)), np.float64)


def deviation(samples: Floats, expected: Floats) -> float:
    """Return the energy of a difference, as a fraction of what was expected."""
    error = samples - expected
    return float((error @ error) / (expected @ expected))


# -- Tracks in files of their own ------------------------------------------------------------------


@pytest.mark.parametrize(
    "endings",
    [(".mp4", ".m4a"), (".f137.mp4", ".f140.m4a")],
    ids=["plain", "yt-dlp"],
)
def test_two_files_of_a_video_are_one(
    endings: tuple[str, str], media_cache: MediaCache, tmp_path: Path
) -> None:
    film = make(media_cache, recipes.ONLY_PICTURES)
    sound = make(media_cache, recipes.M4A)
    files = dict(zip(endings, (film, sound), strict=True))
    video = cut_files({"pair": files}, tmp_path, config="audio-visual")["pair"]
    check(recipes.ONLY_PICTURES, video)


# -- Levels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", recipes.EQUAL, ids=second_name)
def test_equal_channels_have_the_level_of_one(
    pair: tuple[Recipe, Recipe], results: Results
) -> None:
    check_level(pair, results)


@pytest.mark.slow
@pytest.mark.parametrize("pair", recipes.MORE_EQUAL, ids=second_name)
def test_more_equal_channels_have_the_level_of_one(
    pair: tuple[Recipe, Recipe], more_results: Results
) -> None:
    check_level(pair, more_results)


def check_level(pair: tuple[Recipe, Recipe], results: Results) -> None:
    mono, stereo = (results[recipe.name].clips for recipe in pair)
    for name in NAMES:
        ratio = np.std(stereo[name]) / np.std(mono[name])
        assert 1 / _TENTH_OF_A_DECIBEL < ratio < _TENTH_OF_A_DECIBEL, name
        if pair[0].extension != "wav":
            continue  # codecs overshoot, each channel otherwise
        assert clipped(stereo[name]) <= clipped(mono[name]), name
        if pair[0].name.startswith("loud"):
            gain = gain_of(stereo[name], start_sample=start_of(name))
            assert gain == pytest.approx(LOUD / PEAK, rel=_TENTH_OF_A_DECIBEL - 1)


def clipped(samples: Floats) -> int:
    """Return how many samples are at full scale."""
    return int(np.sum((samples >= _FULL_SCALE) | (samples <= -1)))


@pytest.mark.parametrize("recipe", recipes.ANTI_PHASE, ids=name_of)
def test_channels_that_cancel_give_the_louder_one(recipe: Recipe, results: Results) -> None:
    for name, samples in results[recipe.name].clips.items():
        gain = gain_of(samples, start_sample=start_of(name))
        assert gain == pytest.approx(1, rel=_TENTH_OF_A_DECIBEL - 1), name


@pytest.mark.parametrize("recipe", recipes.IN_PHASE, ids=name_of)
def test_six_channels_in_phase_stay_below_their_peak(recipe: Recipe, results: Results) -> None:
    for name, samples in results[recipe.name].clips.items():
        assert 0.5 < np.abs(samples).max() <= 0.9, name


@pytest.mark.parametrize("recipe", recipes.SILENT, ids=name_of)
def test_digital_silence_is_missing_for_that_reason(recipe: Recipe, results: Results) -> None:
    assert recipe.missing
    for reason in results[recipe.name].missing.values():
        assert "digital silence" in reason
