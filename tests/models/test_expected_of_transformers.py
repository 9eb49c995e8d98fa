"""What code for any model of transformers expects of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.model_oracle import (
    SMALL,
    TOLERANCE,
    apart,
    embeddings_of,
    golden_waveform,
    padded,
    random_features,
    small_extractor,
    small_model,
)
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic
from torch.nn import functional
from transformers import AutoModelForAudioXVector, pipeline
from transformers.modeling_outputs import XVectorOutput

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models import EcapaTdnn, SpeakerModel

QUICK = {"ecapa", "simam-asp"}
TWO_OF_ALL = pytest.mark.parametrize(
    "kind",
    [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in SMALL],
)
EVERY = pytest.mark.parametrize("kind", SMALL)
FEATURES = random_features(1, 40)[None]
WEIGHTS = "model.safetensors"


# -- Output ----------------------------------------------------------------------------------------


@EVERY
def test_hidden_states(kind: str) -> None:
    model = small_model(kind)
    states = model(FEATURES, output_hidden_states=True).hidden_states
    config = model.config
    if isinstance(model, EcapaTdnn):
        assert {state.shape for state in states} == {(1, config.channels, 40)}
        assert len(states) == 1 + len(config.dilations)
    else:
        assert len(states) == 1 + len(config.depths)
        assert states[0].shape == (1, config.base_channels, config.num_mel_bins, 40)
        assert states[-1].shape[-1] == 5  # half of the frames, three times
    assert model(FEATURES).hidden_states is None


def test_hidden_states_are_what_gradients_flow_through() -> None:
    model = small_model("simam-asp")
    output = model(FEATURES, output_hidden_states=True)
    for state in output.hidden_states:
        state.retain_grad()
    output.embeddings.sum().backward()
    assert all(state.grad.abs().sum() > 0 for state in output.hidden_states)


@pytest.mark.parametrize("by", ["argument", "configuration"])
def test_tuples_and_hidden_states_by_argument_or_configuration(by: str) -> None:
    model = small_model("basic-gsp")
    choice = {"return_dict": False, "output_hidden_states": True}
    if by == "configuration":
        for name, value in choice.items():
            setattr(model.config, name, value)
    embeddings, states = model(FEATURES, **(choice if by == "argument" else {}))
    full: Any = model(FEATURES, return_dict=True, output_hidden_states=True)
    assert isinstance(full, XVectorOutput)
    assert full.embeddings is not None
    assert full.hidden_states is not None
    assert torch.equal(embeddings, full.embeddings)
    assert [*map(torch.equal, states, full.hidden_states)] == [True] * 5


@EVERY
def test_the_first_layer_takes_the_frames(kind: str) -> None:
    model: Any = small_model(kind)
    layer = model.get_input_embeddings()
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    model.enable_input_require_grads()  # what adapters need
    assert model(FEATURES, output_hidden_states=True).hidden_states[0].requires_grad


# -- Refused ---------------------------------------------------------------------------------------


def labelled(labels: list[int]) -> Any:
    model = small_model("ecapa", num_speakers=5)
    return model(random_features(1, 3 * 40).reshape(3, 40, -1), labels=torch.tensor(labels))


def test_labels_of_no_class() -> None:
    assert labelled([0, 4, 2]).loss.isfinite()
    with pytest.raises(ModelError, match=r"no class, at row 1 of the batch\. Allowed are 0 to 4"):
        labelled([0, -100, 4])
    with pytest.raises(ModelError, match=r"at rows 0, 2 of the batch.*none is left out by -100"):
        labelled([5, 1, -1])


def test_an_utterance_without_frames() -> None:
    mask = torch.tensor([[1] * 40, [0] * 40])
    with pytest.raises(ModelError, match="is 0 at every frame of row 1 of the batch"):
        small_model("ecapa")(FEATURES.expand(2, -1, -1), mask)


@pytest.mark.parametrize(
    ("features", "mask", "match"),
    [
        (FEATURES[0], None, r"input_features has the shape \(40, 20\); expected is \(batch, fr"),
        (FEATURES[..., :19], None, r"shape \(1, 40, 19\); expected is \(batch, frames, 20\)"),
        (FEATURES, torch.ones(1, 41), r"attention_mask has the shape \(1, 41\).*\(1, 40\)"),
    ],
)
def test_other_shapes(features: Tensor, mask: Tensor | None, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        small_model("basic-gsp")(features, mask)


def test_words_come_where_nobody_waits_for_the_device() -> None:
    check = torch.compile(_checked_labels, backend="eager", fullgraph=True)
    assert check(torch.tensor([0, 4])).tolist() == [0, 4]
    with pytest.raises(RuntimeError, match=r"no class, at a row of the batch\. Allowed are 0 to 4"):
        check(torch.tensor([0, 5]))


def _checked_labels(labels: Tensor) -> Tensor:
    _LABELLED._check_labels(labels)
    return labels + 0


_LABELLED: SpeakerModel = small_model("ecapa", num_speakers=5)


# -- Saved and loaded ------------------------------------------------------------------------------


@EVERY
def test_without_num_batches_tracked_all_else_is_loaded(kind: str, tmp_path: Path) -> None:
    """PyTorch's own reset of a normalization would also reset the statistics that were loaded."""
    model = small_model(kind)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    kept = {name: value for name, value in tensors.items() if "num_batches_tracked" not in name}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / WEIGHTS, metadata={"format": "pt"})
    kinds: Any = type(model)
    loaded, report = kinds.from_pretrained(tmp_path, output_loading_info=True)
    assert apart(embeddings_of(loaded, FEATURES), embeddings_of(model, FEATURES)) < 1e-6
    assert not report["missing_keys"]
    tracked = [value for name, value in loaded.state_dict().items() if "num_batches" in name]
    assert tracked
    assert not any(tracked)


