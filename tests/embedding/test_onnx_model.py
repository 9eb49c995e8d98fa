"""ONNX files as models: the embeddings of PyTorch, in the front end described, or a refusal."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from support import tiny_models, tiny_onnx
from support.kaldi_oracle import kaldi_energies
from support.model_oracle import apart, embeddings_of, small_extractor, small_model
from support.tiny_models import SAME, Array, calls_here, directly, voice, write, write_scp
from support.tiny_onnx import SPEAKER_3D, WAVEFORM, WESPEAKER, write_onnx

from voxblink2_lib.embedding.back_ends import back_end_of, default_device
from voxblink2_lib.embedding.block_worker import EmbedOptions
from voxblink2_lib.embedding.embedder import Embedder
from voxblink2_lib.embedding.model_identity import identify_model, model_hashes
from voxblink2_lib.embedding.model_location import find_model
from voxblink2_lib.embedding.onnx_network import features_of
from voxblink2_lib.embedding.run import embed
from voxblink2_lib.errors import DependencyError, EmbeddingError, ModelError, ScoringError
from voxblink2_lib.files import sha256_of
from voxblink2_lib.models import SpeakerModel
from voxblink2_lib.models.export import export_onnx
from voxblink2_lib.models.onnx_description import OnnxDescription, read_description
from voxblink2_lib.scoring import read_embeddings
from voxblink2_lib.scoring.embedding_files import written_model
from voxblink2_lib.scoring.source_models import check_same_model

LENGTHS = [0.5, 1.0, 0.12, 1.0, 0.7, 1.3]


def embedded(model: Path | str, waveforms: Sequence[Array], **options: Any) -> Array:
    """Return embeddings in the order of the waveforms."""
    given: dict[str, Any] = {
        "dtype": "float32",
        "device": "cpu",
        "threads": torch.get_num_threads(),
    }
    results = dict(Embedder(str(model), **given | options).embed(list(enumerate(waveforms))))
    return np.stack([results[place] for place in range(len(waveforms))])


def voices() -> list[Array]:
    return [voice(place, seconds) for place, seconds in enumerate(LENGTHS)]


def kaldi_features(waveform: Array, *, window: str, scale: float) -> Array:
    """Return features by kaldi-native-fbank, their mean over time subtracted."""
    frames = kaldi_energies(scale * waveform, window)
    centred: Array = frames - frames.mean(axis=0)
    return centred


# -- Exports of this library -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small model as ONNX, and the same as a folder."""
    folder = tmp_path_factory.mktemp("exported")
    model, extractor = small_model("basic-gsp", depths=(1,)), small_extractor("max")
    model.config.voxblink2_release = {"arch": "resnet34", "stage": "finetuned"}
    for part in (model, extractor):
        part.save_pretrained(folder / "model")
    return export_onnx(model, extractor, folder / "small.onnx"), str(folder / "model")


def test_what_this_library_exports_gives_the_embeddings_of_pytorch(
    exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is, with the description that the export wrote, in padded batches."""
    path, saved = exported
    monkeypatch.setattr("voxblink2_lib.embedding.embedder._CPU_BATCH_SECONDS", 20)
    expected = np.stack([directly(saved, wave) for wave in voices()])
    assert apart(embedded(path, voices()), expected) < SAME
    description = read_description(path)
    assert (description.input, description.lengths_name) == ("waveform", "lengths")
    assert description.release == {"arch": "resnet34", "stage": "finetuned"}
    embedder = Embedder(str(path.parent), dtype="float32", device="cpu", threads=1)
    assert (embedder.min_samples, embedder._network.pads) == (1600, True)


def test_an_export_over_another_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    match = r"config\.json would be overwritten by the description of config\.onnx, but it is none"
    with pytest.raises(ModelError, match=match):
        export_onnx(small_model("ecapa"), small_extractor(), tmp_path / "config.onnx")
    with pytest.raises(ModelError, match=r"model\.bin must end in \.onnx"):
        export_onnx(small_model("ecapa"), small_extractor(), tmp_path / "model.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


# -- Exports of others -----------------------------------------------------------------------------


class FromFeatures(torch.nn.Module):
    """What WeSpeaker exports: the network after the front end."""

    def __init__(self, model: SpeakerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        return self.model.embed(feats.transpose(1, 2), None)


def wespeaker_network() -> SpeakerModel:
    """Return a small SimAM-ResNet of WeSpeaker's kind, with random weights."""
    return small_model("simam-asp", num_mel_bins=80)


@pytest.fixture(scope="module")
def wespeaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the signature of WeSpeaker's exports, and no description."""
    path = tmp_path_factory.mktemp("wespeaker") / "avg_model.onnx"
    with warnings.catch_warnings():
        # Theirs are made by the former exporter of PyTorch, which is deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            FromFeatures(wespeaker_network()).eval(),
            (torch.ones(1, 200, 80),),
            path,
            input_names=["feats"],
            output_names=["embs"],
            dynamic_axes={"feats": {0: "B", 1: "T"}, "embs": {0: "B"}},
            opset_version=14,
            dynamo=False,
        )
    return path


