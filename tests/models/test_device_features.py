"""Features where the waveforms are: those of the extractor, in full precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.model_oracle import PROPERTY, golden_waveform, slow_log_mel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models import SpeakerFeatureExtractor
from voxblink2_lib.models.device_features import DeviceFeatures

KINDS: dict[str, dict[str, Any]] = {
    "std": {},
    "max": {"normalization": "max", "num_mel_bins": 40},
    "hamming": {"front_end": "kaldi"},
    "povey": {"front_end": "kaldi", "window_type": "povey"},
}
EVERY = pytest.mark.parametrize("kind", KINDS)
TOLERANCE = 1e-4  # relative


def waves_of(lengths: list[int]) -> list[Tensor]:
    return [torch.from_numpy(golden_waveform(seed, n)) for seed, n in enumerate(lengths)]


def apart(result: Tensor, expected: Tensor) -> float:
    assert result.shape == expected.shape
    assert result.dtype == torch.float32
    return float((result - expected).norm() / expected.norm())


@EVERY
@PROPERTY
@given(
    lengths=st.lists(st.integers(1_680, 9_000), min_size=1, max_size=4),
    garbage=st.sampled_from([0.0, 0.7, -1e3]),
)
@example(lengths=[1_680, 9_000], garbage=0.7)
def test_they_are_those_of_the_extractor(kind: str, lengths: list[int], garbage: float) -> None:
    extractor, waves = SpeakerFeatureExtractor(**KINDS[kind]), waves_of(lengths)
    expected, expected_mask = extractor(waves).values()
    batch = pad_sequence(waves, batch_first=True, padding_value=garbage)
    result, mask = DeviceFeatures(extractor)(batch, torch.tensor(lengths))
    assert mask is not None
    assert torch.equal(mask, expected_mask)
    assert not result[mask == 0].any()
    assert apart(result, expected) < TOLERANCE


@EVERY
def test_waveforms_of_one_length_need_no_lengths(kind: str) -> None:
    extractor, waves = SpeakerFeatureExtractor(**KINDS[kind]), waves_of([32_000] * 3)
    result, mask = DeviceFeatures(extractor)(torch.stack(waves))
    assert mask is None
    assert apart(result, extractor(waves)["input_features"]) < TOLERANCE


def test_they_follow_their_definition() -> None:
    wave = golden_waveform(3, 4_321)
    features = DeviceFeatures(SpeakerFeatureExtractor())
    (result,), _ = features(torch.from_numpy(wave)[None])
    np.testing.assert_allclose(result, slow_log_mel(wave, "std"), rtol=0, atol=1e-3)


@EVERY
def test_autocast_changes_nothing(kind: str) -> None:
    features = DeviceFeatures(SpeakerFeatureExtractor(**KINDS[kind]))
    batch = torch.stack(waves_of([16_000] * 2))
    expected, _ = features(batch)
    with torch.autocast("cpu", torch.bfloat16):
        result, _ = features(batch)
    assert torch.equal(result, expected)


def test_silence_gives_finite_numbers() -> None:
    for kind, options in KINDS.items():
        result, _ = DeviceFeatures(SpeakerFeatureExtractor(**options))(torch.zeros(1, 16_000))
        assert bool(result.isfinite().all()), kind


def test_nothing_of_them_is_saved_or_learned() -> None:
    features = DeviceFeatures(SpeakerFeatureExtractor())
    assert not features.state_dict()
    assert not list(features.parameters())
    result, _ = features(torch.stack(waves_of([16_000])).requires_grad_())
    assert not result.requires_grad


@pytest.mark.parametrize("shape", [(32_000,), (2, 1_599), (2, 1, 32_000)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    features = DeviceFeatures(SpeakerFeatureExtractor())
    shown = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(
        ModelError, match=rf"shape {shown}; expected is \(batch, samples\), with 1600"
    ):
        features(torch.ones(shape))
