"""What a network becomes for a processor gives what the network gives."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.model_oracle import (
    PROPERTY,
    TOLERANCE,
    apart,
    embeddings_of,
    padded,
    random_features,
    small_model,
)
from torch import nn

from voxblink2_lib.models import SpeakerModel, winograd
from voxblink2_lib.models.inference import for_processor
from voxblink2_lib.models.winograd import WinogradConvolution, is_suitable

EXACT = 1e-5
# Each kind of block and of pooling once.
KINDS = ("basic-gsp", "bottleneck-tsp", "simam-asp")


@pytest.fixture
def _any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make narrow convolutions suitable too, and strips of few tiles."""
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_TILES", 20)


def with_negative_slopes(model: SpeakerModel) -> SpeakerModel:
    """Negate every second slope of batch normalization, where a ReLU cannot be moved."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            with torch.no_grad():
                module.weight[::2] *= -1
    return model


def remade(model: SpeakerModel) -> Any:
    return for_processor(copy.deepcopy(model))


@pytest.mark.usefixtures("_any_width")
@pytest.mark.parametrize("kind", KINDS)
@PROPERTY
@given(frames=st.lists(st.integers(11, 70), min_size=1, max_size=5), seed=st.integers(0, 10**6))
@example(frames=[11, 16, 17, 33], seed=1)
def test_embeddings_are_those_of_each_utterance_alone(
    kind: str, frames: list[int], seed: int
) -> None:
    model = with_negative_slopes(small_model(kind))
    features = [random_features(seed + place, count) for place, count in enumerate(frames)]
    alone = torch.cat([embeddings_of(model, rows[None]) for rows in features])
    fast = remade(model)
    assert apart(embeddings_of(fast, *padded(features, garbage=7.0)), alone) < TOLERANCE
    assert apart(embeddings_of(fast, features[0][None]), alone[:1]) < TOLERANCE


def test_residual_networks_have_no_normalization_left() -> None:
    fast = remade(small_model("bottleneck-tsp"))
    kinds = {type(module) for module in fast.modules()}
    assert nn.BatchNorm2d not in kinds
    assert WinogradConvolution not in kinds, "they are too narrow"


# -- Convolutions of 3x3 ---------------------------------------------------------------------------

SIZES = st.integers(1, 13)


@pytest.mark.usefixtures("_any_width")
@PROPERTY
@given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bands=SIZES,
    frames=st.integers(1, 50),
    with_bias=st.booleans(),
)
@example(batch=2, channels=(3, 5), bands=10, frames=43, with_bias=True)
@example(batch=1, channels=(1, 1), bands=1, frames=1, with_bias=False)
def test_a_convolution_gives_what_float64_gives(
    batch: int, channels: tuple[int, int], bands: int, frames: int, with_bias: bool
) -> None:
    torch.manual_seed(frames)
    layer = nn.Conv2d(*channels, 3, padding=1, bias=with_bias)
    x = torch.randn(batch, channels[0], bands, frames)
    with torch.no_grad():
        result = WinogradConvolution(layer)(x)
        expected = layer.double()(x.double())
    assert result.shape == expected.shape
    assert float((result - expected).abs().max()) < EXACT


def test_a_wide_convolution_is_exact_to_some_roundings() -> None:
    # The plain one is off by twice as much or half as much, by the processor's own algorithm.
    torch.manual_seed(1)
    layer = nn.Conv2d(256, 256, 3, padding=1)
    assert is_suitable(layer)
    x = torch.randn(1, 256, 10, 33)
    with torch.no_grad():
        ours = WinogradConvolution(layer)(x)
        exact = layer.double()(x.double())
    assert float((ours - exact).norm()) < 4 * torch.finfo(torch.float32).eps * float(exact.norm())


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1, "padding": 0},
        {"stride": 2},
        {"padding": 0},
        {"dilation": 2},
        {"groups": 2},
        {"in_channels": 128},
        {"out_channels": 128},
    ],
)
def test_what_no_winograd_convolution_is_made_of(options: dict[str, int]) -> None:
    wide: dict[str, Any] = {"in_channels": 256, "out_channels": 256, "kernel_size": 3, "padding": 1}
    assert is_suitable(nn.Conv2d(**wide, device="meta"))
    assert not is_suitable(nn.Conv2d(**(wide | options), device="meta"))
