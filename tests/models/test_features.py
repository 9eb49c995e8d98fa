"""The front end: the published numbers, a slow twin, padding, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.model_oracle import (
    PROPERTY,
    Array,
    golden,
    golden_waveform,
    slow_filters,
    slow_log_mel,
    slow_window,
    small_extractor,
    small_model,
)
from transformers import AutoFeatureExtractor

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models import SpeakerFeatureExtractor, log_mel
from voxblink2_lib.models.features import MIN_SAMPLES, window_and_filters

EXTRACTOR = SpeakerFeatureExtractor()
WAVE = golden_waveform(1, 3200)
NORMALIZATIONS: list[Any] = ["std", "max"]


def features(waveforms: Any, **options: Any) -> Array:
    result: Array = EXTRACTOR(waveforms, return_tensors="np", **options)["input_features"]
    return result


# -- The numbers -----------------------------------------------------------------------------------


def test_golden_frames() -> None:
    expected = golden()["logfbank"]
    batch = EXTRACTOR(golden_waveform(1, 16_000), sampling_rate=16_000)
    result = batch["input_features"]
    assert list(result.transpose(1, 2).shape) == expected["shape"]
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result[0, 0], expected["first_frame"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(result[0, 50], expected["frame50"], rtol=0, atol=1e-4)
    assert batch["attention_mask"].tolist() == [[1] * 101]


def test_golden_mel_filters() -> None:
    window, filters = window_and_filters(80)
    sums = filters.sum(dim=0)
    np.testing.assert_allclose(sums, golden()["logfbank"]["mel_fb_sum"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(window, slow_window(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(filters, slow_filters(80), rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@PROPERTY
@given(samples=st.integers(MIN_SAMPLES, 8000), seed=st.integers(0, 10**6))
@example(samples=1600, seed=1)
@example(samples=1759, seed=1)  # the last sample before another frame
@example(samples=1760, seed=1)
def test_frames_equal_a_slow_twin(normalization: Any, samples: int, seed: int) -> None:
    g = np.random.default_rng(seed)
    volume, offset = g.choice([1e-3, 0.05, 1.0]), g.normal(0, 0.05)
    wave = (volume * (golden_waveform(seed % 5, samples) + offset)).astype(np.float32)
    result = log_mel(torch.from_numpy(wave), normalization=normalization).numpy()
    expected = slow_log_mel(wave, normalization)
    assert result.shape == expected.shape == (1 + samples // 160, 80)
    # Bands without sound are what float32 rounds to: a logarithm shows it.
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("bands", [20, 40])
def test_other_numbers_of_bands(bands: int) -> None:
    extractor = SpeakerFeatureExtractor(num_mel_bins=bands, normalization="max")
    (result,) = extractor(WAVE)["input_features"]
    np.testing.assert_allclose(result, slow_log_mel(WAVE, "max", bands), rtol=0, atol=2e-4)
    assert extractor.feature_size == bands


def test_volume_matters_only_a_little() -> None:
    # The peak is divided by itself plus 1e-4, so the frames of a quiet voice are not quite equal.
    peak, quiet = small_extractor("max"), WAVE / 64
    np.testing.assert_array_equal(features(WAVE), features(quiet))
    assert 0 < float((peak(WAVE)["input_features"] - peak(quiet)["input_features"]).abs().max()) < 1


# -- Batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("padding", [True, "longest"])
def test_a_batch_equals_its_waveforms_alone(normalization: Any, padding: Any) -> None:
    extractor = SpeakerFeatureExtractor(normalization=normalization)
    waves = [golden_waveform(seed, n) for seed, n in enumerate((3199, 1600, 5000, 3200))]
    batch = extractor(waves, padding=padding)
    assert batch["input_features"].shape == (4, 32, 80)
    assert batch["attention_mask"].dtype == torch.int64
    frames = [1 + len(wave) // 160 for wave in waves]
    for wave, count, result, mask in zip(waves, frames, *batch.values(), strict=True):
        alone = extractor(wave)["input_features"][0]
        assert alone.shape == (count, 80)
        torch.testing.assert_close(result[:count], alone, rtol=0, atol=0)
        assert not result[count:].any()
        assert mask.tolist() == [1] * count + [0] * (32 - count)


@pytest.mark.parametrize("padding", [False, "do_not_pad"])
def test_a_list_without_padding(padding: Any) -> None:
    batch = EXTRACTOR([WAVE, WAVE[:1600]], padding=padding, return_tensors=None)
    assert [mask.tolist() for mask in batch["attention_mask"]] == [[1] * 21, [1] * 11]
    for result, wave in zip(batch["input_features"], (WAVE, WAVE[:1600]), strict=True):
        np.testing.assert_array_equal(result, features(wave)[0])
    alike = EXTRACTOR([WAVE, WAVE], padding=padding)["input_features"]
    np.testing.assert_array_equal(alike, features([WAVE, WAVE]))


def test_a_list_with_padding() -> None:
    listed = EXTRACTOR([WAVE, WAVE[:1600]], return_tensors=None)["input_features"]
    assert isinstance(listed, list)
    np.testing.assert_array_equal(listed, features([WAVE, WAVE[:1600]]))


def test_padding_to_a_length() -> None:
    batch = EXTRACTOR([WAVE, WAVE[:1600]], padding="max_length", max_length=4000)
    assert batch["attention_mask"].sum(dim=1).tolist() == [21, 11]
    assert batch["input_features"].shape == (2, 26, 80)
    np.testing.assert_array_equal(batch["input_features"][:, :21], features([WAVE, WAVE[:1600]]))
    assert not batch["input_features"][:, 21:].any()


def test_padding_to_a_length_of_whole_frames() -> None:
    """Kaldi's frames do not reach over the edges: there are fewer."""
    extractor = SpeakerFeatureExtractor(front_end="kaldi")
    batch = extractor([WAVE[:3199], WAVE[:1700]], padding="max_length", max_length=3199)
    assert batch["attention_mask"].sum(dim=1).tolist() == [18, 9]
    assert batch["input_features"].shape == (2, 18, 80)


