"""Columns that are joined to rows of shards: for any rows, those of their ids, in their order."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.release_builder import voxblink2, write_release
from support.speaker_files import write_speakers

from voxblink2_lib.errors import SelectionError, StoreError
from voxblink2_lib.release import speaker_writer
from voxblink2_lib.release.index_build import build_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.speaker_index_build import update_speakers
from voxblink2_lib.store.joined_columns import JoinedColumns, RowOptions
from voxblink2_lib.store.schema import JOINED_FEATURES, SPEAKER_FEATURES

Ids = tuple[str, str, str]
WITH_FACTS = RowOptions(with_speaker_info=True)
GENDERS = {f"id{speaker:06}": "mf"[speaker % 2] for speaker in range(0, 12, 3)}
# The utterances of every third video have no transcript, some have no language.
SAID: dict[Ids, tuple[str, str | None]] = {
    (f"id{speaker:06}", f"video{video:06}", f"{utterance:05}"): (
        f"{speaker} {video} {utterance}",
        "en" if utterance else None,
    )
    for speaker in range(10)
    for video in range(4)
    for utterance in range(3)
    if video % 3
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose transcripts are in many groups."""
    place = tmp_path_factory.mktemp("joined_columns")
    files = {
        "meta/id000000/video000001/00000.txt": voxblink2(speaker="id000000", video="video000001")
    }
    release = write_release(place / "release", files)
    texts: dict[str, list[dict[str, str | None]]] = {}
    for (speaker, video, utterance), (text, language) in SAID.items():
        entry = {"utt": f"{video}/{utterance}", "text": text, "language": language}
        texts.setdefault(speaker, []).append(entry)
    write_speakers(release, "asr_res", {name: json.dumps(rows) for name, rows in texts.items()})
    facts = {name: json.dumps({"gender": gender}) for name, gender in GENDERS.items()}
    write_speakers(release, "spk_info", facts)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(speaker_writer, "_TRANSCRIPTS_PER_GROUP", 7)
        index = build_index(open_release(release), place / "store" / "index")
        update_speakers(open_release(release), index)
    return index.folder


def rows_of(ids: list[Ids], *, batches: int = 1) -> pa.Table:
    names = ("speaker_id", "video_id", "utterance_id")
    table = pa.table({name: pa.array([row[n] for row in ids], pa.string())
                      for n, name in enumerate(names)})  # fmt: skip
    return pa.concat_tables(
        table.slice(
            len(table) * n // batches, len(table) * (n + 1) // batches - len(table) * n // batches
        )
        for n in range(batches)
    )


IDS = st.tuples(
    st.sampled_from([f"id{speaker:06}" for speaker in range(12)]),
    st.sampled_from([f"video{video:06}" for video in range(5)]),
    st.sampled_from([f"{utterance:05}" for utterance in range(4)]),
)


@given(ids=st.lists(IDS, max_size=60), batches=st.integers(1, 4))
def test_any_rows_get_what_is_known_of_them(folder: Path, ids: list[Ids], batches: int) -> None:
    rows = rows_of(ids, batches=batches)
    joined = JoinedColumns.of(folder, WITH_FACTS).open().join(rows)
    assert joined.column_names == [*rows.column_names, *JOINED_FEATURES, *SPEAKER_FEATURES]
    expected = [SAID.get(row, (None, None)) for row in ids]
    columns = (joined[name].to_pylist() for name in ("transcript", "language"))
    assert list(zip(*columns, strict=True)) == expected
    genders = {"m": "male", "f": "female"}
    assert joined["speaker_gender"].to_pylist() == [
        genders[GENDERS[row[0]]] if row[0] in GENDERS else None for row in ids
    ]
    joined.validate(full=True)


def test_without_an_index_all_is_null(tmp_path: Path) -> None:
    ids = [*SAID][:5]
    for columns in (JoinedColumns(), JoinedColumns.of(tmp_path / "nowhere", RowOptions())):
        table = columns.open().columns_of(rows_of(ids))
        assert table.to_pylist() == [{"transcript": None, "language": None}] * 5
        assert pa.schema(list(columns.features.arrow_schema)) == table.schema
    assert JoinedColumns().signature != JoinedColumns(options=WITH_FACTS).signature


def test_columns_may_be_sent_to_another_process(folder: Path) -> None:
    columns = pickle.loads(pickle.dumps(JoinedColumns.of(folder, WITH_FACTS)))
    columns.check()
    first = next(iter(SAID))
    assert columns.open().columns_of(rows_of([first]))["transcript"].to_pylist() == [SAID[first][0]]


def test_a_changed_index_is_seen(folder: Path, tmp_path: Path) -> None:
    columns = JoinedColumns.of(folder, RowOptions())
    moved = JoinedColumns(tmp_path / "nowhere", columns.options, columns.info)
    with pytest.raises(StoreError, match=r"A run has changed the transcripts in .*nowhere"):
        moved.check()
    # What is gone is unknown, and no error, for whoever reads a stream just then.
    assert moved.open().columns_of(rows_of([*SAID][:1]))["transcript"].null_count == 1


@pytest.mark.parametrize("value", ["yes", 1, 0.0, []])
def test_the_option_is_a_switch(value: object) -> None:
    with pytest.raises(SelectionError, match="with_speaker_info must be True or False, got"):
        RowOptions(with_speaker_info=value)  # type: ignore[arg-type]  # that is the point