@pytest.mark.parametrize(
    ("description", "window", "scale"),
    [(WESPEAKER, "hamming", 32_768.0), (SPEAKER_3D, "povey", 1.0)],
    ids=["wespeaker", "3d-speaker"],
)
def test_an_export_of_features_gets_those_of_kaldi(
    description: dict[str, Any], window: str, scale: float, wespeaker: Path, tmp_path: Path
) -> None:
    """The features of an independent program, through the network in PyTorch."""
    path = tiny_onnx.describe(Path(shutil.copy(wespeaker, tmp_path)), description)
    network = wespeaker_network()
    rows = [kaldi_features(wave, window=window, scale=scale) for wave in voices()]
    expected = [embeddings_of(network, torch.tensor(row[None]).float()) for row in rows]
    result = embedded(path, voices())
    assert apart(result, torch.cat(expected)) < 1e-3
    ours = [features_of(wave, OnnxDescription(**description)) for wave in voices()]
    same = [embeddings_of(network, torch.from_numpy(row[None])) for row in ours]
    assert apart(result, torch.cat(same)) < SAME
    # The other front end is heard.
    others = {"hamming": SPEAKER_3D, "povey": WESPEAKER}[window]
    assert apart(embedded(tiny_onnx.describe(path, others), voices()), torch.cat(expected)) > 0.01


@pytest.mark.parametrize("volume", [1.0, 1e-4], ids=["loud", "at the least energy"])
@pytest.mark.parametrize("description", [WESPEAKER, SPEAKER_3D], ids=["wespeaker", "3d-speaker"])
def test_the_scale_of_the_samples_is_that_of_the_training(
    volume: float, description: dict[str, Any]
) -> None:
    """A logarithm hides the scale, but for energies below the least."""
    wave = volume * voice(1, 0.5)
    scale, window = description["sample_scale"], description["window_type"]
    expected = kaldi_features(wave, window=window, scale=scale)
    result = features_of(wave, OnnxDescription(**description))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-3)
    other = kaldi_features(wave, window=window, scale=32_769 - scale)
    assert (float(np.abs(other - expected).max()) > 0.1) == (volume < 1)


def test_the_front_end_of_the_released_models_is_a_description_too(tmp_path: Path) -> None:
    values = {"input": "features", "front_end": "voxblink2", "normalization": "max"}
    path = write_onnx(
        tmp_path / "a.onnx", ["B", "T", 20], description={**values, "num_mel_bins": 20}
    )
    rows = [small_extractor("max")(wave, return_tensors="np") for wave in voices()]
    frames = [row["input_features"][0] for row in rows]
    assert apart(embedded(path, voices()), mean_and_max(frames)) < SAME


def mean_and_max(rows: Sequence[Array]) -> Array:
    """Return what the files of `tiny_onnx` give, for rows (time, bands)."""
    return np.stack([np.concatenate([row.mean(axis=0), row.max(axis=0)]) for row in rows])