def test_a_cut_waveform_is_as_a_shorter_one() -> None:
    result = features([WAVE, WAVE[:1700]], truncation=True, max_length=2000)
    np.testing.assert_array_equal(result, features([WAVE[:2000], WAVE[:1700]]))


def test_no_mask_if_none_is_wanted() -> None:
    assert [*EXTRACTOR(WAVE, return_attention_mask=False)] == ["input_features"]


def test_numpy_and_torch_results_are_the_same() -> None:
    waves = [WAVE, WAVE[:2000]]
    ours, theirs = EXTRACTOR(waves), EXTRACTOR(waves, return_tensors="np")
    assert ours.keys() == theirs.keys() == {"input_features", "attention_mask"}
    for name, result in theirs.items():
        assert isinstance(result, np.ndarray)
        assert isinstance(ours[name], torch.Tensor)
        np.testing.assert_array_equal(result, ours[name])


# -- Kinds of waveforms ----------------------------------------------------------------------------


def test_int16_is_float_times_32768() -> None:
    whole = np.round(WAVE * 32_768).astype(np.int16)
    peak = SpeakerFeatureExtractor(normalization="max")  # the one that sees the volume
    expected = peak(whole.astype(np.float32) / 32_768)["input_features"]
    kinds: list[Any] = [whole, torch.from_numpy(whole), [whole]]
    for given_as in kinds:
        torch.testing.assert_close(peak(given_as)["input_features"], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "wave",
    [
        WAVE.astype(np.float64),
        torch.from_numpy(WAVE),
        torch.from_numpy(WAVE).double(),
        WAVE.tolist(),
        tuple(WAVE.tolist()),
        list(WAVE),
        [WAVE],
        [WAVE.tolist()],
        WAVE[None],
        torch.from_numpy(WAVE)[None],
        np.repeat(WAVE, 2)[::2],
    ],
    ids=[
        "float64",
        "tensor",
        "double",
        "list",
        "tuple",
        "numbers",
        "one",
        "lists",
        "2d",
        "2d-pt",
        "strided",
    ],
)
def test_any_kind_of_waveform(wave: Any) -> None:
    result = features(wave, sampling_rate=16_000)
    np.testing.assert_allclose(result, features(WAVE), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["reversed", "big-endian", "read-only"])
def test_any_layout_of_memory(kind: str) -> None:
    wave = {
        "reversed": WAVE[::-1].copy()[::-1],
        "big-endian": WAVE.astype(">f4"),
        "read-only": np.frombuffer(WAVE.tobytes(), np.float32),
    }[kind]
    torch.set_warn_always(True)  # else PyTorch warns of read-only memory only once a process
    try:
        result = features(wave)
    finally:
        torch.set_warn_always(False)
    np.testing.assert_allclose(result, features(WAVE), rtol=0, atol=1e-4)


def test_a_waveform_is_left_as_it_was() -> None:
    wave, tensor = WAVE.copy(), torch.from_numpy(WAVE.copy())
    features([wave, tensor])
    np.testing.assert_array_equal(wave, WAVE)
    np.testing.assert_array_equal(tensor, WAVE)


# -- What is refused -------------------------------------------------------------------------------


