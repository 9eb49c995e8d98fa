"""Transcripts and facts about speakers in an index: what is written is what the release says."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.plain_corpus import make_release, video_ids
from support.release_builder import voxblink2, write_release
from support.speaker_files import transcripts_of, write_speakers, write_voxblink1

from voxblink2_lib.errors import StoreDamagedError, StoreError, StoreFullError
from voxblink2_lib.release import speaker_index_build, speaker_writer
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.index_build import build_index, open_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.speaker_index import (
    CONTENT,
    INFO,
    SPEAKER_COLUMNS,
    SPEAKERS,
    TRANSCRIPT_COLUMNS,
    TRANSCRIPTS,
    SpeakerIndex,
    SpeakerInfo,
    read_speaker_info,
    speaker_problems,
)
from voxblink2_lib.release.speaker_index_build import are_speakers_current, update_speakers

VIDEOS = video_ids(4)
SPEAKERS_OF_IT = ("id000000", "id000001")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Two speakers with two videos each."""
    return make_release(tmp_path / "release", VIDEOS, per_speaker=2)


@pytest.fixture
def index(release: Path, tmp_path: Path) -> Index:
    return build_index(open_release(release), tmp_path / "store" / "index")


def update(release: Path, index: Index) -> SpeakerInfo | None:
    return update_speakers(open_release(release), index)


