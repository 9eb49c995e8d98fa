"""``voxblink2 purity``: from a store and its embeddings to lists, and back into a load."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import shard_builder

from voxblink2_lib.cli import main
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.scoring.stored_vectors import stored_vectors

SPEAKERS, VIDEOS, UTTERANCES = 40, 3, 4


class Judged(NamedTuple):
    """A store, and the embeddings of its utterances."""

    store: Path
    embeddings: Path


def video_of(speaker: int, video: int) -> str:
    return f"video{speaker:03}{video:03}"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A store in which a video is of another speaker, and two speakers are one."""
    folder = tmp_path_factory.mktemp("purity")
    clips = [
        shard_builder.clip(number, frames=1, speaker=f"id{speaker:06}", video=video_of(speaker, v))
        for speaker in range(SPEAKERS)
        for v in range(VIDEOS)
        for number in range(UTTERANCES)
    ]
    shard = folder / "store" / "shards" / "audio" / "audio-00000.arrow"
    shard.parent.mkdir(parents=True)
    shard_builder.seal(shard, clips)
    voices = np.repeat(np.arange(SPEAKERS), VIDEOS * UTTERANCES)
    voices[VIDEOS * UTTERANCES : VIDEOS * UTTERANCES + UTTERANCES] = 9  # speaker 1's first video
    voices[voices == 5] = 4
    random = np.random.default_rng(1)
    vectors = random.standard_normal((SPEAKERS, 64))[voices]
    vectors += 0.2 * random.standard_normal(vectors.shape)
    names = [clip.utterance.name for clip in clips]
    write_embeddings(folder / "embeddings.parquet", names, vectors)
    return Judged(folder / "store", folder / "embeddings.parquet")


def write_embeddings(path: Path, names: list[str], vectors: npt.NDArray[np.float64]) -> None:
    lists = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.astype(np.float32).ravel()), vectors.shape[1]
    )
    pq.write_table(pa.table({"name": names, "embedding": lists}), path, row_group_size=50)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def purity(corpus: Judged, out: Path, *more: str, embeddings: Path | None = None) -> int:
    words = ["purity", "--embeddings", str(embeddings or corpus.embeddings)]
    return main([*words, "--store", str(corpus.store), "--out", str(out), *more])


def test_lists_name_what_is_wrong_and_exclude_takes_the_last(
    corpus: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert purity(corpus, tmp_path / "out", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    counts = {name: record[name] for name in ("far", "two_voices", "same_voice", "exclude")}
    assert counts == {"far": 4, "two_voices": 1, "same_voice": 1, "exclude": 2}
    far = rows_of(tmp_path / "out" / "far.csv")
    wrong = video_of(1, 0)
    assert {row["name"] for row in far} == {f"id000001/{wrong}/{n:05}" for n in range(UTTERANCES)}
    assert [float(row["cosine"]) for row in far] == sorted(float(row["cosine"]) for row in far)
    assert {row["seconds"] for row in far} == {"0.04"}
    (mixed,) = rows_of(tmp_path / "out" / "two_voices.csv")
    assert (mixed["speaker_id"], mixed["of_second_voice"], mixed["videos"]) == (
        *("id000001", "4", wrong),
    )
    (pair,) = rows_of(tmp_path / "out" / "same_voice.csv")
    assert (pair["first"], pair["second"]) == ("id000004", "id000005")
    exclude = tmp_path / "out" / "exclude.txt"
    assert "4 of 4 utterances" in exclude.read_text()
    assert Selection.of(exclude=exclude).exclude == {wrong, "id000005"}


def test_people_read_how_many_and_what_to_do_next(
    corpus: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, vectors = read(corpus.embeddings)
    write_embeddings(tmp_path / "some.parquet", [*names[1:], "id999999/x/00000"], vectors)
    assert purity(corpus, tmp_path / "out", embeddings=tmp_path / "some.parquet") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "Judged   479 utterances of 40 speakers; 1 of the store have no embedding, 1 embeddings "
    )
    assert [line.split()[0] for line in lines] == [
        *("Judged", "Far", "Mixed", "Same", "Exclude", "Load"),
    ]
    assert f"exclude={str(tmp_path / 'out' / 'exclude.txt')!r}" in lines[-1]


def read(path: Path) -> tuple[list[str], npt.NDArray[np.float64]]:
    table = pq.read_table(path)
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().astype(np.float64)
    return table["name"].to_pylist(), vectors.reshape(len(table), -1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda names: [f"other-{name}" for name in names], "has no embedding of an utterance of"),
        (lambda names: [names[1], *names[1:]], "has 'id000000/video000000/00001' twice"),
    ],
)
def test_wrong_names_are_refused(
    corpus: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: object, message: str
) -> None:
    names, vectors = read(corpus.embeddings)
    write_embeddings(tmp_path / "wrong.parquet", make(names), vectors)  # type: ignore[operator]  # a lambda
    assert purity(corpus, tmp_path / "out", embeddings=tmp_path / "wrong.parquet") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["2", "much", "nan"])
def test_what_is_no_cosine_is_refused(
    corpus: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    assert purity(corpus, tmp_path / "out", "--far", value) == 2
    assert "expected is a number from -1 to 1" in capsys.readouterr().err


def test_vectors_of_all_formats_are_the_same_and_stay_on_disk(
    corpus: Judged, tmp_path: Path
) -> None:
    names, vectors = read(corpus.embeddings)
    np.save(tmp_path / "e.npy", vectors.astype(np.float32))
    (tmp_path / "e.txt").write_text("\n".join(names))
    (tmp_path / "parts").mkdir()
    write_embeddings(tmp_path / "parts" / "0.parquet", names[:70], vectors[:70])
    write_embeddings(tmp_path / "parts" / "1.parquet", names[70:], vectors[70:])
    for path in (corpus.embeddings, tmp_path / "e.npy", tmp_path / "parts"):
        with stored_vectors(path) as stored:
            assert stored.names.to_pylist() == names
            np.testing.assert_array_equal(stored.vectors, vectors.astype(np.float32))
            assert isinstance(stored.vectors, np.memmap)


def test_a_saved_data_set_is_read_as_one_though_parquet_lies_beside_it(tmp_path: Path) -> None:
    rows = {"name": ["a", "b"], "embedding": [[1.0, 2.0], [3.0, 4.0]]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    write_embeddings(tmp_path / "set" / "other.parquet", ["c"], np.ones((1, 2)))
    with stored_vectors(tmp_path / "set") as stored:
        assert stored.names.to_pylist() == rows["name"]
        np.testing.assert_array_equal(stored.vectors, rows["embedding"])