@pytest.mark.parametrize(
    ("changes", "shape", "axis"),
    [
        ({}, ["B", "T", 80], 1),
        ({}, ["B", "T", "mels"], 1),
        ({}, [1, "T", 80], 1),
        ({"layout": "batch mels time"}, ["B", 80, "T"], 2),
        ({"layout": "batch mels time"}, [1, 80, "T"], 2),
        ({"mean_normalization": False}, ["B", "T", 80], 1),
    ],
    ids=["free", "bands", "single", "mels first", "single, mels first", "mean kept"],
)
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_layouts_types_and_single_utterances(
    changes: dict[str, Any], shape: list[Any], axis: int, dtype: int, tmp_path: Path
) -> None:
    description = {**WESPEAKER, **changes}
    path = write_onnx(
        tmp_path / "a.onnx", shape, description=description, time_axis=axis, dtype=dtype
    )
    rows = [features_of(wave, OnnxDescription(**description)) for wave in voices()]
    # Features of half precision have three digits.
    tolerance = 2e-3 if dtype == TensorProto.FLOAT16 else SAME
    assert apart(embedded(path, voices()), mean_and_max(rows)) < tolerance
    assert ("mean_normalization" in changes) == (float(np.abs(rows[0].mean(axis=0)).max()) > 1)


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(1, TensorProto.FLOAT), (32_768, TensorProto.FLOAT), (32_768, TensorProto.INT16)],
)
def test_waveforms_have_the_scale_and_type_described(
    scale: int, dtype: int, tmp_path: Path
) -> None:
    path = write_onnx(
        tmp_path / "a.onnx",
        ["B", "S"],
        description={**WAVEFORM, "sample_scale": scale},
        dtype=dtype,
    )
    loud = [8 * wave for wave in voices()]  # beyond 1, as resampling makes it
    expected = [scale * wave[:, None] for wave in loud]
    if dtype == TensorProto.INT16:
        expected = [np.clip(np.round(row), -32_768, 32_767) for row in expected]
        assert max(row.max() for row in expected) == 32_767
    assert apart(embedded(path, loud), mean_and_max(expected)) < SAME


def test_lengths_are_filled_and_padding_is_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxblink2_lib.embedding.embedder._CPU_BATCH_SECONDS", 20)
    path = tiny_onnx.write_means_of_lengths(
        tmp_path / "a.onnx", {**WAVEFORM, "lengths_name": "lengths"}
    )
    batches: list[int] = []
    run = onnxruntime.InferenceSession.run

    def watched(self: Any, names: Any, inputs: dict[str, Array]) -> Any:
        batches.append(len(inputs["waves"]))
        return run(self, names, inputs)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", watched)
    expected = np.array([[wave.mean(), len(wave)] for wave in voices()])
    np.testing.assert_allclose(embedded(path, voices()), expected, rtol=1e-4, atol=1e-6)
    assert batches == [1, len(LENGTHS)]  # the first is a trial


# -- What is refused -------------------------------------------------------------------------------


