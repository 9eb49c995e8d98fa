"""The speaker models: published embeddings, padding, training, saving, compiling."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.model_oracle import (
    GOLDEN_INPUTS,
    PROPERTY,
    SMALL,
    TOLERANCE,
    apart,
    embeddings_of,
    golden,
    golden_checkpoint,
    golden_waveform,
    padded,
    random_features,
    small_extractor,
    small_model,
)
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoModelForAudioXVector
from transformers.modeling_layers import GradientCheckpointingLayer

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models import (
    RELEASED,
    SpeakerFeatureExtractor,
    SpeakerModel,
    SpeakerResNet,
    SpeakerResNetConfig,
    convert,
)
from voxblink2_lib.models.inference import for_processor
from voxblink2_lib.models.layers import attentive_statistics, mean_and_variance
from voxblink2_lib.models.resnet import simam

# What the deepest network makes of 11 frames: 6, 3, 2. Each edge of a stride is beside another.
FRAMES = st.lists(st.integers(11, 67), min_size=2, max_size=4)
EVERY = pytest.mark.parametrize("kind", SMALL)
ONE_OF_EACH = pytest.mark.parametrize("kind", ["ecapa", "basic-gsp", "bottleneck-tsp", "simam-asp"])


# -- The released models ---------------------------------------------------------------------------

Converted = tuple[str, SpeakerModel, SpeakerFeatureExtractor]


@pytest.fixture(scope="module")
def converted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Converted:
    """A released model with golden weights, read from a checkpoint as the authors write it."""
    arch: str = request.param
    path = tmp_path_factory.mktemp("golden") / "model_pt.pt"
    prefix = "module." if arch in {"resnet34", "resnet293"} else ""
    torch.save({prefix + key: tensor for key, tensor in golden_checkpoint(arch).items()}, path)
    model, extractor = convert(path, arch=arch)
    path.unlink()  # up to 400 MB
    return arch, model, extractor


def golden_batch(
    arch: str, extractor: SpeakerFeatureExtractor
) -> tuple[list[Tensor], torch.Tensor]:
    waves = [golden_waveform(*GOLDEN_INPUTS[name]) for name in golden()[arch]["embeddings"]]
    expected = torch.tensor(list(golden()[arch]["embeddings"].values()))
    return [extractor(wave)["input_features"][0] for wave in waves], expected


# Their names, shapes and layers are those of the small ones (test_conversion).
LARGE = ["resnet100", "resnet293"]


@pytest.mark.parametrize(
    "converted",
    [pytest.param(arch, marks=pytest.mark.slow) if arch in LARGE else arch for arch in RELEASED],
    indirect=True,
)
def test_golden_embeddings(converted: Converted) -> None:
    arch, model, extractor = converted
    assert extractor.normalization == golden()[arch]["normalization"]
    assert sum(weight.numel() for weight in model.parameters()) == golden()[arch]["parameters"]
    assert not model.training
    features, expected = golden_batch(arch, extractor)
    alone = torch.cat([embeddings_of(model, frames[None]) for frames in features])
    assert apart(alone, expected) < TOLERANCE
    # What is in the padding must not matter.
    assert apart(embeddings_of(model, *padded(features, garbage=7.0)), expected) < TOLERANCE
    fast = for_processor(copy.deepcopy(model))
    assert apart(embeddings_of(fast, *padded(features, garbage=7.0)), expected) < TOLERANCE


# Last of those with resnet34: it changes the model.
@pytest.mark.parametrize("converted", ["resnet34"], indirect=True)
def test_bfloat16_of_a_released_model(converted: Converted) -> None:
    arch, model, extractor = converted
    features, expected = golden_batch(arch, extractor)
    model.bfloat16()
    result = embeddings_of(model, *padded(features))
    assert result.dtype == torch.bfloat16
    assert float(functional.cosine_similarity(result.float(), expected).min()) >= 0.9995


# -- Padding ---------------------------------------------------------------------------------------


@EVERY
@PROPERTY
@given(frames=FRAMES, seed=st.integers(0, 10**6), garbage=st.sampled_from([0.0, 7.0, -1e3]))
@example(frames=[11, 67], seed=1, garbage=7.0)
@example(frames=[16, 17, 18, 24], seed=1, garbage=7.0)
@example(frames=[31, 32, 33, 34], seed=1, garbage=7.0)
def test_padding_changes_no_embedding(
    kind: str, frames: list[int], seed: int, garbage: float
) -> None:
    model = small_model(kind)
    features = [random_features(seed + place, count) for place, count in enumerate(frames)]
    alone = torch.cat([embeddings_of(model, frames[None]) for frames in features])
    batch, mask = padded(features, garbage=garbage)
    assert apart(embeddings_of(model, batch, mask), alone) < TOLERANCE
    # And some more frames of it.
    batch = functional.pad(batch, (0, 0, 0, 5), value=garbage)
    more = embeddings_of(model, batch, functional.pad(mask, (0, 5)))
    assert apart(more, alone) < TOLERANCE


@EVERY
def test_a_mask_of_ones_is_no_mask(kind: str) -> None:
    model, features = small_model(kind), random_features(3, 45)[None]
    with_mask = embeddings_of(model, features, torch.ones(1, 45, dtype=torch.long))
    assert apart(with_mask, embeddings_of(model, features)) < TOLERANCE


@EVERY
@pytest.mark.parametrize("samples", [1600, 1759, 1760, 2399, 2400])
def test_waveforms_of_any_length_go_with_any_other(kind: str, samples: int) -> None:
    model, extractor = small_model(kind), small_extractor()
    waves = [golden_waveform(1, samples), golden_waveform(2, 9000)]
    together = embeddings_of(model, *extractor(waves).values())
    alone = torch.cat([embeddings_of(model, *extractor(wave).values()) for wave in waves])
    assert together.shape == (2, 12)
    assert apart(together, alone) < TOLERANCE


def test_small_models_tell_inputs_and_order_apart() -> None:
    # Otherwise the tests above would compare constants.
    for kind in SMALL:
        model = small_model(kind)
        first, other = random_features(1, 40), random_features(2, 40)
        a, b, c = (embeddings_of(model, x[None]) for x in (first, other, first.flip(0)))
        assert apart(a, b) > 0.01, kind
        assert apart(a, c) > 0.01, kind


@pytest.mark.parametrize("frames", [2, 9, 20])
def test_simam_follows_its_paper(frames: int) -> None:
    x = random_features(5, frames, 6).T[None, None] * torch.tensor([1.0, 0.1])[:, None, None]
    planes = x[0].double()
    d = (planes - planes.mean(dim=(1, 2), keepdim=True)).square()
    n = frames * 6 - 1
    energy = d / (4 * (d.sum(dim=(1, 2), keepdim=True) / n + 1e-4)) + 0.5
    expected = planes * energy.sigmoid()
    torch.testing.assert_close(simam(x, None)[0].double(), expected, rtol=1e-5, atol=1e-6)
    mask = torch.ones(1, 1, 1, frames + 3)
    mask[..., frames:] = 0
    result = simam(functional.pad(x, (0, 3)), mask)[0, ..., :frames]
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)


# -- Saved and loaded ------------------------------------------------------------------------------


@ONE_OF_EACH
def test_saved_and_loaded_it_is_the_same(kind: str, tmp_path: Path) -> None:
    model, features = small_model(kind), random_features(1, 40)[None]
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is type(model.config)
    assert config.xvector_output_dim == 12
    for auto in (AutoModel, AutoModelForAudioXVector):
        loaded = auto.from_pretrained(tmp_path)
        assert type(loaded) is type(model)
        assert not loaded.training
        assert loaded.state_dict().keys() == model.state_dict().keys()
        assert apart(embeddings_of(loaded, features), embeddings_of(model, features)) < 1e-6


def test_a_head_is_added_to_a_model_without_one(tmp_path: Path) -> None:
    model, features = small_model("simam-asp"), random_features(1, 40)[None]
    model.save_pretrained(tmp_path / "plain")
    with_head = AutoModelForAudioXVector.from_pretrained(tmp_path / "plain", num_speakers=5)
    assert apart(embeddings_of(with_head, features), embeddings_of(model, features)) < 1e-6
    weight = with_head.head.weight.detach()
    assert weight.shape == (5, 12)
    assert bool((weight.norm(dim=1) > 0.1).all())
    assert float(weight.abs().max()) < 10
    with_head.save_pretrained(tmp_path / "head")
    again = AutoModelForAudioXVector.from_pretrained(tmp_path / "head")
    torch.testing.assert_close(again.head.weight.detach(), weight, rtol=0, atol=0)


def test_a_config_refuses_what_it_does_not_know() -> None:
    unknown: Any = "dense"
    with pytest.raises(ModelError, match=r"block 'dense' is unknown.*basic, bottleneck, simam"):
        SpeakerResNetConfig(block=unknown)
    with pytest.raises(ModelError, match=r"pooling 'dense' is unknown.*gsp, tsp, asp"):
        SpeakerResNetConfig(pooling=unknown)


# -- Training --------------------------------------------------------------------------------------

BATCH = [random_features(seed, frames) for seed, frames in enumerate((11, 16, 17, 24, 33, 64))]
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def trained_once(model: SpeakerModel) -> tuple[float, dict[str, Tensor]]:
    """Return the loss of a batch and the gradient of every parameter."""
    model.train()
    batch, mask = padded(BATCH, garbage=7.0)
    loss = model(batch, mask, labels=LABELS).loss
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        gradients[name] = parameter.grad
    return loss.item(), gradients


@EVERY
def test_gradient_checkpointing_changes_nothing(kind: str) -> None:
    loss, gradients = trained_once(small_model(kind, num_speakers=3))
    assert all(
        bool(gradient.any()) for name, gradient in gradients.items() if name.endswith("weight")
    )
    model = small_model(kind, num_speakers=3)
    # Its name of before transformers 5.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    runs: list[str] = []
    blocks = [
        module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    for block in blocks:
        inner: Any = (
            block.conv1
        )  # inside: whether a hook of the block itself runs twice is not said
        inner.register_forward_pre_hook(lambda *_: runs.append("forward"))
    result, others = trained_once(model)
    assert len(runs) == 2 * len(blocks) > 0  # each block ran forward once more
    assert result == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("bias", [-1.0, 1.0])
@pytest.mark.parametrize("kind", [kind for kind in SMALL if not kind.startswith("ecapa")])
def test_constant_channels_give_finite_gradients(kind: str, bias: float) -> None:
    model = small_model(kind, num_speakers=3)
    assert isinstance(model, SpeakerResNet)
    stages: Any = model.front
    last = stages.layer4[-1]
    for norm in (last.bn3 if "bottleneck" in kind else last.bn2, last.downsample[1]):
        torch.nn.init.zeros_(norm.weight)
        torch.nn.init.constant_(norm.bias, bias)
    trained_once(model)  # no pooled plane varies: they are all 0, or all 2


@ONE_OF_EACH
def test_a_few_steps_learn_a_toy_problem(kind: str) -> None:
    model = small_model(kind, num_speakers=3).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    features = torch.stack([random_features(seed, 20) + seed % 3 for seed in range(12)])
    losses = []
    for _ in range(12):
        loss = model(features, labels=torch.arange(12) % 3).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


# -- What a model returns --------------------------------------------------------------------------


def test_what_a_model_returns() -> None:
    features, labels = random_features(1, 30)[None], torch.tensor([2])
    plain, with_head = small_model("basic-gsp"), small_model("basic-gsp", num_speakers=4)
    with pytest.raises(
        ModelError, match=r"no margin head, so it cannot compute a loss.*num_speakers"
    ):
        plain(features, labels=labels)
    assert plain(features).keys() == {"embeddings"}
    (alone,) = plain(features, return_dict=False)
    torch.testing.assert_close(alone, plain(features).embeddings)
    logits, embeddings = with_head(features, return_dict=False)
    loss, *others = with_head(features, labels=labels, return_dict=False)
    assert (logits.shape, embeddings.shape, loss.shape, len(others)) == ((1, 4), (1, 12), (), 2)


# -- Compiled, and in bfloat16 ---------------------------------------------------------------------


@ONE_OF_EACH
def test_compiled_it_is_the_same(kind: str) -> None:
    torch._dynamo.reset()
    model = small_model(kind)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    batch = padded(BATCH, garbage=7.0)
    for inputs in (batch, (BATCH[4][None],), (BATCH[5][None],)):
        assert apart(embeddings_of(compiled, *inputs), embeddings_of(model, *inputs)) < TOLERANCE


@EVERY
def test_bfloat16(kind: str) -> None:
    features = torch.stack([random_features(seed, 101) for seed in range(4)])
    expected = embeddings_of(small_model(kind), features)
    mask = torch.ones(features.shape[:2], dtype=torch.long)
    model = small_model(kind).bfloat16()
    # Attention raises e to the power of what was rounded; so it shows more.
    least = 0.995 if kind.endswith("asp") else 0.9995
    for result in (embeddings_of(model, features), embeddings_of(model, features, mask)):
        assert result.dtype == torch.bfloat16
        assert float(functional.cosine_similarity(result.float(), expected).min()) >= least


@pytest.mark.parametrize("frames", [2, 3, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_follow_their_definitions(frames: int, dtype: torch.dtype) -> None:
    # In bfloat16 a sum over 3000 frames would be far off: they are taken in float32.
    x = random_features(1, frames, 6).T[None].to(dtype)
    scores = random_features(2, frames, 6).T[None]
    weights = scores.double().softmax(dim=2)
    centre = (x.double() * weights).sum(dim=2)
    spread = ((x.double() - centre[..., None]).square() * weights).sum(dim=2)
    expected = torch.cat([centre, spread.clamp(min=0.01).sqrt()], dim=1).float()
    plain = [
        statistic.float()
        for statistic in (x.double().mean(2, True), x.double().var(2, keepdim=True))
    ]
    masks = (None, torch.ones(1, 1, frames), functional.pad(torch.ones(1, 1, frames), (0, 9)))
    for mask in masks:
        beside = 0 if mask is None else mask.shape[2] - frames
        y, z = functional.pad(x, (0, beside), value=7.0), functional.pad(scores, (0, beside))
        mean, variance = mean_and_variance(y, mask, (2,))
        assert mean.dtype == variance.dtype == torch.float32
        torch.testing.assert_close([mean, variance], plain, rtol=1e-4, atol=1e-5)
        result = attentive_statistics(y, z, mask, floor=0.01)
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)
