"""Selections, jobs, and what a selection asks of a store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.release_builder import small_release, video_id, write_archive

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.materialize.jobs import MAX_VIDEOS_PER_JOB, make_jobs
from voxblink2_lib.materialize.planning import diff_plan
from voxblink2_lib.outcomes import STATUSES
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import Index, VideoKeys, video_keys
from voxblink2_lib.release.index_build import build_index
from voxblink2_lib.release.location import Release
from voxblink2_lib.release.selection import Selection, select

PROPERTY = settings(deadline=None, derandomize=True, max_examples=50)
SPEAKERS = [f"id{number:06}" for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Three speakers with three videos each: id000001/video001000 to id000003/video003002."""
    folder = tmp_path_factory.mktemp("plan")
    files = small_release(speakers=3, videos=3, utterances=1)
    return build_index(Release(write_archive(folder / "a.tar", files)), folder / "index")


def key(speaker: int, number: int) -> VideoKey:
    return VideoKey(f"id{speaker:06}", video_id(1000 * speaker + number))


def chosen(index: Index, selection: Selection) -> list[VideoKey]:
    return list(video_keys(select(index, selection)[0]))


DIGEST = -(2**63)


def table(keys: Iterable[VideoKey]) -> pa.Table:
    rows = list(keys)
    return pa.table(
        {
            "speaker_id": pa.array([row.speaker_id for row in rows], pa.string()),
            "video_id": pa.array([row.video_id for row in rows], pa.string()),
            "digest": pa.array([DIGEST] * len(rows), pa.int64()),
        }
    )


EVERYTHING = [key(speaker, number) for speaker in (1, 2, 3) for number in range(3)]


def test_everything(index: Index) -> None:
    assert chosen(index, Selection()) == EVERYTHING
    for one in select(index, Selection()):
        assert one.column_names == ["speaker_id", "video_id", "digest"]


def test_speakers(index: Index) -> None:
    assert chosen(index, Selection.of(speakers=["id000003", "id000001"])) == [
        one for one in EVERYTHING if one.speaker_id != "id000002"
    ]


def test_videos(index: Index) -> None:
    assert chosen(index, Selection.of(videos=["video003002", "video001001"])) == [
        key(1, 1),
        key(3, 2),
    ]


def test_speakers_and_videos(index: Index) -> None:
    selection = Selection.of(speakers=["id000003"], videos=["video003002"])
    assert chosen(index, selection) == [key(3, 2)]


def test_limits(index: Index) -> None:
    assert chosen(index, Selection(max_speakers=2)) == EVERYTHING[:6]
    assert chosen(index, Selection(max_videos_per_speaker=1)) == EVERYTHING[::3]
    assert chosen(index, Selection(max_speakers=2, max_videos_per_speaker=2)) == [
        key(1, 0),
        key(1, 1),
        key(2, 0),
        key(2, 1),
    ]
    assert chosen(index, Selection(max_speakers=99, max_videos_per_speaker=99)) == EVERYTHING


