"""A request: checked where it is made, and made from what users write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.materialize.request import MaterializeRequest, user_options
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources.options import FetchOptions

VIDEO_VALUES = {
    "video_size": 64,
    "video_margin": 0.3,
    "video_shape": "stretched",
    "video_crf": 30,
}


# -- Construction ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["vidio", "video", "", "Audio", None])
def test_every_configuration_is_named(config: Any) -> None:
    with pytest.raises(
        SelectionError, match=f"^config must be audio or audio-visual, got {config!r}\\.$"
    ):
        MaterializeRequest(config=config)


@pytest.mark.parametrize("workers", [0, -2, 1.0, "4", 1025, 10**28])
def test_workers(workers: Any) -> None:
    with pytest.raises(SelectionError, match="workers must be a whole number from 1 to 1024, got"):
        MaterializeRequest(workers=workers)


@pytest.mark.parametrize("name", ["data_dir", "source", "store"])
@pytest.mark.parametrize("value", ["", " ", "a\0b", 5, 1.5, True, b"x", ["a"], {}])
def test_what_is_no_name_is_refused(name: str, value: Any) -> None:
    named: Any = {name: value}
    message = f"{name} must be a text that is not empty, without NUL, got {value!r}."
    with pytest.raises(SelectionError, match=f"^{re.escape(message)}$"):
        MaterializeRequest.of(**named)


def test_a_scratch_folder_needs_a_store_at_a_url() -> None:
    assert MaterializeRequest(store="s3://bucket/x", scratch="/data/x").scratch == "/data/x"
    for store in (None, "/data/store"):
        with pytest.raises(SelectionError, match="scratch would change nothing"):
            MaterializeRequest(store=store, scratch="/data/x")


def test_worker_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MaterializeRequest(workers=3).worker_count == 3
    for cores, workers in {64: 8, 8: 8, 3: 3, 1: 1}.items():
        monkeypatch.setattr("voxblink2_lib.materialize.request.usable_cores", lambda n=cores: n)
        assert MaterializeRequest().worker_count == workers


# -- Options of clips -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audio_format", "vidio"),
        ("video_size", 63),
        ("video_margin", -1),
        ("video_shape", "round"),
        ("video_crf", 52),
        ("video_crf", None),
    ],
)
def test_wrong_options_of_clips_are_refused(name: str, value: Any) -> None:
    with pytest.raises(SelectionError) as refused:
        ClipOptions(**{name: value})
    message = f"^{re.escape(str(refused.value))}$"
    with pytest.raises(SelectionError, match=message):
        MaterializeRequest(config="audio-visual", clips={name: value})
    # A wrong value is reported before an option that would change nothing.
    with pytest.raises(SelectionError, match=message):
        MaterializeRequest(config="audio", clips={name: value})


@pytest.mark.parametrize("name", VIDEO_VALUES)
def test_options_of_faces_are_refused_with_audio_only(name: str) -> None:
    clips = {name: VIDEO_VALUES[name]}
    request = MaterializeRequest(config="audio-visual", clips=clips)
    assert request.clips == clips
    assert request.with_faces
    with pytest.raises(
        SelectionError,
        match=rf"^{name} would change nothing in the configuration 'audio'\. "
        r"Leave it out, or choose 'audio-visual'\.$",
    ):
        MaterializeRequest(clips=clips)


def test_all_options_that_would_change_nothing_are_named() -> None:
    with pytest.raises(SelectionError, match=r"^video_crf, video_size would change nothing in "):
        MaterializeRequest.of(audio_format="wav", video_size=64, video_crf=9)


def test_options_that_are_left_out_are_not_chosen() -> None:
    assert MaterializeRequest().clips == {}
    assert MaterializeRequest.of(config="audio-visual").clips == {}
    assert MaterializeRequest.of(audio_format="opus").clips == {"audio_format": "opus"}
    assert not MaterializeRequest().with_faces


# -- What users write -----------------------------------------------------------------------------


def test_everything_that_users_write_finds_its_field(tmp_path: Path) -> None:
    jar = tmp_path / "jar.txt"
    jar.touch()
    assert MaterializeRequest.of(
        config="audio-visual",
        data_dir=tmp_path,
        source="youtube",
        store=tmp_path / "store",
        workers=3,
        **VIDEO_VALUES,
        speakers=["id000001"],
        exclude="-bcdefghijk",
        max_speakers=5,
        proxy="http://10.0.0.1:8080",
        cookies=jar,
        budget=20,
    ) == MaterializeRequest(
        config="audio-visual",
        data_dir=str(tmp_path),
        source="youtube",
        store=str(tmp_path / "store"),
        workers=3,
        clips=VIDEO_VALUES,
        selection=Selection(
            speakers=frozenset({"id000001"}), exclude=frozenset({"-bcdefghijk"}), max_speakers=5
        ),
        fetch=FetchOptions(proxy=("http://10.0.0.1:8080",), cookies=(str(jar),), budget=20),
    )


def test_nothing_given_means_the_defaults() -> None:
    assert MaterializeRequest.of(**dict.fromkeys(user_options())) == MaterializeRequest()


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="max_speaker"):
        MaterializeRequest.of(max_speaker=3)


def test_every_option_is_declared_once() -> None:
    records = (MaterializeRequest, ClipOptions, Selection, FetchOptions)
    names = [name for record in records for name in record.__dataclass_fields__]
    parts = {"clips", "selection", "fetch"}
    assert [name for name in names if name not in parts] == list(user_options())
