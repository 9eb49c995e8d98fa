"""A speaker's embeddings are found among others, and compared exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxblink2_lib.browse import voices as voices_module
from voxblink2_lib.browse.voices import Voices
from voxblink2_lib.errors import ScoringError, SelectionError

NAMES = [
    f"{speaker}/abcdefghij{video}/{utterance:05}"
    for speaker in ("id00000", "id000001", "id000002")
    for video in range(3)
    for utterance in range(4)
]


@pytest.fixture
def vectors() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(len(NAMES), 8)).astype(np.float32)


def write(folder: Path, vectors: npt.NDArray[np.float32], form: str) -> Path:
    names = [*NAMES]
    if form == "npy":
        np.save(folder / "vectors.npy", vectors)
        (folder / "vectors.txt").write_text("".join(f"{name}\n" for name in names))
        return folder / "vectors.npy"
    table = pa.table({"name": names, "embedding": list(vectors)})
    if form == "parquet":
        pq.write_table(table, folder / "vectors.parquet", row_group_size=5)
        return folder / "vectors.parquet"
    parts = folder / "parts"
    parts.mkdir()
    for number, start in enumerate(range(0, len(names), 10)):
        pq.write_table(table.slice(start, 10), parts / f"{number}.parquet")
    return parts


@pytest.mark.parametrize("form", ["npy", "parquet", "folder"])
def test_a_speaker_is_compared(tmp_path: Path, vectors: npt.NDArray[np.float32], form: str) -> None:
    voices = Voices(write(tmp_path, vectors, form))
    for first, speaker in enumerate(("id00000", "id000001", "id000002")):
        compared = voices.compare(speaker)
        own = vectors[12 * first : 12 * first + 12].astype(np.float64)
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        assert [key.name for key in compared.keys] == NAMES[12 * first : 12 * first + 12]
        assert np.allclose(compared.cosines, own @ own.T, atol=1e-6)
        for row in range(12):
            mean = np.delete(own, row, axis=0).mean(axis=0)
            expected = own[row] @ mean / np.linalg.norm(mean)
            assert compared.own[row] == pytest.approx(expected, abs=1e-5)
        cosines = [cosine for _, cosine in compared.farthest_first]
        assert cosines == sorted(cosines)
        assert compared.left_out == 0


def test_the_map_keeps_distances_of_two_dimensions(tmp_path: Path) -> None:
    angles = np.linspace(0.1, 1.0, len(NAMES))
    circle = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1).astype(np.float32)
    compared = Voices(write(tmp_path, circle, "parquet")).compare("id000001")
    points, own = compared.points, circle[12:24]
    assert np.allclose(
        np.linalg.norm(points[:, None] - points[None], axis=2),
        np.linalg.norm(own[:, None] - own[None], axis=2),
        atol=1e-5,
    )
    assert sum(compared.shares) == pytest.approx(1)
    assert compared.shares[0] > compared.shares[1]


def test_many_utterances_are_cut_off(
    tmp_path: Path, vectors: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voices_module, "MOST_UTTERANCES", 5)
    compared = Voices(write(tmp_path, vectors, "parquet")).compare("id000002")
    assert (len(compared.keys), compared.cosines.shape, compared.left_out) == (5, (5, 5), 7)


def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, vectors: npt.NDArray[np.float32]
) -> None:
    path = write(tmp_path, vectors, "parquet")
    with pytest.raises(SelectionError, match=r"'../x' is no speaker. Write an id such as"):
        Voices(path).compare("../x")
    with pytest.raises(ScoringError, match="has 0 embeddings of utterances of id000009"):
        Voices(path).compare("id000009")
    with pytest.raises(ScoringError, match="this file does not exist"):
        Voices(tmp_path / "none.parquet").compare("id000001")
    path.write_bytes(b"no Parquet")
    with pytest.raises(ScoringError, match="cannot be read as Parquet"):
        Voices(path).compare("id000001")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_vectors_without_a_direction_are_named(
    tmp_path: Path, vectors: npt.NDArray[np.float32], value: float
) -> None:
    vectors[13] = value
    path = write(tmp_path, vectors, "parquet")
    with pytest.raises(ScoringError, match="id000001/abcdefghij0/00001 is zero, or has a number"):
        Voices(path).compare("id000001")
    assert Voices(path).compare("id000002").keys
