"""From a release to an index, and when an index may be used again."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.property_settings import fewer_examples
from support.release_builder import (
    SPEAKER,
    VIDEO,
    Member,
    Row,
    make_rows,
    member_name,
    small_release,
    voxblink2,
    write_archive,
    write_release,
)

from voxblink2_lib.errors import ReleaseError, StoreError, StoreMismatchError
from voxblink2_lib.progress import AdvanceWithNote
from voxblink2_lib.records import FaceTrack, Utterance, VideoKey
from voxblink2_lib.release import index_build, index_writer
from voxblink2_lib.release.annotation_files import PlacedBatch, read_batches
from voxblink2_lib.release.index import Index, VideoKeys, video_keys
from voxblink2_lib.release.index_build import build_index, open_index
from voxblink2_lib.release.location import Release, open_release

PROPERTY = fewer_examples(2)
KEY = VideoKey(SPEAKER, VIDEO)


def build(folder: Path, members: dict[str, bytes] | Iterable[Member]) -> Index:
    return build_index(Release(write_archive(folder / "a.tar", members)), folder / "index")


def rejects(folder: Path) -> list[list[str]]:
    with open(folder / "rejects.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def all_keys(index: Index) -> set[VideoKey]:
    return set(video_keys(index.videos()))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def small_groups(monkeypatch: pytest.MonkeyPatch, utterances: int, boxes: int) -> None:
    monkeypatch.setattr(index_writer, "UTTERANCES_PER_GROUP", utterances)
    monkeypatch.setattr(index_writer, "BOXES_PER_GROUP", boxes)


# -- What is in it ---------------------------------------------------------------------------------


def test_counts(tmp_path: Path) -> None:
    info = build(tmp_path, small_release(speakers=3, videos=2, utterances=4)).info
    assert (info.speakers, info.videos, info.utterances, info.rejected) == (3, 6, 24, 0)


def test_hours_count_frames_at_25_a_second(tmp_path: Path) -> None:
    index = build(
        tmp_path, {member_name(): voxblink2([(10, 1, 1, 1, 1), (10 + 89999, 1, 1, 1, 1)])}
    )
    assert index.info.hours == 1.0


def test_videos_are_sorted(tmp_path: Path) -> None:
    files = dict(reversed(small_release(speakers=3).items()))
    videos = build(tmp_path, files).videos()
    assert videos.column_names == ["speaker_id", "video_id", "digest"]
    assert list(video_keys(videos)) == sorted({tuple(name.split("/")[1:3]) for name in files})


def test_utterances_and_headers_are_kept(tmp_path: Path) -> None:
    index = build(tmp_path, {member_name(): voxblink2(make_rows(3, 9), start="0.12")})
    assert list(index.utterances({KEY})) == [(KEY, (Utterance(*KEY, "00001", 3, 9),))]
    (row,) = pq.read_table(index.folder / "utterances.parquet").to_pylist()
    assert (row["header_start_seconds"], row["header_duration_seconds"]) == (0.12, 1.0)


def test_videos_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    index = build(tmp_path, small_release())
    keys = {VideoKey("id000001", "video001001"), VideoKey("id000002", "video001000"), KEY}
    assert [key for key, _ in index.utterances(keys)] == [VideoKey("id000001", "video001001")]
    assert list(index.utterances(set())) == []


def check_rows(index: Index, files: dict[str, bytes]) -> None:
    """Check that row i of the boxes belongs to row i of the utterances, for every i."""
    utterances = pq.read_table(index.folder / "utterances.parquet").to_pylist()
    boxes = pq.read_table(index.folder / "boxes.parquet").to_pylist()
    assert len(utterances) == len(boxes) == len(files)
    for row, box in zip(utterances, boxes, strict=True):
        data = files[member_name(row["speaker_id"], row["video_id"], row["utterance_id"])]
        rows = [tuple(map(int, line.split())) for line in data.decode().splitlines()[7:]]
        assert list(zip(*box.values(), strict=True)) == rows
        assert (row["first_frame"], row["last_frame"]) == (rows[0][0], rows[-1][0])


@pytest.mark.parametrize(("utterances", "boxes"), [(1, 1), (3, 2), (4, 4), (5, 7), (100, 100)])
def test_row_groups_do_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, utterances: int, boxes: int
) -> None:
    files = small_release(speakers=2, videos=3, utterances=4)
    small_groups(monkeypatch, utterances, boxes)
    index = build(tmp_path, files)
    groups = pq.ParquetFile(index.folder / "utterances.parquet").num_row_groups
    assert groups == -(-24 // utterances)
    assert pq.ParquetFile(index.folder / "boxes.parquet").num_row_groups == -(-24 // boxes)
    check_rows(index, files)
    got = list(index.utterances(all_keys(index)))
    assert [key for key, _ in got] == sorted(all_keys(index))
    for key, of_video in got:
        assert [utterance.utterance_id for utterance in of_video] == [
            f"{number:05}" for number in range(4)
        ]
        assert {VideoKey(utterance.speaker_id, utterance.video_id) for utterance in of_video} == {
            key
        }


@PROPERTY
@given(order=st.permutations(range(12)), utterances=st.integers(1, 13))
def test_any_order_of_files_gives_sorted_utterances(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], utterances: int
) -> None:
    files = list(small_release(speakers=2, videos=2, utterances=3).items())
    mixed = dict(files[number] for number in order)
    with pytest.MonkeyPatch.context() as patch:
        small_groups(patch, utterances, 2)
        index = build(tmp_path_factory.mktemp("order"), mixed)
        got = dict(index.utterances(all_keys(index)))
    check_rows(index, mixed)
    assert sorted(got) == list(got) == sorted(all_keys(index))
    for key, of_video in got.items():
        names = [utterance.utterance_id for utterance in of_video]
        assert names == [f"{number:05}" for number in range(3)]
        assert [utterance.first_frame for utterance in of_video] == [0, 10, 20], key


# -- Faces -----------------------------------------------------------------------------------------


def tracks_of(index: Index, keys: set[VideoKey]) -> dict[VideoKey, tuple[FaceTrack, ...]]:
    tracks: dict[VideoKey, tuple[FaceTrack, ...]] = {}
    for video in index.annotated(keys, with_tracks=True):
        assert video.tracks is not None
        assert tuple(track.utterance for track in video.tracks) == video.utterances
        tracks[video.key] = video.tracks
    return tracks


def check_track(track: FaceTrack, rows: list[Row], size: tuple[int, int] | None) -> None:
    """Check that a track says what an annotation file said."""
    assert track.frames.dtype == np.int32
    assert track.boxes.dtype == np.int16
    assert track.boxes.shape == (len(rows), 4)
    assert [tuple(row) for row in np.column_stack([track.frames, track.boxes]).tolist()] == rows
    assert (track.utterance.first_frame, track.utterance.last_frame) == (rows[0][0], rows[-1][0])
    assert track.frame_size == size


def test_tracks_only_where_asked_for(tmp_path: Path) -> None:
    index = build(tmp_path, small_release())
    plain = list(index.annotated(all_keys(index)))
    faces = list(index.annotated(all_keys(index), with_tracks=True))
    assert {video.tracks for video in plain} == {None}
    assert [video._replace(tracks=None) for video in faces] == plain
    digests = {(row["speaker_id"], row["video_id"]): row["digest"] for row in videos_of(index)}
    assert {video.key: video.digest for video in faces} == digests
    assert list(index.annotated(set(), with_tracks=True)) == []


def videos_of(index: Index) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = index.videos().to_pylist()
    return rows


@pytest.mark.parametrize(("utterances", "boxes"), [(1, 1), (3, 2), (2, 5), (5, 7), (100, 100)])
def test_tracks_are_those_of_the_release_over_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, utterances: int, boxes: int
) -> None:
    small_groups(monkeypatch, utterances, boxes)
    files: dict[str, bytes] = {}
    annotated_rows: dict[str, tuple[list[Row], tuple[int, int] | None]] = {}
    for number, (name, _) in enumerate(small_release(speakers=2, videos=3, utterances=4).items()):
        _, speaker, video, _ = name.split("/")
        # Each has its own length, boxes and size, so that no two can be mixed up.
        rows = [(7 * n, number, -n, 30 + number, 1 + n) for n in range(1 + number % 5)]
        size = (1280 + number, 720) if number % 3 else None
        header = f"Resolution: {size[0]}x{size[1]}\n".encode() if size else b""
        files[name] = header + voxblink2(rows, speaker=speaker, video=video)
        annotated_rows[name.removeprefix("meta/").removesuffix(".txt")] = (rows, size)
    index = build(tmp_path, files)
    assert pq.ParquetFile(index.folder / "boxes.parquet").num_row_groups == -(-24 // boxes)
    tracks_by_video = tracks_of(index, all_keys(index))
    assert list(tracks_by_video) == sorted(all_keys(index))
    tracks = [track for video in tracks_by_video.values() for track in video]
    assert [track.utterance.name for track in tracks] == sorted(annotated_rows)
    for track in tracks:
        check_track(track, *annotated_rows[track.utterance.name])
    # Any video alone, in any order, says the same.
    for key in sorted(all_keys(index), reverse=True):
        for track in tracks_of(index, {key})[key]:
            check_track(track, *annotated_rows[track.utterance.name])


def test_tracks_of_a_video_in_two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_groups(monkeypatch, 2, 2)
    index = far_apart(tmp_path)
    first, second = tracks_of(index, {KEY})[KEY]
    assert (first.utterance.utterance_id, second.utterance.utterance_id) == ("00001", "00002")
    check_track(first, make_rows(5, 9), None)
    check_track(second, make_rows(50, 60), None)


NUMBER = st.integers(-(2**15), 2**15 - 1)
SIZE = st.none() | st.tuples(st.integers(1, 2**15 - 1), st.integers(1, 2**15 - 1))


@st.composite
def annotated(draw: st.DrawFn) -> tuple[list[Row], tuple[int, int] | None]:
    frames = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9, unique=True))
    rows = [(frame, *(draw(NUMBER) for _ in range(4))) for frame in sorted(frames)]
    return rows, draw(SIZE)  # type: ignore[return-value]  # five numbers


@PROPERTY
@given(
    annotations=st.lists(annotated(), min_size=1, max_size=7),
    order=st.randoms(use_true_random=False),
    groups=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_what_is_annotated_reads_back(
    tmp_path_factory: pytest.TempPathFactory,
    annotations: list[tuple[list[Row], tuple[int, int] | None]],
    order: Any,
    groups: tuple[int, int],
) -> None:
    videos = (VIDEO, "-bcdefghijk", "Abcdefghijk")
    named = {
        member_name(SPEAKER, videos[number % 3], f"{number:05}"): annotation
        for number, annotation in enumerate(annotations)
    }
    names = list(named)
    order.shuffle(names)  # so that videos stand in several places
    files = {}
    for name in names:
        rows, size = named[name]
        header = f"Size: {size[0]} {size[1]}\n".encode() if size else b""
        files[name] = header + voxblink2(rows, video=name.split("/")[2])
    with pytest.MonkeyPatch.context() as patch:
        small_groups(patch, *groups)
        index = build(tmp_path_factory.mktemp("tracks"), files)
        tracks_by_video = tracks_of(index, all_keys(index))
    tracks = [track for video in tracks_by_video.values() for track in video]
    assert [f"meta/{track.utterance.name}.txt" for track in tracks] == sorted(files)
    for track in tracks:
        check_track(track, *named[f"meta/{track.utterance.name}.txt"])


def walking_face(frames: int, *, seed: int) -> list[Row]:
    """Return a track as detectors give it: a face that sways and nears, and jitters by a pixel."""
    chance = np.random.default_rng(seed)
    seconds = np.arange(frames) / 25
    sway, near = chance.uniform(20, 60), chance.uniform(0.1, 0.4)

    def column(middle: float, reach: float) -> npt.NDArray[np.int64]:
        path = middle + reach * np.sin(near * 2 * np.pi * seconds + chance.uniform(0, 6))
        return np.rint(path + chance.normal(0, 1.0, frames)).astype(np.int64)

    boxes = [column(500, sway), column(200, sway / 3), column(180, 20), column(220, 20)]
    first = int(chance.integers(0, 2000))
    return list(
        zip(range(first, first + frames), *(column.tolist() for column in boxes), strict=True)
    )


def test_boxes_take_less_than_four_bytes_and_any_reader_reads_them(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    named = {
        member_name(utterance=f"{number:05}"): walking_face(int(length), seed=number)
        for number, length in enumerate(chance.integers(50, 300, 200))
    }
    index = build(tmp_path, {name: voxblink2(rows) for name, rows in named.items()})
    path = index.folder / "boxes.parquet"
    boxes = sum(map(len, named.values()))
    assert path.stat().st_size / boxes < 4
    metadata = pq.ParquetFile(path).metadata
    group = metadata.row_group(0)
    assert group.num_columns == 5
    for number in range(group.num_columns):
        column = group.column(number)
        assert column.compression == "ZSTD"
        # RLE and PLAIN are of the lists' lengths, as Parquet's levels are written.
        assert "DELTA_BINARY_PACKED" in column.encodings
        assert not any("DICTIONARY" in encoding for encoding in column.encodings)
        assert not column.has_dictionary_page
    table = pq.read_table(path)
    assert {field.name: field.type.value_type for field in table.schema} == {
        "frame": pa.int32(),
        **dict.fromkeys(["x", "y", "width", "height"], pa.int16()),
    }
    for row, rows in zip(table.to_pylist(), named.values(), strict=True):
        assert list(zip(*row.values(), strict=True)) == rows


# -- What is left out ------------------------------------------------------------------------------


def test_a_bad_file_is_a_row_of_rejects(tmp_path: Path) -> None:
    files = small_release()
    bad = {
        member_name("id000009", VIDEO, "00001"): b"",
        member_name("id000009", VIDEO, "00002"): b"0 1 2 3\n",
        'meta/a "b",c.txt': b"x",
        "meta/é\n.txt": b"x",
    }
    index = build(tmp_path, {**bad, **files})
    assert index.info.rejected == len(bad)
    assert (index.info.speakers, index.info.utterances) == (2, len(files))
    assert rejects(index.folder) == [
        ["path", "reason"],
        [member_name("id000009", VIDEO, "00001"), "the file is empty"],
        [
            member_name("id000009", VIDEO, "00002"),
            "line 1: expected five numbers, got 4 fields",
        ],
        ['meta/a "b",c.txt', "not named <speaker>/<video>/<utterance>.txt"],
        ["meta/é\\n.txt", "not named <speaker>/<video>/<utterance>.txt"],
    ]


def test_all_bad_quotes_the_first_reason(tmp_path: Path) -> None:
    files = {member_name(): b"0 1 2 3\n", member_name(utterance="00002"): b""}
    with pytest.raises(
        ReleaseError,
        match=r"has no usable annotation \(2 files were rejected; the first, "
        r"meta/id000001/abcdefghijk/00001\.txt: line 1: expected five numbers, got 4 fields\)",
    ):
        build(tmp_path, files)
    assert not (tmp_path / "index").exists()


def test_a_reason_stays_short_whatever_the_file_says(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="the header has speaker 'xxx") as caught:
        build(tmp_path, {member_name(): b"Identity: " + b"x" * 300_000 + b"\n0 1 2 3 4\n"})
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("second", [voxblink2(), voxblink2(make_rows(50, 60)), b""])
def test_the_first_of_two_adjacent_files_is_kept(tmp_path: Path, second: bytes) -> None:
    first = voxblink2(make_rows(5, 9))
    index = build(tmp_path, [(member_name(), first), (member_name(), second)])
    assert list(index.utterances({KEY})) == [(KEY, (Utterance(*KEY, "00001", 5, 9),))]
    assert (index.info.utterances, index.info.rejected) == (1, 1)
    once = build(tmp_path / "once", {member_name(): first})
    assert index.info.fingerprint == once.info.fingerprint


def far_apart(folder: Path) -> Index:
    first, second = voxblink2(make_rows(5, 9)), voxblink2(make_rows(50, 60))
    other = small_release(speakers=1, first_speaker=7)
    return build(
        folder,
        [
            (member_name(), first),
            *other.items(),
            (member_name(), second),
            (member_name(utterance="00002"), second),
        ],
    )


def test_the_first_of_two_files_far_apart_is_kept(tmp_path: Path) -> None:
    index = far_apart(tmp_path)
    assert list(index.utterances({KEY})) == [
        (KEY, (Utterance(*KEY, "00001", 5, 9), Utterance(*KEY, "00002", 50, 60)))
    ]
    assert index.info.videos == 3


# -- Using it again --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store" / "index"


def count_reads(release: Release, folder: Path) -> int:
    """Open an index and return how many annotations were read for that."""
    paths: list[str] = []

    def read(path: Path, **options: Any) -> Iterator[PlacedBatch]:
        for placed in read_batches(path, **options):
            paths.extend(placed.batch.paths)
            yield placed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_build, "read_batches", read)
        open_index(release, folder)
    return len(paths)


def test_an_index_is_made_once(tmp_path: Path, folder: Path) -> None:
    release = open_release(write_release(tmp_path, small_release()))
    assert count_reads(release, folder) == 8
    before = snapshot(folder)
    assert count_reads(release, folder) == 0
    assert snapshot(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


def test_the_same_release_fetched_again_is_read_again(tmp_path: Path, folder: Path) -> None:
    files = small_release()
    open_index(Release(write_archive(tmp_path / "a.tar.gz", files)), folder)
    mixed = dict(reversed(files.items()))
    index = open_index(Release(write_archive(tmp_path / "b.tar", mixed)), folder)
    assert index.info.signature == Release(tmp_path / "b.tar").signature()
    assert count_reads(Release(tmp_path / "b.tar"), folder) == 0


def test_growth_is_accepted(tmp_path: Path, folder: Path) -> None:
    write_release(tmp_path, small_release())
    open_index(open_release(tmp_path), folder)
    write_release(tmp_path, small_release(speakers=3, videos=3))
    index = open_index(open_release(tmp_path), folder)
    assert (index.info.speakers, index.info.videos) == (3, 9)
    assert Index(folder).info == index.info
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


def changed(files: dict[str, bytes], name: str, data: bytes | None) -> dict[str, bytes]:
    rest = {path: old for path, old in files.items() if path != name}
    return rest if data is None else {**rest, name: data}


FIRST = "meta/id000001/video001001/00000.txt"
CHANGES: dict[str, tuple[str, bytes | None]] = {
    "an utterance is gone": (FIRST, None),
    "an utterance is new": (FIRST.replace("00000.txt", "00009.txt"), b"0 1 2 3 4\n"),
    "a box moved": (
        FIRST,
        voxblink2(
            [(row[0], 101, *row[2:]) for row in make_rows(0, 6)],
            speaker="id000001",
            video="video001001",
        ),
    ),
    "a file is bad now": (FIRST, b""),
}


@pytest.mark.parametrize(("name", "data"), CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_video_is_refused(
    tmp_path: Path, folder: Path, name: str, data: bytes | None
) -> None:
    files = small_release()
    open_index(Release(write_archive(tmp_path / "a.tar", files)), folder)
    before = snapshot(folder)
    release = Release(write_archive(tmp_path / "b.tar", changed(files, name, data)))
    for _ in range(2):
        with pytest.raises(
            StoreMismatchError,
            match=r"1 of its 4 videos are missing or annotated otherwise, the first is "
            r"id000001/video001001\..*another store",
        ):
            open_index(release, folder)
    assert snapshot(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["index"]
    assert count_reads(Release(tmp_path / "a.tar"), folder) == 0


def test_a_video_that_is_gone_is_refused(tmp_path: Path, folder: Path) -> None:
    open_index(Release(write_archive(tmp_path / "a.tar", small_release())), folder)
    before = snapshot(folder)
    fewer = Release(write_archive(tmp_path / "b.tar", small_release(speakers=1)))
    with pytest.raises(
        StoreMismatchError, match=r"2 of its 4 videos .*first is id000002/video0020"
    ):
        open_index(fewer, folder)
    assert snapshot(folder) == before


def test_a_damaged_release_leaves_the_old_index(tmp_path: Path, folder: Path) -> None:
    open_index(Release(write_archive(tmp_path / "a.tar", small_release())), folder)
    before = snapshot(folder)
    (tmp_path / "b.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:3000])
    with pytest.raises(ReleaseError, match="damaged"):
        open_index(Release(tmp_path / "b.tar"), folder)
    assert snapshot(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


def test_an_interrupted_reading_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    release = Release(write_archive(tmp_path / "a.tar", small_release()))

    @contextmanager
    def interrupt(
        task: str, *, unit: str, total: int | None = None, done: int = 0
    ) -> Iterator[AdvanceWithNote]:
        def advance(count: int, /, *, note: str = "") -> None:
            del count, note
            raise KeyboardInterrupt("now")

        assert (task, unit, total, done) == ("Reading annotations", "B", 10240, 0)
        yield advance

    with pytest.raises(KeyboardInterrupt, match="now"):
        open_index(release, folder, progress=interrupt)
    assert list(folder.parent.iterdir()) == []


def test_what_a_killed_reading_left_is_replaced(tmp_path: Path, folder: Path) -> None:
    left = folder.with_name("index.new")
    left.mkdir(parents=True)
    (left / "utterances.parquet").write_bytes(b"half")
    release = Release(write_archive(tmp_path / "a.tar", small_release()))
    assert open_index(release, folder).info.videos == 4
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


def test_a_kill_while_the_old_index_goes_away_can_be_continued(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_index(Release(write_archive(tmp_path / "a.tar", small_release())), folder)
    grown = Release(write_archive(tmp_path / "b.tar", small_release(speakers=3)))
    remove = shutil.rmtree

    def remove_half(path: Path, **options: Any) -> None:
        if not (path / "videos.parquet").exists() or path.name.endswith(".new"):
            remove(path, **options)
            return
        (path / "videos.parquet").unlink()
        raise KeyboardInterrupt("killed")

    with monkeypatch.context() as patch:
        patch.setattr("voxblink2_lib.release.index_build.shutil.rmtree", remove_half)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            open_index(grown, folder)
    assert open_index(grown, folder).info.speakers == 3
    assert Index(folder).info.speakers == 3


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 2}', "FORMAT"],
    ids=["empty", "cut", "list", "few", "format"],
)
def test_an_index_that_is_not_ours_is_named(tmp_path: Path, folder: Path, text: str) -> None:
    release = Release(write_archive(tmp_path / "a.tar", small_release()))
    info = json.loads((open_index(release, folder).folder / "index.json").read_text())
    (folder / "index.json").write_text(
        json.dumps({**info, "format": info["format"] + 1}) if text == "FORMAT" else text
    )
    words = r"The index .*index.json is damaged: .* 'voxblink2 repair --store "
    if text == "FORMAT":
        words = r"The index .*index cannot be used: it has format 3, not 2\. Delete"
    with pytest.raises(StoreError, match=words):
        open_index(release, folder)


# -- Keys of a table ------------------------------------------------------------------------------


def test_the_keys_of_a_table_are_a_sequence() -> None:
    videos = [VideoKey("id000001", f"video{index:06}") for index in range(7)]
    speakers, ids = zip(*videos, strict=True)
    table = pa.table({"speaker_id": speakers, "video_id": ids})
    keys = VideoKeys(pa.concat_tables([table.slice(0, 3), table.slice(3)]))
    assert (len(keys), list(keys), list(reversed(keys))) == (7, videos, videos[::-1])
    assert [keys[0], keys[6], keys[-1]] == [videos[0], videos[6], videos[6]]
    assert (keys[2:5], keys[5:99]) == (videos[2:5], videos[5:])
    assert videos[3] in keys
    assert list(VideoKeys(table.slice(0, 0))) == []
    with pytest.raises(IndexError):
        keys[7]
