"""The margin head against its formulas in NumPy, and in full precision whatever is around it."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.model_oracle import PROPERTY, Array, embeddings_of, random_features, small_model
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForAudioXVector
from transformers.modeling_outputs import XVectorOutput

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models.margin_head import MarginHead

# -- The formulas ----------------------------------------------------------------------------------


def slow_margin_loss(
    cosines: Any,
    labels: list[int],
    margin: float,
    scale: float,
    *,
    top_k: int = 0,
    penalty: float = 0.0,
) -> float:
    """Return the loss of cosines of each speaker's nearest centre, one angle at a time."""
    losses = []
    for row, label in zip(cosines, labels, strict=True):
        angles = [math.acos(max(-1.0, min(1.0, cosine))) for cosine in row]
        others = sorted((angle, place) for place, angle in enumerate(angles) if place != label)
        logits = [scale * math.cos(angle) for angle in angles]
        for angle, place in others[:top_k]:
            logits[place] = scale * math.cos(angle - penalty)
        beyond = angles[label] + margin > math.pi
        linear = row[label] - margin * math.sin(margin)
        logits[label] = scale * (linear if beyond else math.cos(angles[label] + margin))
        losses.append(math.log(sum(math.exp(logit - logits[label]) for logit in logits)))
    return sum(losses) / len(losses)


def slow_cosines(embeddings: Array, weight: Array, sub_centers: int) -> list[list[float]]:
    """Return the cosine of the nearest centre of each speaker; centres lie speaker by speaker."""

    def cosine(a: Array, b: Array) -> float:
        return float(a @ b / math.sqrt((a @ a) * (b @ b)))

    groups = [weight[start : start + sub_centers] for start in range(0, len(weight), sub_centers)]
    return [[max(cosine(x, centre) for centre in group) for group in groups] for x in embeddings]