def test_exclusions_come_before_limits(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "leave out.txt"
    path.write_text("# test speakers\nid000001  # all of this one\nvideo002000\nid999999\n")
    assert chosen(index, Selection.of(exclude=path)) == EVERYTHING[4:]
    assert chosen(index, Selection.of(exclude=path, max_speakers=1)) == EVERYTHING[4:6]
    assert chosen(index, Selection.of(exclude=path, max_videos_per_speaker=1)) == [
        key(2, 1),
        key(3, 0),
    ]


def test_exclusions_in_a_list(index: Index) -> None:
    assert chosen(index, Selection.of(exclude=["id000003", "video001000", "id000002"])) == [
        key(1, 1),
        key(1, 2),
    ]


def test_what_the_user_leaves_out_is_told(index: Index) -> None:
    def left_out(selection: Selection) -> list[VideoKey]:
        return list(video_keys(select(index, selection)[1]))

    assert left_out(Selection()) == []
    assert left_out(Selection.of(exclude=["id000003", "video001000"])) == [
        key(1, 0),
        *(key(3, number) for number in range(3)),
    ]
    # A limit leaves nothing out: what is beyond it was not asked for.
    assert left_out(Selection.of(exclude=["video001000"], max_speakers=1)) == [key(1, 0)]
    assert left_out(Selection(max_videos_per_speaker=1)) == []
    # Nor was what another selection does not name.
    assert left_out(Selection.of(speakers=["id000002"], exclude=["id000003", "video002000"])) == [
        key(2, 0)
    ]


def test_unknown_ids_are_refused_by_name(index: Index) -> None:
    with pytest.raises(
        SelectionError,
        match=r"^2 of the 3 requested speakers are not in the release.*: id000008, id000009\. "
        "The release has 3 speakers",
    ):
        select(index, Selection.of(speakers=["id000009", "id000001", "id000008"]))
    with pytest.raises(
        SelectionError, match=r"^1 of the 1 requested videos .*: video00900a\. The release"
    ):
        select(index, Selection.of(videos="video00900a"))


def test_a_video_of_another_speaker_is_refused(index: Index) -> None:
    with pytest.raises(SelectionError, match=r"not in the rest of the selection.*: video002000"):
        select(index, Selection.of(speakers="id000001", videos="video002000"))


def test_many_unknown_ids_are_cut_short(index: Index) -> None:
    wanted = [f"id{number:06}" for number in range(100, 200)]
    with pytest.raises(SelectionError, match=r"^100 of the 100 .*id000103, id000104, \.\.\.\. The"):
        select(index, Selection.of(speakers=wanted))


def test_an_empty_selection_is_refused(index: Index) -> None:
    with pytest.raises(SelectionError, match="matches none of the release's 9 videos"):
        select(index, Selection.of(exclude=SPEAKERS))


# -- jobs -------------------------------------------------------------------------------------


def keys(count: int) -> list[VideoKey]:
    return [VideoKey(f"id{number // 100:06}", video_id(number)) for number in range(count)]


@PROPERTY
@given(count=st.one_of(st.integers(0, 200), st.integers(0, 40_000)))
def test_jobs_are_a_partition_in_order(count: int) -> None:
    videos = keys(count)
    jobs = [list(job) for job in make_jobs(videos)]
    assert [one for job in jobs for one in job] == videos
    assert all(1 <= len(job) <= MAX_VIDEOS_PER_JOB == 1024 for job in jobs)
    assert len({len(job) for job in jobs[:-1]}) <= 1
    if count >= 2:
        assert len(jobs) > 1
    if count >= 1024:
        assert len(jobs) >= 32


def test_jobs_may_be_read_late() -> None:
    jobs = list(make_jobs(keys(70)))
    assert [one for job in reversed(jobs) for one in job] != keys(70)
    assert [one for job in make_jobs(keys(70)) for one in job] == keys(70)


def test_the_keys_of_a_table_are_a_sequence() -> None:
    videos = keys(7)
    pieces = pa.concat_tables([table(videos).slice(0, 3), table(videos).slice(3)])
    found = VideoKeys(pieces)
    assert (len(found), list(found), list(reversed(found))) == (7, videos, videos[::-1])
    assert (found[0], found[6], found[-1], found[2:5]) == (
        *(videos[n] for n in (0, 6, 6)),
        videos[2:5],
    )
    assert (found[5:99], videos[3] in found, list(VideoKeys(table([])))) == (videos[5:], True, [])
    assert [list(job) for job in make_jobs(found)] == [list(job) for job in make_jobs(videos)]
    with pytest.raises(IndexError):
        found[7]


# -- what a selection asks of a store ---------------------------------------------------------


A, B, C, D = (VideoKey("id000001", f"{letter * 11}") for letter in "abcd")


def known(*rows: tuple[VideoKey, str], digest: int = DIGEST) -> pa.Table:
    return pa.table(
        {
            "speaker_id": pa.array([row[0].speaker_id for row in rows], pa.string()),
            "video_id": pa.array([row[0].video_id for row in rows], pa.string()),
            "status": pa.array([row[1] for row in rows], pa.string()),
            "digest": pa.array([digest] * len(rows), pa.int64()),
        }
    )


def answer(
    selected: Iterable[VideoKey], ledger: pa.Table
) -> tuple[list[VideoKey], list[VideoKey], list[VideoKey]]:
    changes = diff_plan(table(selected), ledger)
    return (
        list(video_keys(changes.new)),
        list(video_keys(changes.unwanted)),
        list(video_keys(changes.outside)),
    )


def test_done_videos_that_are_annotated_otherwise_now_are_changed() -> None:
    rows = [(A, "done"), (B, "gone"), (C, "planned")]
    changes = diff_plan(table([A, B, C]), known(*rows, digest=DIGEST + 1))
    assert list(video_keys(changes.changed)) == [A]
    assert not len(diff_plan(table([A, B, C]), known(*rows)).changed)


def test_an_empty_store_needs_everything() -> None:
    assert answer([A, B, C], known()) == ([A, B, C], [], [])


def test_growth() -> None:
    assert answer([A, B, C, D], known((B, "done"), (A, "done"))) == ([C, D], [], [])


# A ledger has planned videos and those of every class but what the user leaves out.
KNOWN = ["planned", *(one for one in STATUSES if one != "excluded")]


@pytest.mark.parametrize("status", KNOWN)
def test_videos_that_are_known_are_not_new(status: str) -> None:
    """Whether one is asked for again is its outcome's to say, and not the selection's."""
    assert answer([A], known((A, status))) == ([], [], [])


@pytest.mark.parametrize("status", [one for one in KNOWN if one != "done"])
def test_unwanted(status: str) -> None:
    assert answer([B], known((A, status), (B, "done"))) == ([], [A], [])


def test_outside() -> None:
    assert answer([B], known((A, "done"))) == ([B], [], [A])


def test_the_speaker_counts_as_well() -> None:
    twin = VideoKey("id000002", A.video_id)
    assert answer([twin], known((A, "planned"))) == ([twin], [A], [])


@PROPERTY
@given(
    selected=st.sets(st.sampled_from([A, B, C, D])),
    ledger=st.dictionaries(st.sampled_from([A, B, C, D]), st.sampled_from(KNOWN)),
)
def test_every_video_has_one_place(selected: set[VideoKey], ledger: dict[VideoKey, str]) -> None:
    new, unwanted, outside = answer(selected, known(*ledger.items()))
    assert set(new) == selected - set(ledger)
    assert set(unwanted) | set(outside) == set(ledger) - selected
    assert all(ledger[one] == "done" for one in outside)
    assert not any(ledger[one] == "done" for one in unwanted)
