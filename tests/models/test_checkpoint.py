"""Checkpoints as people save them: wrapped, with a loss beside, in half precision, unnamed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.model_oracle import (
    FRONT_END,
    golden_tensor,
    light_checkpoint,
    small_wespeaker_folder,
)
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models import ARCHITECTURES, SpeakerModel, convert
from voxblink2_lib.models.checkpoint import read_checkpoint
from voxblink2_lib.models.conversion import convert_checkpoint

State = dict[str, Tensor]
# A small model of WeSpeaker in its folder: what may be wrapped is the same for all.
KEY = "bottleneck.bias"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_wespeaker_folder(tmp_path_factory.mktemp("wespeaker"))


@pytest.fixture(scope="module")
def state(folder: Path) -> State:
    content: State = torch.load(folder / "avg_model.pt")
    return {name: tensor for name, tensor in content.items() if name != "projection.weight"}


@pytest.fixture
def converted(folder: Path, tmp_path: Path) -> Callable[[Any], Any]:
    """Convert a checkpoint that has the sizes of the folder."""

    def convert_saved(content: Any) -> Any:
        (tmp_path / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
        torch.save(content, tmp_path / "avg_model.pt")
        return convert_checkpoint(tmp_path)

    return convert_saved


def prefixed(*prefixes: str) -> Callable[[State], State]:
    def wrap(state: State) -> State:
        return {"".join(prefixes) + name: tensor for name, tensor in state.items()}

    return wrap


def cast(dtype: torch.dtype) -> Callable[[State], State]:
    def to(state: State) -> State:
        return {name: x.to(dtype) if x.is_floating_point() else x for name, x in state.items()}

    return to


def lightning(state: State) -> dict[str, Any]:
    """What a checkpoint of Lightning holds for a module with a network and a loss."""
    inside = prefixed("model.")(state)
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**inside, "loss_fn.weight": torch.ones(9, 12), "mel.window": torch.ones(4)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.1, "betas": (0.9, 0.99), "name": "a"},
    }


def averaged(state: State) -> State:
    """What PyTorch's average of weights adds to a state dict."""
    names = AveragedModel(nn.Linear(1, 1)).state_dict()
    assert set(names) == {"n_averaged", "module.weight", "module.bias"}
    return {"n_averaged": torch.tensor(9), **prefixed("module.")(state)}


TRAINING = {
    "projection.weight": torch.ones(9, 12),
    "head.weight": torch.ones(9, 12),
    "classifier.0.bias": torch.ones(9),
    "loss.weight": torch.full((9, 12), torch.nan),  # what is not used may be anything
    "criterion.centers": torch.ones(9),
    "optimizer.step": torch.ones(1),
}


