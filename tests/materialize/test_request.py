"""What users write: lists, single ids, files of ids, and the limits."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxblink2_lib.errors import SelectionError, StoreError
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.media.options import ClipOptions
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


def test_wrong_choices_name_the_right_ones() -> None:
    wrong: Any = "vidio"
    with pytest.raises(SelectionError, match=r"no configuration 'vidio'\. Available: audio"):
        MaterializeRequest(config=wrong)
    with pytest.raises(SelectionError, match=r"'vidio' is not supported\. .* flac, wav, opus"):
        MaterializeRequest(audio_format=wrong)


@pytest.mark.parametrize("workers", [0, -2, 1.0, "4"])
def test_workers(workers: Any) -> None:
    with pytest.raises(SelectionError, match="workers must be a whole number of 1 or more"):
        MaterializeRequest(workers=workers)


def test_a_remote_store_is_refused() -> None:
    with pytest.raises(StoreError, match="must be a local folder, got 's3://bucket/x'"):
        MaterializeRequest(store="s3://bucket/x")


def test_worker_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MaterializeRequest(workers=3).worker_count == 3
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert MaterializeRequest().worker_count == 8
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert MaterializeRequest().worker_count == 1


# How clips are made

VIDEO_OPTIONS = ("video_size", "video_margin", "video_shape", "video_crf")
SIZES = r"video_size must be an even number of pixels from 32 to 1024, got {}\."
MARGINS = r"video_margin must be a number from 0 to 2, a part of the box's size, got {}\."
SHAPES = r"video_shape {} is not supported\. Supported shapes are square, stretched\."
CRFS = r"video_crf must be a whole number from 0 \(lossless\) to 51, got {}\."
WRONG: dict[str, tuple[str, tuple[Any, ...]]] = {
    "video_size": (
        SIZES,
        (31, 30, 0, -112, 111, 113, 1025, 1026, 112.0, "112", True, False, float("nan"), (112,)),
    ),
    "video_margin": (
        MARGINS,
        (-0.1, -1, 2.001, 3, float("nan"), float("inf"), -float("inf"), "0.1", True, False, [0.1]),
    ),
    "video_shape": (SHAPES, ("", "Square", "round", "square ", 1, True, ("square",))),
    "video_crf": (
        CRFS,
        (-1, 52, 1000, 20.0, 20.5, float("nan"), "20", True, False, np.float64(20), [20]),
    ),
}
RIGHT: dict[str, tuple[Any, ...]] = {
    "video_size": (32, 34, 112, 1022, 1024),
    "video_margin": (0, 0.0, 1e-9, 0.3, 1, 2, 2.0),
    "video_shape": ("square", "stretched"),
    "video_crf": (0, 1, 20, 51),
}


@pytest.mark.parametrize("name", VIDEO_OPTIONS)
def test_wrong_options_of_clips_name_what_is_allowed(name: str) -> None:
    template, values = WRONG[name]
    for value in values:
        words = f"^{template.format(re.escape(repr(value)))}$"
        with pytest.raises(SelectionError, match=words):
            ClipOptions(**{name: value})
        with pytest.raises(SelectionError, match=words):
            MaterializeRequest(config="audio-visual", **{name: value})
        # What is wrong in itself is said before what would change nothing.
        with pytest.raises(SelectionError, match=words):
            MaterializeRequest(config="audio", **{name: value})


@pytest.mark.parametrize("name", VIDEO_OPTIONS)
def test_right_options_of_clips_are_kept(name: str) -> None:
    for value in RIGHT[name]:
        assert getattr(ClipOptions(**{name: value}), name) == value
        chosen: Any = {name: value}
        config = MaterializeRequest(config="audio-visual", **chosen)
        assert config.clip_options == {name: value}
        assert config.with_faces


@pytest.mark.parametrize("name", VIDEO_OPTIONS)
def test_options_of_faces_are_refused_with_sound_alone(name: str) -> None:
    for value in RIGHT[name]:
        chosen: Any = {name: value}
        with pytest.raises(
            SelectionError,
            match=rf"^{name} would change nothing in the configuration 'audio'\. "
            r"Leave it out, or choose 'audio-visual'\.$",
        ):
            MaterializeRequest(**chosen)


def test_all_options_that_would_change_nothing_are_named() -> None:
    with pytest.raises(SelectionError, match=r"^video_crf, video_size would change nothing in "):
        MaterializeRequest(audio_format="wav", video_size=64, video_crf=9)


def test_options_that_are_left_out_are_not_chosen() -> None:
    assert MaterializeRequest().clip_options == {}
    assert MaterializeRequest(config="audio-visual").clip_options == {}
    assert MaterializeRequest(audio_format="opus").clip_options == {"audio_format": "opus"}
    assert not MaterializeRequest().with_faces


def test_defaults_of_the_design() -> None:
    new = ClipOptions()
    assert (new.audio_format, new.video_size) == ("flac", 112)
    assert (new.video_margin, new.video_shape) == (0.0, "square")


def test_names_of_the_options_of_a_configuration() -> None:
    assert ClipOptions.names("audio") == ("audio_format",)
    assert ClipOptions.names("audio-visual") == ("audio_format", *VIDEO_OPTIONS)
    assert {one.name for one in dataclasses.fields(ClipOptions)} == {
        "audio_format",
        *VIDEO_OPTIONS,
    }


def test_every_configuration_is_named() -> None:
    wrong: Any = "video"
    with pytest.raises(SelectionError, match=r"'video'\. Available: audio, audio-visual\.$"):
        MaterializeRequest(config=wrong)