def rows_of(index: Index, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(index.folder / name).to_pylist()
    return rows


def said(index: Index, speaker: str) -> dict[str, tuple[str | None, str | None]]:
    tables = SpeakerIndex(index.folder).transcripts(speaker)
    return {
        f"{row['video_id']}/{row['utterance_id']}": (row["transcript"], row["language"])
        for table in tables
        for row in table.to_pylist()
    }


def test_a_release_with_annotations_only_writes_nothing(release: Path, index: Index) -> None:
    before = sorted(index.folder.iterdir())
    assert update(release, index) is None
    assert read_speaker_info(index.folder) is None
    assert are_speakers_current(open_release(release), index)
    assert sorted(index.folder.iterdir()) == before
    assert list(speaker_problems(index.folder)) == []
    with pytest.raises(FileNotFoundError):
        SpeakerIndex(index.folder)


@pytest.mark.parametrize("is_archive", [False, True])
def test_files_are_kept_as_text_and_read(release: Path, index: Index, is_archive: bool) -> None:
    asr: dict[str, bytes | str] = {
        "id000001": "rubbish",
        "id000000": transcripts_of("id000000", VIDEOS[:2]),
        "id000009": b"of a speaker that is not annotated",
    }
    info: dict[str, bytes | str] = {
        "id000000": '{"gender": "f", "tags": ["vlog"]}',
        "id000002": b"\xff\x00",
    }
    write_speakers(release, "asr_res", asr, archive=is_archive)
    write_speakers(release, "spk_info", info, archive=is_archive)
    (release / "spk2videos").write_text(f"id000000 {VIDEOS[0]} {VIDEOS[1]} {'x' * 11}\n\nbad\n")
    known = update(release, index)
    assert known is not None
    assert (known.speakers, known.transcripts, known.listed_videos) == (4, 2, 3)
    assert known.problems == ()
    rows = {row["speaker_id"]: row for row in rows_of(index, SPEAKERS)}
    assert list(rows) == ["id000000", "id000001", "id000002", "id000009"]
    first = rows["id000000"]
    assert (first["gender"], first["tags"], first["listed_videos"]) == ("female", ["vlog"], 3)
    assert (first["info_text"], first["asr_text"]) == (info["id000000"], asr["id000000"])
    assert rows["id000001"]["asr_text"] == "rubbish"
    assert rows["id000001"]["gender"] is rows["id000001"]["listed_videos"] is None
    assert (rows["id000002"]["info_text"], rows["id000002"]["info_bytes"]) == ("\ufffd\0", 2)
    assert said(index, "id000000") == {
        f"{video}/00001": (f"words of {video}", "en") for video in VIDEOS[:2]
    }
    assert said(index, "id000001") == said(index, "id999999") == {}
    assert list(speaker_problems(index.folder)) == []
    assert sorted(path.name for path in index.folder.parent.iterdir()) == ["index"]


def test_an_utterance_without_its_video_is_matched_only_if_it_is_certain(tmp_path: Path) -> None:
    names = [
        "id000000/aaaaaaaaaaa/00001",
        "id000000/bbbbbbbbbbb/00001",
        "id000000/bbbbbbbbbbb/00002",
    ]
    names += ["id000001/aaaaaaaaaaa/00001"]
    files = {f"meta/{name}.txt": voxblink2(speaker=name[:8], video=name[9:20]) for name in names}
    release = write_release(tmp_path / "release", files)
    index = build_index(open_release(release), tmp_path / "store" / "index")
    write_speakers(
        release,
        "asr_res",
        {
            "id000000": "00001 in two videos\n00002 in one\n00003 in none\n",
            "id000001": "00001.wav good day\n",
        },
    )
    known = update(release, index)
    assert known is not None
    assert (known.transcripts, known.unmatched) == (2, 2)
    assert said(index, "id000000") == {"bbbbbbbbbbb/00002": ("in one", None)}
    assert said(index, "id000001") == {"aaaaaaaaaaa/00001": ("good day", None)}


def test_the_first_of_two_is_kept(release: Path, index: Index) -> None:
    text = f"{VIDEOS[0]}/00001 first\n{VIDEOS[0]}/00001.wav second\n"
    write_speakers(release, "asr_res", {"id000000": text, "id000000.txt": "00001 third"})
    update(release, index)
    assert said(index, "id000000") == {f"{VIDEOS[0]}/00001": ("first", None)}


def test_facts_of_voxblink1(tmp_path: Path) -> None:
    resource = write_voxblink1(tmp_path, ["id00012", "id00013"])
    shutil.copytree(make_release(tmp_path / "other", VIDEOS) / "meta", resource / "timestamp")
    index = build_index(open_release(tmp_path), tmp_path / "store" / "index")
    known = update(tmp_path, index)
    assert known is not None
    facts = SpeakerIndex(index.folder).facts.to_pylist()
    tags = ["vlog", "cooking"]
    assert facts == [
        dict(zip(("speaker_id", "gender", "language", "location", "tags"), row, strict=True))
        for row in [
            ("id00012", "male", "English", "United States", tags),
            ("id00013", "female", "Mandarin Chinese", "CN", tags),
        ]
    ]


# -- Again -----------------------------------------------------------------------------------------


def test_files_are_read_again_only_when_they_change(release: Path, index: Index) -> None:
    write_speakers(release, "spk_info", {"id000000": "x"})
    first = update(release, index)
    stamp = (index.folder / SPEAKERS).stat().st_mtime_ns
    assert update(release, index) == first
    assert (index.folder / SPEAKERS).stat().st_mtime_ns == stamp
    # The annotations are not indexed again.
    annotations = (index.folder / "index.json").stat().st_mtime_ns
    write_speakers(release, "asr_res", {"id000000": transcripts_of("id000000", VIDEOS[:1])})
    assert not are_speakers_current(open_release(release), index)
    second = update(release, index)
    assert second is not None
    assert second.transcripts == 1
    assert are_speakers_current(open_release(release), index)
    assert (index.folder / "index.json").stat().st_mtime_ns == annotations
    # A release that was moved without them takes nothing away.
    shutil.rmtree(release / "asr_res")
    shutil.rmtree(release / "spk_info")
    assert update(release, index) == second


def test_an_index_that_grows_keeps_its_transcripts_until_they_are_made_again(
    release: Path, index: Index
) -> None:
    text = f"{VIDEOS[0]}/00001 of one\n00001 of one of two\n"
    write_speakers(release, "asr_res", {"id000000": text, "id000005": "00001 bare\n"})
    assert update(release, index) is not None
    write_release(
        release,
        {"meta/id000005/aaaaaaaaaaa/00001.txt": voxblink2(speaker="id000005", video="a" * 11)},
    )
    grown = open_index(open_release(release), index.folder)
    assert grown.info.videos == index.info.videos + 1
    assert said(grown, "id000000") == {f"{VIDEOS[0]}/00001": ("of one", None)}
    assert list(speaker_problems(grown.folder)) == list(grown.problems()) == []
    # What was not certain may be so by other annotations.
    assert not are_speakers_current(open_release(release), grown)
    assert said(grown, "id000005") == {}
    update(release, grown)
    assert said(grown, "id000005") == {"aaaaaaaaaaa/00001": ("bare", None)}


def test_a_list_of_videos_alone_is_no_reason_to_index_again(release: Path, index: Index) -> None:
    (release / "spk2videos").write_text(f"id000000 {VIDEOS[0]}\n")
    assert are_speakers_current(open_release(release), index)
    known = update(release, index)
    assert known is not None
    assert known.listed_videos == 1


@pytest.mark.parametrize("name", [SPEAKERS, TRANSCRIPTS, INFO])
def test_a_kill_between_two_files_leaves_nothing_that_is_read(
    name: str, release: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old files of one making and new ones of another are never taken together."""
    write_speakers(release, "asr_res", {"id000000": transcripts_of("id000000", VIDEOS[:1])})
    update(release, index)
    write_speakers(release, "asr_res", {"id000000": transcripts_of("id000000", VIDEOS[:2])})
    real = os.replace

    def die(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", die)
        with pytest.raises(KeyboardInterrupt):
            update(release, index)
    assert read_speaker_info(index.folder) is None
    known = update(release, index)
    assert known is not None
    assert known.transcripts == 2
    assert list(speaker_problems(index.folder)) == []


def test_the_files_of_two_makings_are_not_taken_together(release: Path, index: Index) -> None:
    write_speakers(release, "asr_res", {"id000000": transcripts_of("id000000", VIDEOS[:1])})
    update(release, index)
    before = (index.folder / SPEAKERS).read_bytes()
    write_speakers(release, "asr_res", {"id000000": transcripts_of("id000000", VIDEOS[:2])})
    update(release, index)
    (index.folder / SPEAKERS).write_bytes(before)
    with pytest.raises(StoreDamagedError, match="it does not belong to the files beside it"):
        SpeakerIndex(index.folder)


def test_a_full_disk_leaves_the_index_as_it_was(
    release: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_speakers(release, "spk_info", {"id000000": "x"})
    first = update(release, index)
    write_speakers(release, "spk_info", {"id000001": "x"})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(speaker_index_build._Texts, "add", full)
    with pytest.raises(StoreFullError, match=r"No space is left for .*index\.speakers"):
        update(release, index)
    assert read_speaker_info(index.folder) == first
    assert sorted(path.name for path in index.folder.parent.iterdir()) == ["index"]


def test_rows_are_read_in_parts_by_several_threads(
    release: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaker_writer, "_TRANSCRIPTS_PER_GROUP", 7)
    texts = {
        f"id{speaker:06}": "".join(f"{VIDEOS[0]}/{n:05} {speaker} {n}\n" for n in range(5))
        for speaker in range(20)
    }
    write_speakers(release, "asr_res", texts)
    update(release, index)
    reader = SpeakerIndex(index.folder)
    expected = [f"{speaker} {number}" for speaker in range(20) for number in range(5)]
    assert reader.rows == range(100)
    assert reader.rows_of("id000003") == range(15, 20)
    assert not reader.rows_of("id999999")
    for groups in (1, 3, 100):
        parts = list(reader.parts(reader.rows, groups))
        assert [row for part in parts for row in part] == list(range(100))
        with ThreadPoolExecutor(4) as threads:
            tables = list(threads.map(lambda part: reader.read(part, ["transcript"]), parts))
        assert [text for table in tables for text in table["transcript"].to_pylist()] == expected
    assert list(reader.parts(range(10, 23), 1)) == [range(10, 14), range(14, 21), range(21, 23)]
    assert reader.at([99, 0, 50])["transcript"].to_pylist() == ["19 4", "0 0", "10 0"]


# -- Bounds ----------------------------------------------------------------------------------------


def test_long_texts_are_cut_and_many_are_written_in_groups(
    release: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaker_index_build, "MAX_TEXT_BYTES", 100)
    monkeypatch.setattr(speaker_writer, "_TRANSCRIPTS_PER_GROUP", 7)
    monkeypatch.setattr(speaker_writer, "_GROUP_TEXT", 1500)
    monkeypatch.setattr(speaker_index_build, "_SPEAKERS_AT_ONCE", 3)
    texts = {
        f"id{speaker:06}": "".join(
            f"{VIDEOS[0]}/{number:05} words {speaker} {number}\n" for number in range(5)
        )
        for speaker in range(20)
    }
    write_speakers(release, "asr_res", texts)
    update(release, index)
    with pq.ParquetFile(index.folder / TRANSCRIPTS) as file:
        assert file.metadata.num_row_groups > 10
    with pq.ParquetFile(index.folder / SPEAKERS) as file:
        assert file.metadata.num_row_groups > 5
    rows = rows_of(index, SPEAKERS)
    assert {len(row["asr_text"]) for row in rows} == {100}
    assert [row["asr_bytes"] for row in rows] == [len(text) for text in texts.values()]
    reader = SpeakerIndex(index.folder)
    for speaker in range(20):
        tables = reader.transcripts(f"id{speaker:06}")
        words = [row["transcript"] for table in tables for row in table.to_pylist()]
        assert words == [f"words {speaker} {number}" for number in range(5)]


# -- Damage ----------------------------------------------------------------------------------------


@pytest.fixture
def known(release: Path, index: Index) -> Index:
    """An index that has transcripts."""
    write_speakers(release, "asr_res", {"id000000": transcripts_of("id000000", VIDEOS[:2])})
    update(release, index)
    return index


@pytest.mark.parametrize("name", [SPEAKERS, TRANSCRIPTS, INFO])
@pytest.mark.parametrize("kind", ["cut", "rubbish", "gone"])
def test_damage_is_found_and_named(name: str, kind: str, known: Index) -> None:
    path = known.folder / name
    whole = path.read_bytes()
    if kind == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if kind == "cut" else b"{rubbish}" * 100)
    if (name, kind) == (INFO, "gone"):  # as if there was none
        assert list(speaker_problems(known.folder)) == []
        return
    with pytest.raises(StoreDamagedError, match="Mend the store with 'voxblink2 repair"):
        SpeakerIndex(known.folder)
    if name != INFO:
        (problem,) = speaker_problems(known.folder)
        assert str(path) in problem


def test_other_bytes_are_found(known: Index) -> None:
    path = known.folder / INFO
    path.write_text(path.read_text().replace('"transcripts": 2', '"transcripts": 3'))
    (problem,) = speaker_problems(known.folder)
    assert problem.endswith("speakers.json is damaged: its checksum differs.")


@pytest.mark.parametrize(
    "change",
    [
        {"digest": []},
        {"speakers": "3"},
        {"transcripts": -1},
        {"problems": [7]},
        {"files": {}},
        {"files": {SPEAKERS: "x", TRANSCRIPTS: None}},
        {"other": 1},
        {"signature": "x" * (1 << 20)},
    ],
    ids=lambda change: str(change)[:20],
)
def test_a_foreign_summary_is_refused(change: dict[str, Any], known: Index) -> None:
    path = known.folder / INFO
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StoreDamagedError, match=r"speakers\.json of the index is damaged"):
        read_speaker_info(known.folder)


def test_a_later_version_is_refused_in_true_words(known: Index) -> None:
    path = known.folder / INFO
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 9}))
    with pytest.raises(StoreError, match=r"has format 9, not 1\. Use the version of voxblink2"):
        read_speaker_info(known.folder)


def write_foreign(table: pa.Table, path: Path, content: str) -> None:
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({CONTENT: content})


RANGES = {"negative": (-1, 1), "beyond": (0, 3), "huge": (2**62, 1), "null": (None, 1)}


@pytest.mark.parametrize("kind", RANGES)
def test_a_foreign_range_is_refused(kind: str, known: Index) -> None:
    first, count = RANGES[kind]
    info = read_speaker_info(known.folder)
    assert info is not None
    row = dict.fromkeys(SPEAKER_COLUMNS.names) | {
        "speaker_id": "id000000",
        "first_transcript": first,
        "transcripts": count,
    }
    table = pa.Table.from_pylist([row], SPEAKER_COLUMNS)
    write_foreign(table, known.folder / SPEAKERS, info.content)
    with pytest.raises(StoreDamagedError, match=r"speakers\.parquet of the index is damaged"):
        SpeakerIndex(known.folder)


def test_foreign_columns_are_refused(known: Index) -> None:
    info = read_speaker_info(known.folder)
    assert info is not None
    table = TRANSCRIPT_COLUMNS.remove(3).empty_table()
    write_foreign(table, known.folder / TRANSCRIPTS, info.content)
    with pytest.raises(StoreDamagedError, match="it has other columns"):
        SpeakerIndex(known.folder)
