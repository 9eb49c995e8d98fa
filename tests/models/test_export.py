"""ONNX files: the same embeddings as PyTorch from the waveform on, or no file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from support.model_oracle import (
    GOLDEN_INPUTS,
    TOLERANCE,
    Array,
    apart,
    embeddings_of,
    golden,
    golden_checkpoint,
    golden_waveform,
    small_extractor,
    small_model,
)

from voxblink2_lib.errors import DependencyError, ModelError
from voxblink2_lib.models import SpeakerFeatureExtractor, convert
from voxblink2_lib.models.export import WaveformModel, describe_onnx, export_onnx


def run(path: Path, waveforms: Array, lengths: Sequence[int] = ()) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    counts = np.array(lengths or [waveforms.shape[1]] * len(waveforms))
    (result,) = session.run(["embeddings"], {"waveforms": waveforms, "lengths": counts})
    assert isinstance(result, np.ndarray)
    return result


def some_waveforms(count: int, samples: int) -> Array:
    # Of different volume and with an offset, which the two normalisations treat in two ways.
    waves = [(1 + seed) * golden_waveform(seed, samples) + 0.02 * seed for seed in range(count)]
    return np.stack(waves).astype(np.float32)


# -- The same embeddings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "normalization"),
    [
        ("ecapa", "std"),
        *(
            pytest.param(*model, marks=pytest.mark.slow)
            for model in (("basic-gsp", "max"), ("bottleneck-tsp", "std"), ("simam-asp", "max"))
        ),
    ],
)
def test_an_exported_model_gives_the_same_embeddings(
    kind: str, normalization: str, tmp_path: Path
) -> None:
    model, extractor = small_model(kind), small_extractor(normalization)
    path = tmp_path / "model.onnx"
    assert export_onnx(model, extractor, str(path)) == path
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.json"}
    for samples in (1600, 16_000, 23_456):
        for count in (1, 3):
            waves = some_waveforms(count, samples)
            expected = embeddings_of(model, extractor(waves)["input_features"])
            assert apart(run(path, waves), expected) < TOLERANCE, (samples, count)
    # Shorter ones are padded with anything; silence gives finite numbers.
    waves, lengths = some_waveforms(3, 9000), [9000, 1600, 4321]
    alone = [
        embeddings_of(model, extractor(wave[:length])["input_features"])
        for wave, length in zip(waves, lengths, strict=True)
    ]
    waves[1, 1600:] = waves[2, 4321:] = 0.5
    assert apart(run(path, waves, lengths), torch.cat(alone)) < TOLERANCE
    assert np.isfinite(run(path, np.zeros((2, 8000), np.float32))).all()
    assert describe_onnx(path).startswith("`model.onnx`: opset ")


@pytest.mark.slow  # what is exported is compared below, and one export above
def test_an_exported_model_of_wespeaker_takes_16_bits(tmp_path: Path) -> None:
    model = small_model("ecapa-wespeaker")
    extractor = SpeakerFeatureExtractor(front_end="kaldi", num_mel_bins=20)
    path = export_onnx(model, extractor, tmp_path / "a.onnx", samples="int16")
    waves = np.round(some_waveforms(2, 9000) * 10_000).astype(np.int16)
    expected = embeddings_of(model, extractor(waves)["input_features"])
    assert apart(run(path, waves), expected) < TOLERANCE
    assert np.isfinite(run(path, np.zeros((1, 8000), np.int16))).all()


@pytest.mark.slow  # golden without ONNX, and a small model through it, are in the default tier
def test_golden_embeddings_through_onnx(tmp_path: Path) -> None:
    torch.save(golden_checkpoint("ecapa_tdnn"), tmp_path / "model_pt.pt")
    path = export_onnx(*convert(tmp_path / "model_pt.pt", arch="ecapa_tdnn"), tmp_path / "a.onnx")
    for name, expected in golden()["ecapa_tdnn"]["embeddings"].items():
        result = run(path, golden_waveform(*GOLDEN_INPUTS[name])[None])
        assert apart(result[0], np.array(expected)) < TOLERANCE


@pytest.mark.parametrize("kind", ["ecapa", "simam-asp"])
@pytest.mark.parametrize("normalization", ["std", "max"])
@pytest.mark.parametrize("samples", [1600, 1759, 1760, 12_345])
def test_its_front_end_is_that_of_the_feature_extractor(
    kind: str, normalization: str, samples: int
) -> None:
    model, extractor = small_model(kind), small_extractor(normalization)
    waves = some_waveforms(2, samples)
    whole = torch.tensor([samples, samples])
    with torch.no_grad():
        result = WaveformModel(model, extractor)(torch.from_numpy(waves), whole)
    assert apart(result, embeddings_of(model, extractor(waves)["input_features"])) < TOLERANCE


@pytest.mark.parametrize("kind", ["ecapa", "simam-asp"])
@pytest.mark.parametrize(
    "options",
    [{"normalization": "std"}, {"normalization": "max"}, {"front_end": "kaldi"}],
    ids=["std", "max", "kaldi"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_padding_is_not_heard(kind: str, options: dict[str, Any], dtype: Any) -> None:
    model, extractor = small_model(kind), SpeakerFeatureExtractor(num_mel_bins=20, **options)
    waves, lengths = some_waveforms(4, 9000), [9000, 1680, 4321, 8999]
    if dtype == np.int16:
        waves = np.round(waves * 10_000).astype(np.int16)
    alone = [
        embeddings_of(model, extractor(wave[:length])["input_features"])
        for wave, length in zip(waves, lengths, strict=True)
    ]
    for wave, length in zip(waves, lengths, strict=True):
        wave[length:] = 7
    exported = WaveformModel(model, extractor)
    with torch.no_grad():
        result = exported(torch.from_numpy(waves), torch.tensor(lengths))
        silent = exported(torch.zeros(2, 8000), torch.tensor([8000, 2000]))
    assert apart(result, torch.cat(alone)) < TOLERANCE
    assert bool(silent.isfinite().all())


# -- No file ---------------------------------------------------------------------------------------


class Exported:
    """Stands for PyTorch's exporter and onnxruntime: what is exported answers as it is told to.

    A real export takes seconds; here only what is done with its answer is looked at.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.module: Any = None
        self.model_proto = SimpleNamespace(SerializeToString=lambda: b"exported")

    def export(self, module: Any, *_: Any, **__: Any) -> Exported:
        self.module = module
        return self

    def session(self, data: bytes, **_: Any) -> Exported:
        assert data == b"exported"
        return self

    def run(self, _: None, inputs: dict[str, Array]) -> list[Array]:
        tensors = (torch.from_numpy(inputs[name]) for name in ("waveforms", "lengths"))
        result: Array = self.module(*tensors).numpy()
        return [(result * self.factor).astype(np.float32)]


