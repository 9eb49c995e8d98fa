"""The selection as users write it: lists, single ids, files of ids, and the limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.release.selection import Selection, read_ids

SPEAKER, OTHER, VIDEO = "id000001", "id00012", "-bcdefghijk"


def test_none_is_the_empty_set() -> None:
    assert read_ids(None, argument="exclude", kinds="both") == frozenset()


def test_a_list_and_a_single_text() -> None:
    assert read_ids([SPEAKER, OTHER, SPEAKER], argument="speakers", kinds="speakers") == {
        SPEAKER,
        OTHER,
    }
    assert read_ids(VIDEO, argument="videos", kinds="videos") == {VIDEO}


def test_a_file_with_comments(tmp_path: Path) -> None:
    path = tmp_path / "leave out.txt"
    path.write_text(f"# heading id999999\n{SPEAKER} {VIDEO}# why\r\n\n\t{OTHER}\n#\n")
    for name in (path, str(path), [str(path)]):
        assert read_ids(name, argument="exclude", kinds="both") == {SPEAKER, VIDEO, OTHER}


def test_ids_and_files_in_one_list(tmp_path: Path) -> None:
    path = tmp_path / "more.txt"
    path.write_text(OTHER)
    assert read_ids([SPEAKER, str(path)], argument="speakers", kinds="speakers") == {
        SPEAKER,
        OTHER,
    }


def test_a_file_is_taken_apart_once_while_its_ids_are_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(SPEAKER)
    first = read_ids(path, argument="exclude", kinds="both")
    with monkeypatch.context() as patched:
        patched.setattr("voxblink2_lib.release.selection._is_id", None)
        assert read_ids(path, argument="exclude", kinds="both") is first
    # Of another kind it may be wrong, and a file may change at any moment.
    with pytest.raises(SelectionError, match=r"line 1 of .*'id000001', which is not a video id"):
        read_ids(path, argument="videos", kinds="videos")
    path.write_text(OTHER)
    assert read_ids(path, argument="exclude", kinds="both") == {OTHER}


def test_the_lists_of_the_release_select_videos(tmp_path: Path) -> None:
    lists = {
        "spk2videos": f"{SPEAKER} {VIDEO} -aaaaaaaaaa\n{OTHER}\tbbbbbbbbbbb\n",
        "utt_clean.txt": f"{SPEAKER}/{VIDEO}/00001.wav\n{SPEAKER}/-aaaaaaaaaa/00002\n"
        f"{OTHER}/bbbbbbbbbbb/00003\n",
    }
    for name, text in lists.items():
        path = tmp_path / name
        path.write_text(text)
        assert read_ids(path, argument="videos", kinds="videos") == {
            *(VIDEO, "-aaaaaaaaaa", "bbbbbbbbbbb"),
        }
    # Only with videos behind it; and never where speakers are asked for, or both.
    (tmp_path / "speaker").write_text(SPEAKER)
    with pytest.raises(SelectionError, match=r"line 1 of .* which is not a video id"):
        read_ids(tmp_path / "speaker", argument="videos", kinds="videos")
    assert SPEAKER in read_ids(tmp_path / "spk2videos", argument="exclude", kinds="both")
    with pytest.raises(SelectionError, match=r"line 1 of .* which is not a speaker id"):
        read_ids(tmp_path / "spk2videos", argument="speakers", kinds="speakers")


def test_a_file_saved_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(b"\xef\xbb\xbf" + SPEAKER.encode())
    assert read_ids(path, argument="speakers", kinds="speakers") == {SPEAKER}


def test_a_path_is_a_file_even_if_its_name_could_be_an_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("speaker_ids")
    path.write_text(SPEAKER)
    assert read_ids(path, argument="exclude", kinds="both") == {SPEAKER}


@pytest.mark.parametrize("text", ["id000001\n", "../x", "", "no such file", "a\0b", "x" * 5000])
def test_neither_an_id_nor_a_file(text: str) -> None:
    with pytest.raises(
        SelectionError, match=r"^speakers: .* is neither a speaker id nor a readable"
    ):
        read_ids([text], argument="speakers", kinds="speakers")


@pytest.mark.parametrize("name", ["speakers", "videos", "exclude"])
@pytest.mark.parametrize("value", [5, 1.5, True, b"id000001", [None], [5], [["id000001"]]])
def test_what_is_no_list_of_ids(name: str, value: Any) -> None:
    with pytest.raises(SelectionError, match=f"^{name} must be ids or files of ids, got "):
        Selection.of(**{name: value})


def test_a_folder_is_no_file_of_ids(tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match=r"exclude: .* neither a speaker or video id nor"):
        read_ids(tmp_path, argument="exclude", kinds="both")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "ids.bin"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SelectionError, match=r"speakers: .*ids\.bin.* is neither a speaker id"):
        read_ids(path, argument="speakers", kinds="speakers")


def test_the_line_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(f"{SPEAKER}\n\nid1\n")
    with pytest.raises(
        SelectionError, match=r"line 3 of .*ids\.txt has 'id1', which is not a spea"
    ):
        read_ids(path, argument="speakers", kinds="speakers")


def test_the_kind_must_fit(tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match=f"speakers: '{VIDEO}' is neither a speaker id"):
        Selection.of(speakers=[VIDEO])
    with pytest.raises(SelectionError, match=f"videos: '{SPEAKER}' is neither a video id"):
        Selection.of(videos=[SPEAKER])
    path = tmp_path / "ids.txt"
    path.write_text(SPEAKER)
    with pytest.raises(SelectionError, match=f"videos: line 1 .*'{SPEAKER}', which is not a video"):
        Selection.of(videos=path)


def test_a_selection_of_everything_users_write(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(VIDEO)
    assert Selection.of(
        speakers=(SPEAKER,), videos=str(path), exclude=[OTHER], max_videos_per_speaker=2
    ) == Selection(
        speakers=frozenset({SPEAKER}),
        videos=frozenset({VIDEO}),
        exclude=frozenset({OTHER}),
        max_videos_per_speaker=2,
    )
    assert Selection.of() == Selection()


def test_a_list_of_wanted_ids_that_is_empty_does_not_mean_everything(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("# nobody\n")
    with pytest.raises(SelectionError, match=r"^speakers: .*no speaker id"):
        Selection.of(speakers=path)
    with pytest.raises(SelectionError, match=r"^videos: .*no video id"):
        Selection.of(videos=[])
    assert Selection.of(exclude=path) == Selection()


@pytest.mark.parametrize("name", ["max_speakers", "max_videos_per_speaker"])
@pytest.mark.parametrize("limit", [0, -1, 1.5, "3", True])
def test_limits_are_whole_numbers(name: str, limit: Any) -> None:
    with pytest.raises(SelectionError, match=f"{name} must be a whole number of 1 or more, got"):
        Selection(**{name: limit})
