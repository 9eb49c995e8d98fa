"""Kinds of models by what their folders hold; SpeechBrain's and pyannote's by fakes.

Neither of these two is installed: a class stands in its place that takes what the documentation of
the other says, so that only the file of ours is tested.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny_models
from support.model_oracle import small_wespeaker_folder
from support.tiny_models import Array, calls_here, voice, write, write_scp

from voxblink2_lib.embedding import model_location
from voxblink2_lib.embedding.back_ends import back_end_of
from voxblink2_lib.embedding.block_worker import EmbedOptions
from voxblink2_lib.embedding.embedder import Embedder
from voxblink2_lib.embedding.model_identity import identify_model, model_hashes
from voxblink2_lib.embedding.model_location import find_model
from voxblink2_lib.embedding.run import embed
from voxblink2_lib.errors import DependencyError, ModelError
from voxblink2_lib.scoring.embedding_files import written_model

HYPERPARAMS = "pretrained_path: someone/on-the-hub\nembedding_model: !new:some.Class\n"


def module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    """Put a module in the place of one that is not installed, and its packages with it."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        made = ModuleType(".".join(parts[:end]))
        if end == len(parts):
            vars(made).update(content)
        monkeypatch.setitem(sys.modules, made.__name__, made)


def speechbrain_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "hyperparams.yaml").write_text(HYPERPARAMS)
    (folder / "embedding_model.ckpt").write_bytes(b"weights")
    (folder / "config.json").write_text('{"speechbrain_interface": "EncoderClassifier"}')
    (folder / "README.md").write_text("of no concern")
    return folder


def pyannote_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: {}\n")
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    return folder


class FakeClassifier:
    """Takes what SpeechBrain's `EncoderClassifier` takes; gives mean and maximum of samples."""

    calls: list[dict[str, Any]] = []  # noqa: RUF012  # of the class, as its constructor is

    def __init__(self, rate_hz: int = 16_000) -> None:
        self.audio_normalizer = SimpleNamespace(sample_rate=rate_hz)

    @classmethod
    def from_hparams(
        cls,
        source: str,
        *,
        savedir: str,
        overrides: dict[str, str],
        run_opts: dict[str, str],
    ) -> FakeClassifier:
        assert Path(savedir).is_dir()
        assert not Path(savedir).is_relative_to(source)
        cls.calls.append({"source": source, "overrides": overrides, "run_opts": run_opts})
        return cls()

    def encode_batch(self, wavs: torch.Tensor) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        assert (wavs.ndim, wavs.dtype) == (2, torch.float32)
        return torch.stack([wavs.mean(dim=1), wavs.amax(dim=1)], dim=1)[:, None]


class FakePyannote(torch.nn.Module):
    """Takes what `pyannote.audio.Model` takes: waveforms of shape (batch, channel, samples)."""

    def __init__(self, rate_hz: int = 16_000) -> None:
        super().__init__()
        self.hparams = SimpleNamespace(sample_rate=rate_hz)

    @classmethod
    def from_pretrained(cls, checkpoint: str) -> FakePyannote:
        assert Path(checkpoint).is_file()
        return cls()

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert (waveforms.ndim, waveforms.shape[1]) == (3, 1)
        return torch.stack([waveforms[:, 0].mean(dim=1), waveforms[:, 0].amax(dim=1)], dim=1)


def install_speechbrain(monkeypatch: pytest.MonkeyPatch, fake: type = FakeClassifier) -> None:
    module(monkeypatch, "speechbrain.inference.classifiers", EncoderClassifier=fake)


def install_pyannote(monkeypatch: pytest.MonkeyPatch, fake: type = FakePyannote) -> None:
    module(monkeypatch, "pyannote.audio", Model=fake)


KINDS = {
    "speechbrain": (speechbrain_folder, install_speechbrain),
    "pyannote": (pyannote_folder, install_pyannote),
}
Make = Callable[[Path], Path]
Install = Callable[..., None]


def embedded(folder: Path, waveforms: Sequence[Array], dtype: str = "float32") -> Array:
    threads = torch.get_num_threads()
    embedder = Embedder(str(folder), dtype=dtype, device="cpu", threads=threads)
    results = dict(embedder.embed(list(enumerate(waveforms))))
    return np.stack([results[place] for place in range(len(waveforms))])