def export_with(monkeypatch: pytest.MonkeyPatch, factor: float, target: Path) -> Path:
    exported = Exported(factor)
    monkeypatch.setattr(torch.onnx, "export", exported.export)
    monkeypatch.setattr(onnxruntime, "InferenceSession", exported.session)
    return export_onnx(small_model("basic-gsp"), small_extractor(), target)


@pytest.mark.parametrize("factor", [1.01, -1.0, float("nan"), float("inf")])
def test_other_embeddings_are_refused(
    factor: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = tmp_path / "model.onnx"
    match = r"other embeddings than the model: .* apart, allowed is 0\.001\. Nothing was written"
    with pytest.raises(ModelError, match=match):
        export_with(monkeypatch, factor, target)
    assert not list(tmp_path.iterdir())
    target.write_bytes(b"an older one")
    with pytest.raises(ModelError, match=match):
        export_with(monkeypatch, factor, target)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an older one"]


def test_embeddings_that_are_a_little_apart_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = export_with(monkeypatch, 1 + 1e-4, tmp_path / "model.onnx")
    assert path.read_bytes() == b"exported"


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_missing_packages_are_named(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    match = r"needs the packages onnx, onnxscript and onnxruntime: pip install 'voxblink2\[onnx\]'"
    with pytest.raises(DependencyError, match=match):
        export_onnx(small_model("ecapa"), small_extractor(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_model_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exported = Exported(1.0)
    monkeypatch.setattr(torch.onnx, "export", exported.export)
    monkeypatch.setattr(onnxruntime, "InferenceSession", exported.session)
    model = small_model("basic-gsp").train()
    model.bfloat16()
    export_onnx(model, small_extractor(), tmp_path / "model.onnx")
    assert model.training
    assert model.dtype == torch.bfloat16