WRAPPINGS: dict[str, tuple[Callable[[State], Any], list[str]]] = {
    "plain": (lambda state: state, []),
    "model": (lambda state: {"model": state, "epoch": 3}, ["epoch"]),
    "state_dict": (
        lambda state: {"state_dict": state, "optimizer": {"state": {}, "param_groups": []}},
        ["optimizer"],
    ),
    "model_state_dict": (lambda state: {"model_state_dict": state, "loss": 0.5}, ["loss"]),
    "lightning": (
        lightning,
        [
            *("epoch", "global_step", "hyper_parameters", "loss_fn.weight", "lr_schedulers"),
            *("mel.window", "optimizer_states", "pytorch-lightning_version"),
        ],
    ),
    "encoder": (
        lambda state: {**prefixed("encoder.")(state), "decoder.weight": torch.ones(2)},
        ["decoder.weight"],
    ),
    "module": (prefixed("module."), []),
    "module twice": (prefixed("module.", "module."), []),
    "partly in module": (
        lambda state: {("module." if "conv" in key else "") + key: state[key] for key in state},
        [],
    ),
    "compiled": (prefixed("_orig_mod."), []),
    "compiled in parallel": (prefixed("module.", "_orig_mod."), []),
    "compiled in lightning": (prefixed("model.", "_orig_mod."), []),
    "average": (averaged, ["n_averaged"]),
    "float16": (cast(torch.float16), []),
    "bfloat16": (cast(torch.bfloat16), []),
    "float64": (cast(torch.float64), []),
    "with a loss": (lambda state: state | TRAINING, sorted(TRAINING)),
    "without counters": (
        lambda state: {key: state[key] for key in state if "num_batches" not in key},
        [],
    ),
    "in another order": (lambda state: dict(reversed(state.items())), []),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_wrapping_is_read(
    wrapping: str, state: State, converted: Callable[[Any], Any]
) -> None:
    wrap, left_out = WRAPPINGS[wrapping]
    made = converted(wrap(state))
    assert list(made.left_out) == left_out
    result = made.model.state_dict()
    assert result.keys() == state.keys()
    rounding = torch.finfo(torch.bfloat16).eps if "float" in wrapping else 0.0
    for name, tensor in state.items():
        assert result[name].dtype == tensor.dtype
        torch.testing.assert_close(result[name], tensor, rtol=rounding, atol=rounding, msg=name)


def test_a_linear_layer_is_a_convolution_over_single_frames(
    state: State, converted: Callable[[Any], Any]
) -> None:
    key = "pooling.attention.0.weight"
    made = converted({**state, key: state[key][:, :, 0]})
    torch.testing.assert_close(made.model.state_dict()[key], state[key])


REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "missing": (
        lambda state: {key: state[key] for key in state if key != KEY},
        rf"Tensors 1 missing: {KEY}\. It is incomplete",
    ),
    "missing in lightning": (
        lambda state: lightning({key: state[key] for key in state if key != KEY}),
        rf"Tensors 1 missing: {KEY}\.",
    ),
    "outside of the module": (
        lambda state: (
            {**prefixed("model.")(state), KEY: state[KEY]} | {f"model.{KEY}": torch.ones(1)}
        ),
        rf"1 of another shape: {KEY} \(1,\) instead of \(12,\)",
    ),
    "another shape": (
        lambda state: {**state, KEY: torch.ones(1)},
        rf"1 of another shape: {KEY} \(1,\) instead of \(12,\)",
    ),
    "not finite": (
        lambda state: {**state, KEY: torch.full((12,), torch.nan)},
        rf"1 not finite: {KEY}\. Training diverged, or the file is damaged",
    ),
    "too large for single precision": (
        lambda state: {**state, KEY: torch.full((12,), 1e300, dtype=torch.float64)},
        rf"1 not finite: {KEY}\.",
    ),
    "unexpected": (
        lambda state: {**state, "front.layer5.0.conv1.weight": torch.ones(1)},
        r"1 unexpected: front\.layer5\.0\.conv1\.weight\.",
    ),
    "integers": (
        lambda state: {**state, KEY: torch.ones(12, dtype=torch.int8)},
        rf"1 of another type: {KEY} torch\.int8\.",
    ),
    "quantized": (
        lambda state: {**state, KEY: torch.quantize_per_tensor(state[KEY], 0.1, 0, torch.qint8)},
        rf"is not a state dict: '{re.escape(KEY)}' is not the name of a tensor of real numbers",
    ),
    "two networks": (
        lambda state: {**prefixed("model.")(state), **prefixed("encoder.")(state)},
        r"under several prefixes, such as of two networks\. Save the one that is meant",
    ),
    "two state dicts": (
        lambda state: {"model": state, "state_dict": state},
        r"has several state dicts: state_dict, model\. Save the one that is meant",
    ),
    "the other front end": (
        lambda state: {**state, FRONT_END[0]: torch.ones(400)},
        r"trained with the front end of VoxBlink2's scripts: it has featCal\..*used with Kaldi's",
    ),
    "a model inside": (
        lambda state: {"model": nn.Linear(2, 2), "state": state},
        r"contains more than tensors: it names torch\.nn\..*Save only model\.state_dict\(\) where",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_does_not_fit_is_refused(
    kind: str, state: State, converted: Callable[[Any], Any]
) -> None:
    spoil, match = REFUSED[kind]
    with pytest.raises(ModelError, match=match):
        converted(spoil(state))


# -- Which architecture it is ----------------------------------------------------------------------


def light(arch: str) -> State:
    """Return a checkpoint of an architecture that is tiny as a file."""
    if arch in wespeaker_arches():
        return {
            name: torch.zeros(()).expand(shape)
            for name, shape in ARCHITECTURES[arch].shapes().items()
        }
    return light_checkpoint(arch)


def wespeaker_arches() -> list[str]:
    return [arch for arch in ARCHITECTURES if arch.startswith("wespeaker")]


@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(arch, marks=pytest.mark.slow) if re.search("100|293", arch) else arch
        for arch in ARCHITECTURES
    ],
)
def test_an_architecture_is_found_by_its_shapes(arch: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": prefixed("module.")(light(arch))}, path)
    made = convert_checkpoint(path)
    assert made.arch == arch
    assert made.extractor.front_end == ARCHITECTURES[arch].front_end
    assert made.extractor.normalization == ARCHITECTURES[arch].normalization


def refusal(path: Path, content: Any, arch: str | None = None) -> str:
    torch.save(content, path)
    with pytest.raises(ModelError) as caught:
        convert(path, arch=arch)
    return str(caught.value)


def test_the_nearest_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    content = light("resnet34")
    text = refusal(path, content, "resnet100")
    assert "is not one of resnet100. Tensors " in text
    assert text.endswith("It is nearest to resnet34: name that one (--arch resnet34), or none.")
    del content["bottleneck.bias"]
    text = refusal(path, content)
    assert text == (
        f"The checkpoint {path} is not one of resnet34. Tensors 1 missing: bottleneck.bias. It is "
        "incomplete, or of a changed network: save it again, whole."
    )
    content |= {"bottleneck.bias": torch.zeros(256), "bottleneck2.weight": torch.zeros(1)}
    assert refusal(path, content).endswith(
        "Tensors 1 unexpected: bottleneck2.weight. It is another network, or holds more than one: "
        "save its own state dict only."
    )


def test_other_sizes_are_in_the_folder(tmp_path: Path) -> None:
    content = light("wespeaker_resnet34")
    content["seg_1.bias"] = torch.zeros(512)
    assert refusal(tmp_path / "a.pt", content).endswith(
        "For other sizes, name the folder that has the checkpoint and its config.yaml."
    )


def test_a_network_of_no_kind_is_described(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    content = {"layer.weight": torch.ones(2), "conv1.weight": torch.ones(3)}
    assert refusal(path, content).startswith(
        f"The checkpoint {path} is of no model that is converted. It has 2 tensors: conv1.weight, "
        "layer.weight. Available: ecapa_tdnn, resnet34,"
    )
    assert "No model that is converted is near to it: ecapa_tdnn, " in refusal(
        path, content, "resnet34"
    )


# -- The front end in a checkpoint -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_front_end_in_half_precision_is_the_same(dtype: torch.dtype, tmp_path: Path) -> None:
    content = light_checkpoint("ecapa_tdnn")
    torch.save(cast(dtype)(content), tmp_path / "a.pt")
    model, extractor = convert(tmp_path / "a.pt")
    assert extractor.normalization == "std"
    assert isinstance(model, SpeakerModel)
    content[FRONT_END[0]] = golden_tensor(FRONT_END[0], (400,)) + 0.02
    torch.save(cast(dtype)(content), tmp_path / "b.pt")
    with pytest.raises(ModelError, match="trained with another front end"):
        convert(tmp_path / "b.pt")


def test_without_its_front_end_it_is_computed(tmp_path: Path) -> None:
    content = light_checkpoint("ecapa_tdnn")
    torch.save({key: content[key] for key in content if key not in FRONT_END}, tmp_path / "a.pt")
    assert convert_checkpoint(tmp_path / "a.pt").arch == "ecapa_tdnn"


def test_prefixes_of_training_weights_are_taken_off_too(tmp_path: Path) -> None:
    content = {"module.conv1.weight": torch.ones(1), "module.projection.weight": torch.ones(1)}
    torch.save(content, tmp_path / "a.pt")
    checkpoint = read_checkpoint(tmp_path / "a.pt")
    assert list(checkpoint.tensors) == ["conv1.weight"]
    assert checkpoint.left_out == ("module.projection.weight",)
