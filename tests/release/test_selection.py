"""Which videos a selection chooses."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.release_builder import small_release, video_id, write_archive

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import Index, video_keys
from voxblink2_lib.release.index_build import build_index
from voxblink2_lib.release.location import Release
from voxblink2_lib.release.selection import Selection, count_selected, select, selected_keys

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


EVERYTHING = [key(speaker, number) for speaker in (1, 2, 3) for number in range(3)]


def test_what_is_selected_is_counted_and_named_without_a_table(index: Index) -> None:
    for selection in (Selection(), Selection(max_videos_per_speaker=1)):
        kept, _ = select(index, selection)
        assert count_selected(index, selection) == len(kept)
        assert [*selected_keys(index, selection)] == [*video_keys(kept)]


def test_everything(index: Index) -> None:
    assert chosen(index, Selection()) == EVERYTHING
    for videos in select(index, Selection()):
        assert videos.column_names == ["speaker_id", "video_id", "digest"]


def test_speakers(index: Index) -> None:
    assert chosen(index, Selection.of(speakers=["id000003", "id000001"])) == [
        video for video in EVERYTHING if video.speaker_id != "id000002"
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
    speakers = [f"id{number:06}" for number in range(100, 200)]
    with pytest.raises(SelectionError, match=r"^100 of the 100 .*id000103, id000104, \.\.\.\. The"):
        select(index, Selection.of(speakers=speakers))


def test_an_empty_selection_is_refused(index: Index) -> None:
    with pytest.raises(SelectionError, match="matches none of the 9 videos of the release"):
        select(index, Selection.of(exclude=SPEAKERS))
