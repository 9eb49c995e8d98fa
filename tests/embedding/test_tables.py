"""Audio and names of tables: which columns are read, in which forms, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soxr
from support import tiny_models
from support.tiny_models import calls_here, read_all, voice, write, write_arrow

from voxblink2_lib.cli import main
from voxblink2_lib.embedding.block_worker import EmbedOptions, read_waveform
from voxblink2_lib.embedding.blocks import find_blocks
from voxblink2_lib.embedding.run import embed
from voxblink2_lib.embedding.tables import NoAudio, Samples, TableColumns
from voxblink2_lib.errors import EmbeddingError, ModelError
from voxblink2_lib.scoring import read_embeddings

SOUND = voice(1, 0.5).astype(np.float32)


def save(path: Path, rows: pa.Table) -> Path:
    if path.suffix == ".arrow":
        return write_arrow(path, rows)
    pq.write_table(rows, path)
    return path


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_columns_of_other_names(suffix: str, tmp_path: Path) -> None:
    rows = pa.table({"sound": [b"1", b"2"], "name": ["no", "no"], "clip": ["a", "b"]})
    path = save(tmp_path / f"x.{suffix}", rows)
    columns = TableColumns("sound", "clip")
    assert read_all(find_blocks(path, columns=columns).blocks) == [("a", b"1"), ("b", b"2")]
    (kept,) = find_blocks(path, columns=columns, keep=lambda name: name == "b").blocks
    assert list(kept.rows) == [1]
    other = save(tmp_path / f"y.{suffix}", rows.rename_columns(["audio", "a", "b"]))
    named = find_blocks(other, columns=TableColumns(name="b")).blocks
    assert "columns=('sound', 'clip')" in kept.identity()
    assert read_all(named) == [("a", b"1"), ("b", b"2")]


def test_files_of_an_audio_folder_are_named_by_file_name(tmp_path: Path) -> None:
    rows = pa.table({"file_name": ["train/a.wav"], "audio": [b"1"]})
    assert read_all(find_blocks(save(tmp_path / "x.parquet", rows)).blocks) == [
        ("train/a.wav", b"1")
    ]


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64())])
@pytest.mark.parametrize("rate", [None, 16_000, 8_000])
def test_lists_of_samples(kind: pa.DataType, rate: int | None, tmp_path: Path) -> None:
    columns: dict[str, Any] = {"id": ["a"], "audio": pa.array([SOUND.tolist()], kind)}
    if rate:
        columns["sampling_rate"] = [rate]
    path = save(tmp_path / "x.parquet", pa.table(columns))
    ((name, audio),) = read_all(find_blocks(path).blocks)
    assert isinstance(audio, Samples)
    result = read_waveform(audio, name)
    expected = SOUND if rate != 8_000 else soxr.resample(SOUND, 8_000, 16_000, "HQ")
    np.testing.assert_array_equal(result, expected)


def test_structures_of_samples_and_rate(tmp_path: Path) -> None:
    cell = {"path": "x.wav", "array": SOUND.tolist(), "sampling_rate": 8_000}
    rows = pa.table({"id": ["a", "b"], "audio": [cell, {**cell, "array": None}]})
    (_, audio), (_, none) = read_all(find_blocks(save(tmp_path / "x.arrow", rows)).blocks)
    assert isinstance(audio, Samples)
    assert (audio.rate_hz, none) == (8_000, b"")
    np.testing.assert_array_equal(audio.values, SOUND)


@pytest.mark.parametrize("rate", [0, -1, 999, 10**9])
def test_a_rate_that_no_audio_has(rate: int, tmp_path: Path) -> None:
    rows = pa.table({"id": ["a"], "audio": [SOUND.tolist()], "sampling_rate": [rate]})
    ((_, audio),) = read_all(find_blocks(save(tmp_path / "x.parquet", rows)).blocks)
    assert isinstance(audio, NoAudio)
    match = f"^a has the sampling rate {rate}; allowed are 1,000 to 768,000 samples a second"
    with pytest.raises(ModelError, match=match):
        read_waveform(audio, "a")


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        (TableColumns("sound"), "There is no column 'sound' in .*; there are audio, id"),
        (TableColumns(name="clip"), "There is no column 'clip' in .*; there are audio, id"),
        (
            TableColumns("id"),
            "of the type 'string'; expected are bytes, structures of .*, or lists",
        ),
    ],
)
def test_columns_that_are_not_there(columns: TableColumns, match: str, tmp_path: Path) -> None:
    path = save(tmp_path / "x.parquet", pa.table({"audio": [b"1"], "id": ["a"]}))
    with pytest.raises(EmbeddingError, match=match):
        read_all(find_blocks(path, columns=columns).blocks)


def test_no_column_of_names_says_how_to_name_one(tmp_path: Path) -> None:
    path = save(tmp_path / "x.parquet", pa.table({"audio": [b"1"], "clip": ["a"]}))
    with pytest.raises(EmbeddingError, match=r"audio, clip\. Name one with --name-column"):
        read_all(find_blocks(path).blocks)


def test_samples_and_files_give_the_same_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls_here(monkeypatch)
    model = str(tiny_models.save_small(tmp_path / "model"))
    sound = write(tmp_path / "files" / "a.wav", SOUND)
    rows = datasets.Dataset.from_dict({"clip": ["a"], "sound": [SOUND.tolist()]})
    rows.save_to_disk(str(tmp_path / "saved"))
    words = ["embed", "--model", model, "--audio", str(tmp_path / "saved"), "--device", "cpu"]
    words += ["--audio-column", "sound", "--name-column", "clip"]
    assert main([*words, "--out", str(tmp_path / "samples.parquet")]) == 0
    embed(sound.parent, tmp_path / "files.parquet", EmbedOptions(model))
    ours, files = (read_embeddings(tmp_path / f"{name}.parquet") for name in ("samples", "files"))
    assert ours.names == files.names == ["a"]
    np.testing.assert_array_equal(ours.vectors, files.vectors)