@pytest.mark.parametrize(("margin", "scale"), [(0.2, 32.0), (0.5, 8.0), (0.0, 1.0)])
@pytest.mark.parametrize("towards", [1.0, 0.1, -1.0])
def test_the_margin_by_hand(margin: float, scale: float, towards: float) -> None:
    torch.manual_seed(3)
    head = MarginHead(6, 4, margin=margin, scale=scale)
    labels = [0, 3, 1, 2, 2]
    # Towards -1 the angle and the margin are more than half a turn together.
    weight = head.weight.detach().double()
    x = towards * weight[labels] * 3 + 0.05 * torch.randn(5, 6)
    cosines = functional.normalize(x) @ functional.normalize(weight).T
    logits, loss = head(x.float(), torch.tensor(labels))
    assert loss is not None
    expected = slow_margin_loss(cosines.tolist(), labels, margin, scale)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    torch.testing.assert_close(logits.double(), scale * cosines, rtol=0, atol=1e-4)
    without, none = head(x.float(), None)
    assert none is None
    torch.testing.assert_close(without, logits, rtol=0, atol=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_embedding_on_its_weight_has_a_finite_gradient(sign: int) -> None:
    head = MarginHead(4, 3, margin=0.2, scale=32.0)
    with torch.no_grad():
        head.weight.copy_(torch.eye(3, 4))
    x = (sign * torch.eye(1, 4)).requires_grad_()
    _, loss = head(x, torch.tensor([0]))
    assert loss is not None
    loss.backward()
    assert x.grad is not None
    assert head.weight.grad is not None
    assert bool(x.grad.isfinite().all())
    assert bool(head.weight.grad.isfinite().all())


def test_a_model_uses_the_head_of_its_config() -> None:
    model = small_model("ecapa", num_speakers=4, margin=0.4, logit_scale=10.0)
    features, labels = random_features(1, 30)[None], [2]
    output = model(features, labels=torch.tensor(labels))
    assert isinstance(output, XVectorOutput)
    assert output.embeddings is not None
    assert output.loss is not None
    head: Any = model.head
    cosines = functional.normalize(output.embeddings) @ functional.normalize(head.weight).T
    torch.testing.assert_close(output.logits, 10 * cosines)
    expected = slow_margin_loss(cosines.tolist(), labels, 0.4, 10.0)
    assert output.loss.item() == pytest.approx(expected, rel=1e-4)
    assert model(features).loss is None
    torch.testing.assert_close(model(features).logits, output.logits)


@PROPERTY
@given(
    seed=st.integers(0, 10**6),
    sub_centers=st.integers(1, 4),
    top_k=st.integers(0, 6),
    margin=st.sampled_from([0.0, 0.2, 0.5]),
    penalty=st.sampled_from([0.0, 0.06, 0.3]),
)
def test_sub_centers_and_penalties_by_hand(
    seed: int, sub_centers: int, top_k: int, margin: float, penalty: float
) -> None:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"sub_centers": sub_centers, "top_k": top_k, "top_k_penalty": penalty}
    head = MarginHead(6, 7, margin=margin, scale=16.0, **options)
    assert head.weight.shape == (7 * sub_centers, 6)
    x, labels = torch.randn(5, 6), torch.randint(7, (5,))
    cosines = slow_cosines(x.double().numpy(), head.weight.detach().double().numpy(), sub_centers)
    logits, loss = head(x, labels)
    assert loss is not None
    torch.testing.assert_close(
        logits.double(), 16 * torch.tensor(cosines).double(), rtol=0, atol=1e-4
    )
    expected = slow_margin_loss(
        cosines, labels.tolist(), margin, 16.0, top_k=top_k, penalty=penalty
    )
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_only_the_nearest_centre_learns() -> None:
    head = MarginHead(4, 2, margin=0.2, scale=8.0, sub_centers=2)
    with torch.no_grad():
        head.weight.copy_(torch.eye(4))
    x = torch.tensor([[0.9, 0.3, 0.2, 0.1]])
    loss = head(x, torch.tensor([0]))[1]
    assert loss is not None
    loss.backward()
    assert head.weight.grad is not None
    assert head.weight.grad.any(dim=1).tolist() == [True, False, True, False]


def test_a_penalty_brings_the_nearest_others_nearer() -> None:
    losses = [
        head_of(top_k=top_k, top_k_penalty=penalty)(*BATCH)[1]
        for top_k, penalty in ((0, 0.1), (3, 0.0), (3, 0.1), (3, 0.2), (6, 0.2))
    ]
    none, zero, *rising = [loss.item() for loss in losses]
    assert none == zero
    assert none < rising[0] < rising[1] < rising[2]


def test_a_penalty_may_change_between_steps() -> None:
    head = head_of(top_k=3, top_k_penalty=0.1)
    head.top_k_penalty = 0.2
    torch.testing.assert_close(head(*BATCH), head_of(top_k=3, top_k_penalty=0.2)(*BATCH))


BATCH = (
    torch.randn(32, 16, generator=torch.Generator().manual_seed(1)),
    torch.randint(7, (32,), generator=torch.Generator().manual_seed(2)),
)