def test_what_is_missing_is_initialized_and_the_rest_is_kept(tmp_path: Path) -> None:
    model = small_model("basic-gsp")
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    for name in ("weight", "bias", "running_mean"):
        del tensors[f"front.bn1.{name}"]
    save_file(tensors, tmp_path / WEIGHTS, metadata={"format": "pt"})
    loaded = type(model).from_pretrained(tmp_path).state_dict()
    assert loaded["front.bn1.weight"].tolist() == [1.0] * len(loaded["front.bn1.weight"])
    for name in ("bias", "running_mean"):
        assert not loaded[f"front.bn1.{name}"].any()
    for name, value in tensors.items():
        assert torch.equal(loaded[name], value), name


# -- Pipelines, export, quantization ---------------------------------------------------------------


def test_a_pipeline_of_a_fine_tuned_head(tmp_path: Path) -> None:
    names = {0: "id00012", 1: "id00345", 2: "id06789"}
    model = small_model("basic-gsp", num_speakers=3, id2label=names)
    model.save_pretrained(tmp_path)
    small_extractor("std").save_pretrained(tmp_path)
    wave = golden_waveform(1, 8000)
    answers: Any = pipeline("audio-classification", model=str(tmp_path))(wave)
    assert {answer["label"] for answer in answers} == {*names.values()}
    logits = model(**small_extractor("std")(wave)).logits[0]
    expected = dict(zip(names.values(), logits.softmax(0).tolist(), strict=True))
    for answer in answers:
        np.testing.assert_allclose(answer["score"], expected[answer["label"]], atol=1e-5)


def test_another_number_of_speakers_has_other_names(tmp_path: Path) -> None:
    small_model("basic-gsp", num_speakers=2, id2label={0: "a", 1: "b"}).save_pretrained(tmp_path)
    loaded = AutoModelForAudioXVector.from_pretrained(
        tmp_path, num_speakers=3, ignore_mismatched_sizes=True
    )
    assert loaded.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


DYNAMIC = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}


@TWO_OF_ALL
def test_exported_it_takes_any_time(kind: str) -> None:
    model = small_model(kind)
    batch, mask = padded([random_features(seed, frames) for seed, frames in ((1, 40), (2, 33))])
    program = torch.export.export(model, (batch, mask), dynamic_shapes=(DYNAMIC, DYNAMIC)).module()
    other, other_mask = padded([random_features(seed, 50 + seed) for seed in (3, 9, 17)])
    with torch.no_grad():
        result = program(other, other_mask).embeddings
    assert apart(result, embeddings_of(model, other, other_mask)) < TOLERANCE
    with pytest.raises(RuntimeError, match="attention_mask is 0 at every frame of a row"):
        program(other, other_mask * torch.tensor([[1], [0], [1]]))


# PyTorch has announced that another package will take this over; people still call it.
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@EVERY
def test_linear_layers_of_eight_bits(kind: str) -> None:
    model = small_model(kind)
    quantize: Any = quantize_dynamic
    small = quantize(model, {nn.Linear}, dtype=torch.qint8)
    batch, mask = padded([random_features(seed, 40 + seed) for seed in (1, 5)])
    expected = embeddings_of(model, batch, mask)
    similarity = functional.cosine_similarity(embeddings_of(small, batch, mask), expected)
    assert 0.999 < float(similarity.min()) < 1