@pytest.mark.parametrize("kind", KINDS)
def test_waveforms_of_one_length_are_embedded_together(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, install = KINDS[kind]
    folder = make(tmp_path / "model")
    install(monkeypatch)
    waves = [voice(place, seconds) for place, seconds in enumerate([0.5, 0.2, 0.5, 0.3])]
    expected = [[wave.mean(), wave.max()] for wave in waves]
    np.testing.assert_allclose(embedded(folder, waves), expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(ModelError, match=r"compute in float32\. Leave out --dtype"):
        embedded(folder, waves, dtype="bfloat16")


def test_checkpoints_of_speechbrain_are_those_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own `pretrained_path` it would fetch others from the Hub."""
    folder = speechbrain_folder(tmp_path / "model")
    install_speechbrain(monkeypatch)
    FakeClassifier.calls.clear()
    embedded(folder, [voice(1, 0.2)])
    (folder / "hyperparams.yaml").write_text("# pretrained_path: as a word\n")
    embedded(folder, [voice(1, 0.2)])
    called = {"source": str(folder), "run_opts": {"device": "cpu"}}
    assert FakeClassifier.calls == [
        {**called, "overrides": {"pretrained_path": str(folder)}},
        {**called, "overrides": {}},
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_package_a_model_is_not_loaded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = KINDS[kind][0](tmp_path / "model")
    for name in ("speechbrain", "pyannote", "pyannote.audio"):
        monkeypatch.setitem(sys.modules, name, None)
    match = r"is a model of (SpeechBrain|pyannote\.audio), which is not installed: pip install"
    with pytest.raises(DependencyError, match=match):
        embedded(folder, [])


def _of_8_khz(fake: type) -> type:
    class Slow(fake):  # type: ignore[misc]  # either of the two
        def __init__(self) -> None:
            super().__init__(rate_hz=8000)

    return Slow


@pytest.mark.parametrize(
    ("kind", "fake"), [("speechbrain", FakeClassifier), ("pyannote", FakePyannote)]
)
def test_other_sampling_rates_are_refused(
    kind: str, fake: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, install = KINDS[kind]
    install(monkeypatch, _of_8_khz(fake))
    with pytest.raises(ModelError, match=r"takes 8000 samples per second; only 16000"):
        embedded(make(tmp_path / "model"), [])


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_other_library_raises_is_told(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, install = KINDS[kind]

    def fails(*_: object, **__: object) -> None:
        raise KeyError("embedding_model")

    library: Any = SimpleNamespace(from_hparams=fails, from_pretrained=fails)
    install(monkeypatch, library)
    match = rf"model {tmp_path / 'model'} cannot be loaded by \w+.*: 'embedding_model'"
    with pytest.raises(ModelError, match=match):
        embedded(make(tmp_path / "model"), [])


def test_a_model_of_pyannote_that_gives_no_embeddings_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Segments(FakePyannote):
        def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(waveforms), 5, 3)

    install_pyannote(monkeypatch, Segments)
    folder = pyannote_folder(tmp_path / "model")
    embedder = Embedder(str(folder), dtype="float32", device="cpu", threads=1)
    ((_, reason),) = embedder.embed([(0, voice(1, 0.2))])
    assert "has the shape (1, 5, 3); expected is (n, dimensions): it is no model of sp" in reason


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("speechbrain", ["embedding_model.ckpt", "hyperparams.yaml"]),
        ("pyannote", ["config.yaml", "pytorch_model.bin"]),
    ],
)
def test_files_of_embeddings_tell_the_back_end(
    kind: str, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, install = KINDS[kind]
    install(monkeypatch)
    calls_here(monkeypatch)
    folder, out = make(tmp_path / "model"), tmp_path / "out.parquet"
    sounds = write_scp(tmp_path / "wav.scp", {"a": write(tmp_path / "a.wav", voice(1, 0.3))})
    embed(sounds, out, EmbedOptions(str(folder)))
    record = written_model(out)
    assert record is not None
    assert (record["back_end"], sorted(record["files"])) == (kind, files)
    assert record["front_end"].startswith("of ")
    first = identify_model(folder)
    assert [record["sha256"], record["front_end"]] == [*first]
    assert back_end_of(folder).configuration() == {}
    (folder / files[0]).write_bytes(b"others")
    assert identify_model(folder).model != first.model


# -- Which kind it is ------------------------------------------------------------------------------


def test_a_folder_of_wespeaker_is_to_be_converted_first(tmp_path: Path) -> None:
    folder = small_wespeaker_folder(tmp_path / "wespeaker")
    match = rf"is a model of WeSpeaker's\. Convert it: 'voxblink2 convert {folder} {folder}-conv"
    with pytest.raises(ModelError, match=match):
        model_hashes(folder)


def test_folders_of_transformers_stay_what_they_were(tmp_path: Path) -> None:
    """Their hashes are in files that earlier versions made."""
    saved = Path(tiny_models.save_small(tmp_path / "model"))
    names = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert back_end_of(saved).name == "transformers"
    assert [*model_hashes(saved)] == names
    (saved / "config.yaml").touch()
    (saved / "pytorch_model.bin").touch()
    assert back_end_of(saved).name == "transformers"
    assert [*model_hashes(saved)] == [*names[:2], "preprocessor_config.json", "pytorch_model.bin"]


# -- On the Hub ------------------------------------------------------------------------------------


def on_the_hub(monkeypatch: pytest.MonkeyPatch, folder: Path, files: dict[str, str]) -> list[str]:
    """Put files of a repository in the place of the Hub; return what is asked for."""
    asked: list[str] = []

    def download(name: str, *, allow_patterns: Sequence[str]) -> str:
        asked.append(allow_patterns[-1])
        folder.mkdir(exist_ok=True)
        for file, text in files.items():
            if any(Path(file).match(pattern) for pattern in allow_patterns):
                (folder / file).write_text(text)
        return str(folder)

    monkeypatch.setattr(model_location, "snapshot_download", download)
    return asked


@pytest.mark.parametrize(
    ("files", "asked"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], 1),
        (["config.json", "pytorch_model.bin"], 2),
        (["a.json", "a.onnx", "a.onnx.data"], 3),
    ],
)
def test_the_first_kind_of_weights_is_downloaded(
    files: list[str], asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patterns = on_the_hub(monkeypatch, tmp_path / "hub", dict.fromkeys(files, "{}"))
    assert find_model("someone/model") == tmp_path / "hub"
    assert patterns == ["*.safetensors", "*.bin", "*.onnx*"][:asked]


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": json.dumps({"speechbrain_interface": "x"}), "embedding_model.ckpt": ""},
        {"config.yaml": "", "pytorch_model.bin": ""},
    ],
    ids=["speechbrain", "pyannote"],
)
def test_programs_are_not_downloaded_for_a_name(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_hub(monkeypatch, tmp_path / "hub", files)
    match = r"programs, .* \(hf download someone/model --local-dir FOLDER\) and name the folder"
    with pytest.raises(ModelError, match=match):
        find_model("someone/model")