def head_of(**options: Any) -> MarginHead:
    torch.manual_seed(5)
    return MarginHead(16, 7, margin=0.2, scale=32.0, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sub_centers": 0}, r"head_sub_centers is 0; allowed is 1 or more\."),
        ({"top_k": 7}, r"head_top_k is 7; allowed is 0 or more, up to 6\."),
        ({"top_k": -1}, r"head_top_k is -1; allowed is 0 or more, up to 6\."),
        ({"top_k_penalty": 2.0}, r"head_top_k_penalty is 2; allowed is 0 or more, up to 1\.57"),
        ({"top_k_penalty": float("nan")}, r"head_top_k_penalty is nan; allowed is 0 or more"),
    ],
)
def test_numbers_that_are_none(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        head_of(**options)


# -- In a model ------------------------------------------------------------------------------------


def test_a_model_keeps_its_kind_of_head(tmp_path: Path) -> None:
    options: dict[str, Any] = {"head_sub_centers": 3, "head_top_k": 2, "head_top_k_penalty": 0.1}
    model = small_model("basic-gsp", num_speakers=4, **options)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForAudioXVector.from_pretrained(tmp_path)
    features, labels = random_features(1, 30)[None], torch.tensor([2])
    result, expected = (each(features, labels=labels) for each in (loaded, model))
    assert expected.logits.shape == (1, 4)
    torch.testing.assert_close(result.loss, expected.loss)
    weight = loaded.head.weight.detach()
    assert weight.shape == (12, 12)
    cosines = slow_cosines(expected.embeddings.detach().numpy(), weight.numpy(), 3)
    by_hand = slow_margin_loss(cosines, [2], 0.2, 32.0, top_k=2, penalty=0.1)
    assert result.loss.item() == pytest.approx(by_hand, rel=1e-4)


def test_a_configuration_of_before_has_one_centre(tmp_path: Path) -> None:
    model = small_model("basic-gsp", num_speakers=4)
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if '"head_' not in line))
    loaded = AutoModelForAudioXVector.from_pretrained(tmp_path)
    assert config.read_text().count("head_") == 0
    assert loaded.head.weight.shape == (4, 12)
    features = random_features(1, 30)[None]
    assert torch.equal(loaded(features).logits, model(features).logits)
    assert torch.equal(embeddings_of(loaded, features), embeddings_of(model, features))


# -- Full precision --------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {"plain": {}, "all": {"sub_centers": 3, "top_k": 2}}


def gradients(head: MarginHead, x: Tensor, autocast: torch.dtype | None = None) -> list[Tensor]:
    """Return the gradient of embeddings and of the weight."""
    x = x.clone().requires_grad_()
    head.zero_grad()
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        if autocast:  # is on around the head; otherwise equality would show nothing
            assert functional.linear(BATCH[0], head.weight).dtype == autocast
        loss = head(x, BATCH[1])[1]
        assert torch.is_autocast_enabled("cpu") == bool(autocast)
    assert loss is not None
    assert loss.dtype == torch.float32
    loss.backward()
    assert x.grad is not None
    assert head.weight.grad is not None
    return [x.grad.float(), head.weight.grad.clone()]


def apart(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_gradient(kind: str, dtype: torch.dtype) -> None:
    head = head_of(**KINDS[kind])
    expected, result = gradients(head, BATCH[0]), gradients(head, BATCH[0], dtype)
    assert max(map(apart, result, expected)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounded_embeddings_have_the_gradient_of_their_values(dtype: torch.dtype) -> None:
    head, rounded = head_of(), BATCH[0].to(dtype)
    expected, of_weight = gradients(head, rounded.float())
    result, same = gradients(head, rounded, dtype)
    # The gradient itself is handed back in the type of the embeddings.
    torch.testing.assert_close(result, expected.to(dtype).float(), rtol=0, atol=0)
    assert apart(same, of_weight) < 1e-6


def test_without_full_precision_the_gradient_would_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = gradients(head_of(), BATCH[0])
    nothing = contextlib.nullcontext
    monkeypatch.setattr("voxblink2_lib.models.margin_head.full_precision", nothing)
    result, _ = gradients(head_of(), BATCH[0], torch.bfloat16)
    assert apart(result, expected) > 1e-3


def test_compiled_it_is_the_same() -> None:
    torch._dynamo.reset()
    head = head_of(**KINDS["all"])
    compiled = torch.compile(head, backend="eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        result = compiled(*BATCH)
    torch.testing.assert_close(result, head(*BATCH))


def test_a_device_without_autocast() -> None:
    with torch.device("meta"):
        logits, loss = head_of()(torch.empty(3, 16), torch.zeros(3, dtype=torch.long))
    assert loss is not None
    assert (logits.shape, loss.shape) == ((3, 7), ())
