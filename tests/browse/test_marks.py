"""Marks become a file that exclude reads, outside of the store, and are read again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.browse.marks import SCOPES, Mark, Marks, read_marks
from voxblink2_lib.errors import SelectionError, StoreError
from voxblink2_lib.records import UtteranceKey
from voxblink2_lib.release.selection import Selection

KEY = UtteranceKey("id000002", "-JUT3czS6OI", "00001")
keys = st.builds(
    UtteranceKey,
    st.sampled_from(["id000002", "id00003"]),
    st.sampled_from(["-JUT3czS6OI", "abcdefghijk"]),
    st.sampled_from(["00001", "00002"]),
)
marks = st.lists(st.builds(Mark.of, keys, st.sampled_from(SCOPES), st.text(max_size=30)))


@given(made=marks)
def test_any_marks_are_read_as_they_were_saved(
    tmp_path_factory: pytest.TempPathFactory, made: list[Mark]
) -> None:
    folder = tmp_path_factory.mktemp("marks")
    saved = Marks(folder / "exclude.txt", folder / "store")
    for mark in made:
        saved.add(mark)
    assert saved.is_saved is (not saved.all)
    saved.save()
    assert saved.is_saved
    again = Marks(folder / "exclude.txt", folder / "store")
    assert [(mark.scope, mark.name) for mark in again.all] == [
        (mark.scope, mark.name) for mark in saved.all
    ]
    excluded = Selection.of(exclude=str(folder / "exclude.txt")).exclude
    assert excluded == {mark.name for mark in made if mark.scope != "utterance"}


def test_the_file_reads_like_this(tmp_path: Path) -> None:
    saved = Marks(tmp_path / "exclude.txt", tmp_path / "store")
    saved.add(Mark.of(KEY, "video", " somebody\nelse  speaks "))
    saved.add(Mark.of(KEY, "speaker"))
    saved.add(Mark.of(KEY, "utterance", "a jingle # loud"))
    assert [mark.scope for mark in saved.on(KEY)] == ["utterance", "video", "speaker"]
    saved.save()
    assert (tmp_path / "exclude.txt").read_text("utf-8").splitlines() == [
        "-JUT3czS6OI  # id000002/-JUT3czS6OI/00001: somebody else speaks",
        "id000002  # id000002/-JUT3czS6OI/00001",
        "# utterance id000002/-JUT3czS6OI/00001: a jingle # loud",
    ]
    saved.remove("id000002")
    saved.remove("id000002")
    assert not saved.is_saved
    assert [mark.scope for mark in saved.on(KEY)] == ["utterance", "video"]


def test_what_purity_or_a_user_wrote_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "exclude.txt"
    file.write_text(
        "# of the first run\n\nid000007 abcdefghijk\n-JUT3czS6OI  # 3 of 4 utterances are far\n"
        "# utterance of no name\n",
        encoding="utf-8",
    )
    saved = Marks(file, tmp_path / "store")
    assert saved.is_saved
    saved.add(Mark.of(UtteranceKey("id000003", "abcdefghij0", "00003"), "video"))
    saved.save()
    assert file.read_text("utf-8").splitlines() == [
        "# of the first run",
        "# utterance of no name",
        "id000007",
        "abcdefghijk",
        "-JUT3czS6OI  # 3 of 4 utterances are far",
        "abcdefghij0  # id000003/abcdefghij0/00003",
    ]
    assert len(Selection.of(exclude=file).exclude) == 4
    assert read_marks(tmp_path / "none.txt") == []


def test_nothing_is_written_into_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "link").symlink_to(store)
    for folder in (store, store / "shards", tmp_path / "link"):
        with pytest.raises(SelectionError, match="is in the store, to which nothing is written"):
            Marks(folder / "exclude.txt", store)


def test_files_that_are_of_no_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="is a folder"):
        Marks(tmp_path, tmp_path / "store")
    for data, words in ((b"id000001 nonsense\n", "Line 1 of .* has 'nonsense'"), (b"\xff", "read")):
        (tmp_path / "wrong.txt").write_bytes(data)
        with pytest.raises(SelectionError, match=words):
            Marks(tmp_path / "wrong.txt", tmp_path / "store")
    (tmp_path / "file").touch()
    marks = Marks(tmp_path / "file" / "exclude.txt", tmp_path / "store")
    with pytest.raises(StoreError, match="cannot be written"):
        marks.save()
    with pytest.raises(SelectionError, match="'all' cannot be marked"):
        Mark.of(KEY, "all")


def test_of_a_whole_video_no_utterance_is_marked() -> None:
    video = UtteranceKey(*KEY[:2], "")
    with pytest.raises(SelectionError, match=r"is a whole video\. Mark the video, or choose one"):
        Mark.of(video, "utterance")
    assert Mark.of(video, "video").name == video.video_id
