"""The front end of Kaldi: its numbers, those of an independent program, batches, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.kaldi_oracle import kaldi_energies
from support.model_oracle import (
    PROPERTY,
    TOLERANCE,
    Array,
    apart,
    embeddings_of,
    golden_waveform,
    int16_waveform,
    small_model,
    wespeaker_golden,
)
from transformers import AutoFeatureExtractor

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models import SpeakerFeatureExtractor
from voxblink2_lib.models.export import KaldiFrontEnd, WaveformModel
from voxblink2_lib.models.kaldi_frames import KALDI_MIN_SAMPLES, WINDOWS, kaldi_log_mel

SAME = 1e-3  # of log energies, absolute
KALDI = SpeakerFeatureExtractor(front_end="kaldi")
LOG_EPSILON = float(np.log(np.float32(1.1920929e-07)))


def energies(samples: Any, window: str = "hamming") -> Array:
    """Return our log energies of samples at the scale of int16, shape (frames, 80)."""
    waveform = torch.tensor(np.asarray(samples), dtype=torch.float32) / 32_768
    return kaldi_log_mel(waveform, window=window).numpy()


def energies_in_onnx(samples: Any, window: str = "hamming") -> Array:
    """Return the same by the front end that is exported."""
    waveform = torch.tensor(np.asarray(samples), dtype=torch.float32) / 32_768
    frames, counts = KaldiFrontEnd(window, 80)(waveform[None], torch.tensor([len(waveform)]))
    result: Array = frames[0, : int(counts)].numpy()
    return result


# -- The numbers -----------------------------------------------------------------------------------


def test_golden_frames() -> None:
    expected = wespeaker_golden()["fbank"]
    for front_end in (energies, energies_in_onnx):
        result = front_end(int16_waveform(expected["input"]))
        assert result.shape == (expected["frames"], 80)
        np.testing.assert_allclose(result[0], expected["first"], rtol=0, atol=SAME)
        np.testing.assert_allclose(result[99], expected["middle"], rtol=0, atol=SAME)


@pytest.mark.parametrize("window", WINDOWS)
@PROPERTY
@given(
    samples=st.integers(KALDI_MIN_SAMPLES, 8000),
    seed=st.integers(0, 10**6),
    volume=st.sampled_from([0.01, 0.3, 4.0]),
    offset=st.sampled_from([0, 1000]),
)
@example(samples=1839, seed=1, volume=1.0, offset=0)  # the last sample before another frame
@example(samples=1840, seed=1, volume=1.0, offset=0)
def test_log_energies_equal_those_of_kaldi(
    window: str, samples: int, seed: int, volume: float, offset: int
) -> None:
    loud = volume * golden_waveform(seed % 5, samples) * 32_768 + offset
    wave = np.round(np.clip(loud, -32_768, 32_767))
    expected = kaldi_energies(wave, window)
    assert len(expected) == 1 + (samples - 400) // 160
    for front_end in (energies, energies_in_onnx):
        np.testing.assert_allclose(front_end(wave, window), expected, rtol=0, atol=SAME)


@pytest.mark.parametrize("level", [0, 1234], ids=["silence", "constant"])
def test_silence_has_the_least_energy(level: int) -> None:
    wave = np.full(4000, level)
    expected = kaldi_energies(wave)
    np.testing.assert_allclose(expected, LOG_EPSILON, rtol=0, atol=1e-5)
    for front_end in (energies, energies_in_onnx):
        np.testing.assert_allclose(front_end(wave), expected, rtol=0, atol=SAME)


def test_the_windows_differ() -> None:
    wave = int16_waveform("1:4000")
    assert float(np.abs(energies(wave) - energies(wave, "povey")).max()) > 0.1


# -- In the feature extractor ----------------------------------------------------------------------


def test_the_mean_over_time_is_subtracted() -> None:
    wave = int16_waveform("1:16000")
    result = KALDI(wave, return_tensors="np")["input_features"][0]
    expected = kaldi_energies(wave)
    np.testing.assert_allclose(result, expected - expected.mean(axis=0), rtol=0, atol=SAME)
    again = KALDI(wave.astype(np.float32) / 32_768, return_tensors="np")["input_features"][0]
    np.testing.assert_array_equal(again, result)


def test_a_batch_equals_its_waveforms_alone() -> None:
    waves = [golden_waveform(seed, n) for seed, n in enumerate((3199, 1680, 5000))]
    features, mask = KALDI(waves).values()
    counts = [1 + (len(wave) - 400) // 160 for wave in waves]
    assert mask.sum(dim=1).tolist() == counts
    for wave, count, result in zip(waves, counts, features, strict=True):
        torch.testing.assert_close(result[:count], KALDI(wave)["input_features"][0])
        assert not result[count:].any()


def test_waveforms_that_are_too_short_for_whole_frames_are_named() -> None:
    assert KALDI.min_samples == 1680
    assert SpeakerFeatureExtractor().min_samples == 1600
    KALDI(golden_waveform(1, 1680))
    match = r"^a\.wav has 1679 samples; a model needs at least 1680 \(0\.105 s\)"
    with pytest.raises(ModelError, match=match):
        KALDI(golden_waveform(1, 1679), names=["a.wav"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"front_end": "htk"}, r"front_end 'htk' is unknown\. Available: voxblink2, kaldi\."),
        (
            {"front_end": "kaldi", "normalization": "std"},
            r"normalization='std' does not go with front_end='kaldi'\. Leave it out\.",
        ),
        ({"window_type": "povey"}, r"window_type='povey' does not go with front_end='voxblink2'"),
        (
            {"front_end": "kaldi", "window_type": "hann"},
            r"window_type 'hann' is unknown\. Available: hamming, povey\.",
        ),
    ],
    ids=["recipe", "normalization", "window of the other", "window"],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ModelError, match=match):
        SpeakerFeatureExtractor(**options)


@pytest.mark.parametrize("window", WINDOWS)
def test_saved_and_loaded_it_is_the_same(window: Any, tmp_path: Path) -> None:
    SpeakerFeatureExtractor(front_end="kaldi", window_type=window).save_pretrained(tmp_path)
    small_model("basic-gsp").save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.front_end, loaded.window_type, loaded.normalization) == ("kaldi", window, None)
    wave = int16_waveform("2:8000")
    expected = kaldi_energies(wave, window)
    result = loaded(wave, return_tensors="np")["input_features"][0]
    np.testing.assert_allclose(result, expected - expected.mean(axis=0), rtol=0, atol=SAME)


def test_an_extractor_of_before_is_that_of_the_released_models(tmp_path: Path) -> None:
    SpeakerFeatureExtractor(normalization="max").save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    del settings["front_end"], settings["window_type"]
    path.write_text(json.dumps(settings))
    small_model("basic-gsp").save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.front_end, loaded.normalization) == ("voxblink2", "max")
    assert loaded.window_type is None


@pytest.mark.parametrize("kind", ["ecapa-wespeaker", "bottleneck-tsp", "simam-asp"])
@pytest.mark.parametrize("samples", [1680, 1839, 1840, 12_345])
def test_what_is_exported_equals_extractor_and_model(kind: str, samples: int) -> None:
    model = small_model(kind)
    extractor = SpeakerFeatureExtractor(front_end="kaldi", num_mel_bins=20)
    waves = np.stack([golden_waveform(seed, samples) for seed in (1, 2)])
    with torch.no_grad():
        result = WaveformModel(model, extractor)(
            torch.from_numpy(waves), torch.tensor([samples, samples])
        )
    assert apart(result, embeddings_of(model, extractor(waves)["input_features"])) < TOLERANCE