def refused(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(ModelError, match=match):
        embedded(path, [], **options)


@pytest.mark.parametrize(
    ("shape", "changes", "options", "match"),
    [
        (["B", "T", 40], {}, {}, r"feats of .*a\.onnx has the shape \(B, T, 40\); described is \("
         r"batch, time, 80\)\."),
        (["B", 80, "T"], {}, {}, r"has the shape \(B, 80, T\); described is \(batch, time, 80\)"),
        (["B", "T", "X"], {"layout": "batch mels time", "num_mel_bins": 1024}, {"time_axis": 3},
         r"a\.onnx (cannot be loaded|fails on)"),
        (["B", "S"], {}, {}, r"has the shape \(B, S\); described is \(batch, time, 80\)"),
        (["B", 200, 80], {}, {}, r"takes 200 frames and no others, .*free \(dynamic_axes"),
        ([4, "T", 80], {}, {}, r"takes batches of 4 and no others\. Export it"),
        (["B", "T", 80], {}, {"dtype": TensorProto.INT16}, r"feats of .* is tensor\(int16\); "
         r"allowed: tensor\(float\), tensor\(float16\), tensor\(double\)\."),
        (["B", "T", 80], {}, {"output_type": TensorProto.INT64}, r"embs of .* is tensor\(int64\)"),
        (["B", "T", 80], {}, {"keepdims": True}, r"embs of .* has the shape "
         r"\(B, 1, 160\); expected is \(batch, dimensions\)"),
        (["B", "T", 80], {"input_name": "x"}, {}, r"has no input 'x': it has feats \(B, T, 80\) of "
         r"tensor\(float\)\. Name the right one, input_name, in a\.json\."),
        (["B", "T", 80], {"output_name": "y"}, {}, r"has no output 'y': it has embs"),
        (["B", "T", 80], {}, {"extra_inputs": {"n": (TensorProto.INT64, ["B"])}},
         r"has several inputs: it has feats .*, n \(B\) of tensor\(int64\)\. Name the right one"),
        (["B", "T", 80], {"input_name": "feats"}, {"extra_inputs": {"n": (TensorProto.INT64, ["B"])
         }}, r"has other inputs, too: n \(B\) .*\. Only one for the features and one for the len"),
        (["B", "T", 80], {"lengths_name": "n"}, {"extra_inputs": {"n": (TensorProto.FLOAT, ["B"])}},
         r"n of .* is tensor\(float\); allowed: tensor\(int64\), tensor\(int32\)"),
    ],
)  # fmt: skip
def test_a_graph_that_is_not_as_described_is_named(
    shape: list[Any],
    changes: dict[str, Any],
    options: dict[str, Any],
    match: str,
    tmp_path: Path,
) -> None:
    path = write_onnx(tmp_path / "a.onnx", shape, description={**WESPEAKER, **changes}, **options)
    refused(path, match)


@pytest.mark.parametrize(
    ("shape", "dtype", "match"),
    [
        (["B", 16_000], TensorProto.FLOAT, r"takes 16,000 samples and no others"),
        (["B", "S"], TensorProto.INT16, r"takes samples of 16 bits: in a\.json, .* be 32768"),
        (["B", "S"], TensorProto.INT32, r"is tensor\(int32\); allowed: .*tensor\(int16\)\."),
    ],
)
def test_waveforms_that_a_graph_does_not_take(
    shape: list[Any], dtype: int, match: str, tmp_path: Path
) -> None:
    refused(write_onnx(tmp_path / "a.onnx", shape, description=WAVEFORM, dtype=dtype), match)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(20, len(data), 7):
        data[place] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_cut, r"a\.onnx cannot be loaded by onnxruntime [\d.]+: .*Copy or export it again"),
        (_flipped, r"a\.onnx cannot be loaded by onnxruntime [\d.]+: .*Copy or export it again"),
        (lambda path: path.write_bytes(b""), r"cannot be loaded by onnxruntime"),
        (lambda path: path.write_text("words"), r"cannot be loaded by onnxruntime"),
        (lambda path: write_onnx(path, ["B", "T", 80], description=None, opset=99),
         r"cannot be loaded by onnxruntime .*Update onnxruntime .*, or export with a lower opset"),
    ],
    ids=["cut", "flipped", "empty", "text", "opset"],
)  # fmt: skip
def test_a_file_that_cannot_be_loaded(damage: Any, match: str, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    damage(path)
    refused(path, match)


def test_a_damaged_file_is_no_model_before_workers_start(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    _cut(path)
    with pytest.raises(ModelError, match=r"a\.onnx cannot be read as ONNX: .* export it again"):
        model_hashes(path)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages_are_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_onnx(tmp_path / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    monkeypatch.setitem(sys.modules, package, None)
    match = rf"needs the packages {package}: pip install 'voxblink2\[onnx\]'"
    for use in (lambda: model_hashes(path), lambda: embedded(path, [])):
        with pytest.raises(DependencyError, match=match):
            use()


# -- Devices and threads ---------------------------------------------------------------------------


def test_bfloat16_is_not_for_files(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    refused(path, r"exported with, not in bfloat16\. Leave out --dtype", dtype="bfloat16")


@pytest.mark.parametrize(
    ("device", "match"),
    [
        ("cuda", r"onnxruntime here has no CUDA, only .*CPUExecutionProvider\. Use --device cpu"),
        ("mps", r"The device 'mps' cannot run ONNX files\. Use cpu or cuda\."),
        ("cuda:x", r"The device 'cuda:x' cannot run ONNX files"),
    ],
)
def test_devices_that_cannot_be_used(
    device: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: only)
    path = write_onnx(tmp_path / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    refused(path, match, device=device)


_open = onnxruntime.InferenceSession


class Sessions:
    """Notes how a session is opened, and says which part of onnxruntime runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, runs: str | None) -> None:
        self.opened: list[tuple[Any, int, int]] = []
        self._runs = runs
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
        monkeypatch.setattr(onnxruntime, "InferenceSession", self.session)

    def session(self, path: str, options: Any, *, providers: Any, enable_fallback: int) -> Any:
        assert enable_fallback == 0  # it prints
        self.opened.append((providers, options.intra_op_num_threads, options.inter_op_num_threads))
        session = _open(path, options, providers=["CPUExecutionProvider"])
        if self._runs is not None:
            session.get_providers = lambda: [self._runs]
        return session


def test_threads_and_the_device_are_those_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_onnx(tmp_path / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    sessions = Sessions(monkeypatch, None)
    embedded(path, voices(), threads=3)
    assert sessions.opened == [([("CPUExecutionProvider", {})], 3, 1)]
    sessions = Sessions(monkeypatch, "CUDAExecutionProvider")
    for device, index in (("cuda", "0"), ("cuda:1", "1")):
        embedded(path, voices(), device=device)
        assert sessions.opened.pop()[0] == [("CUDAExecutionProvider", {"device_id": index})]
    Sessions(monkeypatch, "CPUExecutionProvider")
    refused(path, r"found no usable CUDA on the device cuda\. Use --device cpu", device="cuda")


def test_a_device_without_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_onnx(tmp_path / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    embedder = Embedder(str(path), dtype="float32", device="cpu", threads=1)

    def full(*_: object) -> None:
        raise MemoryError("Failed to allocate memory for requested buffer of size 9")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", full)
    with pytest.raises(ModelError, match=r"cpu has not enough memory for a batch of 1 x 1\.0 s"):
        list(embedder.embed([(0, voice(1, 1))]))


def test_what_the_graph_fails_on_is_rejected_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_onnx(tmp_path / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    embedder = Embedder(str(path), dtype="float32", device="cpu", threads=1)
    run = onnxruntime.InferenceSession.run

    def picky(self: Any, names: Any, inputs: dict[str, Array]) -> Any:
        if inputs["feats"].shape[1] == 48:
            raise ValueError("no luck\nand more")
        return run(self, names, inputs)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", picky)
    results = dict(embedder.embed([(0, voice(1, 0.5)), (1, voice(1, 1))]))
    assert results[0] == "the model failed on it: no luck"
    assert isinstance(results[1], np.ndarray)


# -- Where it is, and what it is -------------------------------------------------------------------


def test_a_file_or_a_folder_with_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_onnx(tmp_path / "model" / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    monkeypatch.chdir(tmp_path)
    assert find_model("model/a.onnx") == path
    folder = find_model("model")
    assert [back_end_of(place).name for place in (path, folder)] == ["onnx", "onnx"]
    assert model_hashes(folder) == model_hashes(path)
    shutil.copy(path, path.with_name("b.onnx"))
    with pytest.raises(ModelError, match=r"model has 2 models \(a\.onnx, b\.onnx\)\. Name one"):
        back_end_of(folder)
    for name, problem in (("no.onnx", "is not there"), ("model/a.json", r"is no \.onnx file")):
        with pytest.raises(ModelError, match=rf"The model {name} {problem}\. Name a folder"):
            find_model(name)


def test_a_folder_of_transformers_stays_one(tmp_path: Path) -> None:
    """An export beside the weights changes nothing of what the folder is."""
    saved = Path(tiny_models.save_small(tmp_path / "model"))
    before = model_hashes(saved), identify_model(saved)
    write_onnx(saved / "small.onnx", ["B", "T", 80], description=WESPEAKER)
    assert back_end_of(saved).name == "transformers"
    assert (model_hashes(saved), identify_model(saved)) == before


def test_all_files_that_decide_are_hashed(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    names = ["a.onnx", "a.json"]
    assert model_hashes(path) == {name: sha256_of(tmp_path / name) for name in names}
    weights = np.arange(80)
    beside = tiny_onnx.write_with_weights_beside(tmp_path / "b.onnx", weights)
    first = identify_model(beside)
    assert [*model_hashes(beside)] == ["b.onnx", "b.json", "model.data"]
    features = OnnxDescription(**WESPEAKER)
    expected = [features_of(wave, features).mean(axis=0) + weights for wave in voices()]
    assert apart(embedded(beside, voices()), np.stack(expected)) < SAME
    (tmp_path / "model.data").write_bytes(np.zeros(80, np.float32).tobytes())
    assert identify_model(beside).model != first.model
    (tmp_path / "model.data").unlink()
    with pytest.raises(ModelError, match=r"has weights in model\.data, which is not beside it\. C"):
        model_hashes(beside)
    refused(beside, r"b\.onnx cannot be loaded by onnxruntime .*copy both into one folder")


@pytest.mark.parametrize("place", ["../model.data", "/etc/hostname", "a/../../x", ""])
def test_weights_elsewhere_are_refused(place: str, tmp_path: Path) -> None:
    path = tiny_onnx.write_with_weights_beside(tmp_path / "a.onnx", np.zeros(80), place=place)
    with pytest.raises(ModelError, match=r"a\.onnx names weights at '.*', outside of its folder"):
        model_hashes(path)


def test_weights_in_inner_graphs_are_found_too(tmp_path: Path) -> None:
    path = tiny_onnx.write_with_weights_beside(tmp_path / "a.onnx", np.zeros(80))
    inner, outer = onnx.load(path, load_external_data=False), onnx.ModelProto()
    branch = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner.graph)
    outer.graph.node.append(branch)
    outer.functions.add().node.append(branch)
    path.write_bytes(outer.SerializeToString())
    assert [*model_hashes(path)] == ["a.onnx", "a.json", "model.data"]


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    files = {f"v{place}": write(tmp_path / f"{place}.wav", voice(place, 0.5)) for place in range(3)}
    return write_scp(tmp_path / "wav.scp", files)


@pytest.mark.parametrize("suffix", ["parquet", "safetensors"])
def test_embeddings_of_two_descriptions_are_never_mixed(
    suffix: str, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = calls_here(monkeypatch)
    first = write_onnx(tmp_path / "first" / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    other = write_onnx(tmp_path / "other" / "a.onnx", ["B", "T", 80], description=SPEAKER_3D)
    outs = [tmp_path / f"{name}.{suffix}" for name in ("first", "other")]
    for model, out in zip((first, other), outs, strict=True):
        embed(sounds, out, EmbedOptions(str(model)))
    record = written_model(outs[0])
    assert record is not None
    assert (record["name"], record["back_end"]) == ("a.onnx", "onnx")
    assert record["files"] == model_hashes(first)
    assert record["front_end"] == "kaldi hamming 80 bands of samples up to 32768"
    assert record["front_end_settings"] == WESPEAKER
    assert (record["sha256"], record["front_end"]) == identify_model(first)
    count = len(ran)
    embed(sounds, outs[0], EmbedOptions(str(first)))
    assert len(ran) == count
    with pytest.raises(EmbeddingError, match="made from other audio, by another model or with"):
        embed(sounds, outs[0], EmbedOptions(str(other)))
    models = [read_embeddings(out).model for out in outs]
    match = r"different models: a \(.*hamming 80.*\) and b \(.*povey 80 .*\)\. Their cosines"
    with pytest.raises(ScoringError, match=match):
        check_same_model((models[0], "a"), (models[1], "b"))
    # Where it lies, and of which release it is, does not matter.
    copied = Path(shutil.copytree(first.parent, tmp_path / "copied")) / "a.onnx"
    tiny_onnx.describe(copied, {**WESPEAKER, "voxblink2_release": {"arch": "resnet34"}})
    assert identify_model(copied) == identify_model(first)
    assert back_end_of(copied).configuration()["voxblink2_release"] == {"arch": "resnet34"}


def test_the_default_device_is_one_that_onnxruntime_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_onnx(tmp_path / "a.onnx", ["B", "T", 80], description=WESPEAKER)
    assert default_device(str(path)) == "cpu"
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: True))
    for available, device in ((["CUDAExecutionProvider"], "cuda"), ([], "cpu")):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda got=available: got)
        assert default_device(str(path)) == device
    assert default_device("USER/NAME") == "cuda"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert default_device(str(path)) == "cpu"