def changed(place: int, value: float) -> Array:
    wave = WAVE.copy()
    wave[place] = value
    return wave


@pytest.mark.parametrize(
    ("wave", "match"),
    [
        (WAVE[:0], "has 0 samples; a model needs at least 1600"),
        ([], "has 0 samples; a model needs at least 1600"),
        (WAVE[:1599], r"has 1599 samples; a model needs at least 1600 \(0.1 s\)"),
        (changed(7, np.nan), r"has a sample that is not finite \(NaN or infinite\)"),
        (changed(3199, np.inf), "has a sample that is not finite"),
        (changed(0, -np.inf), "has a sample that is not finite"),
        (WAVE.astype(np.float64) * 1e300, "has a sample that is not finite"),
        (np.zeros(1600, np.float32), "is silent: all its samples are equal"),
        (np.full(1600, 0.3), "is silent: all its samples are equal"),
        (np.full(1600, -5, np.int16), "is silent: all its samples are equal"),
        ([np.stack([WAVE, WAVE])], r"has shape \(2, 3200\), expected is \(samples,\): mix"),
        (np.zeros((1, 1600, 2)), r"has shape \(1600, 2\), expected is \(samples,\): mix"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "wave",
)
def test_a_bad_waveform_is_named(wave: Any, match: str) -> None:
    with pytest.raises(ModelError, match=f"^waveform 0 {match}"):
        EXTRACTOR(wave)
    bad = wave[0] if len(wave) and np.ndim(wave[0]) else wave
    with pytest.raises(ModelError, match=f"^waveform 1 {match}"):
        EXTRACTOR([WAVE, bad])
    with pytest.raises(ModelError, match=f"^id1/b.wav {match}"):
        EXTRACTOR([WAVE, bad], names=["id1/a.wav", "id1/b.wav"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sampling_rate": 8000}, "have 8000 samples per second; resample them to 16000"),
        (
            {"padding": "left"},
            "one of True, 'longest', 'max_length', False, 'do_not_pad', got 'left'",
        ),
        ({"return_tensors": "tf"}, "return_tensors must be one of 'pt', 'np', None, got 'tf'"),
        ({"padding": "max_length"}, "max_length, a number of samples, goes together with trunc"),
        ({"truncation": True}, "padding='max_length'; got max_length=None, truncation=True"),
        ({"max_length": 1600}, "got max_length=1600, truncation=False, padding=True"),
        ({"truncation": True, "max_length": 1599}, "is 1599 samples; a model needs at least 1600"),
        (
            {"padding": "max_length", "max_length": 3000},
            "A waveform has 21 frames, and max_length is 19. Pass truncation=True to cut it",
        ),
    ],
)
def test_bad_options_of_a_call(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ModelError, match=match):
        EXTRACTOR(WAVE, **options)


@pytest.mark.parametrize(
    ("waves", "names"),
    [(np.zeros((0, 1600)), None), (np.array(1.0), None), ([WAVE, WAVE], ["a"])],
    ids=["no waveform", "one number", "too few names"],
)
def test_bad_numbers_of_waveforms(waves: Any, names: Any) -> None:
    with pytest.raises(ModelError):
        EXTRACTOR(waves, names=names)


def test_bad_options_of_an_extractor() -> None:
    unknown: Any = "mean"
    with pytest.raises(ModelError, match=r"'mean' is unknown\. Available: std, max"):
        SpeakerFeatureExtractor(normalization=unknown)
    with pytest.raises(ModelError, match="sampling_rate must be 16000, got 8000"):
        SpeakerFeatureExtractor(sampling_rate=8000)


def test_waveforms_of_several_lengths_make_no_tensor_without_padding() -> None:
    with pytest.raises(ModelError, match="have 11 to 21 frames, which makes no tensor"):
        EXTRACTOR([WAVE, WAVE[:1600]], padding=False)


def test_what_a_cut_leaves_may_be_silent() -> None:
    late = np.concatenate([np.zeros(1600, np.float32), WAVE])
    with pytest.raises(ModelError, match=r"^waveform 1 is silent"):
        EXTRACTOR([WAVE, late], truncation=True, max_length=1600)


# -- Saved and loaded ------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("with_model", [False, True])
def test_saved_and_loaded_it_is_the_same(
    normalization: Any, with_model: bool, tmp_path: Path
) -> None:
    extractor = small_extractor(normalization)
    extractor.save_pretrained(tmp_path)
    if with_model:
        small_model("basic-gsp").save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is SpeakerFeatureExtractor
    assert loaded.normalization == normalization
    assert loaded.num_mel_bins == loaded.feature_size == 20
    result, expected = (each(WAVE)["input_features"] for each in (loaded, extractor))
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
