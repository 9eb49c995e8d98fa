"""A file of embeddings says what it was made of: the model with its front end, and the corpus."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny_models
from support.tiny_models import calls_here, voice, write, write_scp

from voxblink2_lib.embedding.block_worker import EmbedOptions
from voxblink2_lib.embedding.model_identity import identify_model
from voxblink2_lib.embedding.run import embed
from voxblink2_lib.files import sha256_of
from voxblink2_lib.scoring import read_embeddings
from voxblink2_lib.scoring.embedding_files import written_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_models.save_small(tmp_path_factory.mktemp("model")))


def audio(folder: Path, *names: str) -> Path:
    files = {
        name: write(folder / f"{place}.wav", voice(place, 0.5)) for place, name in enumerate(names)
    }
    return write_scp(folder / "wav.scp", files)


@pytest.mark.parametrize("suffix", ["parquet", "safetensors"])
def test_the_model_and_its_front_end_are_beside_the_embeddings(
    suffix: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls_here(monkeypatch)
    out = tmp_path / f"out.{suffix}"
    embed(audio(tmp_path / "audio", "a", "b"), out, EmbedOptions(str(model), window_seconds=0.3))
    made = written_model(out)
    assert made is not None
    assert made["name"] == model.name
    assert (made["window_seconds"], made["dtype"]) == (0.3, "float32")
    assert made["files"]["model.safetensors"] == sha256_of(model / "model.safetensors")
    assert (made["sha256"], made["front_end"]) == identify_model(model)
    assert made["front_end"].startswith("SpeakerFeatureExtractor ")


@pytest.mark.parametrize(
    ("names", "corpus"),
    [
        (["id000001/abcdefghijk/00001", "wav/id990002/abcdefghijk/00002"], "VoxBlink2"),
        (["id000001-abcdefghijk-00001"], "VoxBlink2"),
        (["id00001/abcdefghijk/00001"], None),  # of VoxBlink1, VoxCeleb1 or VoxCeleb2
        (["id000001/abcdefghijk/00001", "noise"], None),
    ],
)
def test_six_digits_are_voxblink2(
    names: list[str],
    corpus: str | None,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls_here(monkeypatch)
    sounds = audio(tmp_path / "audio", *names)
    made = embed(sounds, tmp_path / "out.parquet", EmbedOptions(str(model)))
    assert read_embeddings(made.out).corpus == corpus
    # What is named counts more than what ids tell.
    other = embed(sounds, tmp_path / "other.parquet", EmbedOptions(str(model)), corpus="Mine")
    assert read_embeddings(other.out).corpus == "Mine"


def test_what_others_wrote_names_no_model(tmp_path: Path) -> None:
    (tmp_path / "embeddings.npy").write_bytes(b"")
    assert written_model(tmp_path / "embeddings.npy") is None
    assert written_model(tmp_path) is None
