"""Parsing of a source as a user names it, and opening it once per thread."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from voxblink2_lib.errors import SourceError
from voxblink2_lib.sources import Source, SourceSpec, close_sources, open_source, parse_source
from voxblink2_lib.sources.folder import MediaFolder
from voxblink2_lib.sources.options import FetchOptions
from voxblink2_lib.sources.ytdlp import YtDlpSource

# -- Parsing ---------------------------------------------------------------------------------------


def test_youtube_is_the_source_when_none_is_named() -> None:
    assert parse_source(None) == parse_source("youtube")
    assert parse_source(None).kind == "youtube"
    assert parse_source(None).place.startswith("https://www.youtube.com/")
    assert "{video_id}" in parse_source(None).place


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_url_template_is_a_source(scheme: str) -> None:
    named = f"{scheme}://media.example.org/{{video_id}}.m4a"
    assert parse_source(named) == SourceSpec("url", named)


def test_a_folder_is_a_source_wherever_the_program_runs_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "media").mkdir()
    expected = SourceSpec("folder", str(tmp_path / "media"))
    assert parse_source("media") == expected
    assert parse_source("~/media") == expected
    assert parse_source(str(tmp_path / "media")) == expected


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("https://media.example.org/all.m4a", r"contain \{video_id\} in place of the video's id"),
        ("ftp://media.example.org/{video_id}", "must begin with http:// or https://"),
        ("file:///etc/{video_id}", "must begin with http:// or https://"),
        ("/no/such/folder", "nor an existing folder"),
        ("YouTube", "is neither 'youtube'"),
        ("media.example.org/{video_id}", "nor an existing folder"),
    ],
)
def test_anything_else_is_refused_with_a_reason(named: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        parse_source(named)
    assert repr(named) in str(caught.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "media.zip"
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="nor an existing folder"):
        parse_source(str(path))
    with pytest.raises(SourceError, match=r"media\.tar, at byte 0: it has the end of the file"):
        parse_source(str(path.rename(tmp_path / "media.tar")))


@pytest.mark.parametrize("name", ["{video}", "{video_id}/{speaker_id}"])
def test_unknown_fields_of_a_url_are_refused(name: str) -> None:
    with pytest.raises(SourceError, match=r"\{video_id\}"):
        parse_source(f"https://media.example.org/{name}")


def test_options_of_the_network_are_refused_for_a_folder(tmp_path: Path) -> None:
    assert parse_source(str(tmp_path), FetchOptions(fetches=2)).kind == "folder"
    with pytest.raises(SourceError, match="is on this machine; options such as proxy"):
        parse_source(str(tmp_path), FetchOptions(sleep=1.0))


# -- Opening ---------------------------------------------------------------------------------------


def test_a_thread_opens_its_source_once(tmp_path: Path) -> None:
    folder, url = SourceSpec("folder", str(tmp_path)), SourceSpec("url", "http://x/{video_id}")
    assert isinstance(open_source(folder), MediaFolder)
    source = open_source(url)
    assert isinstance(source, YtDlpSource)
    assert open_source(url) is source


@pytest.mark.parametrize("kind", [MediaFolder, YtDlpSource])
def test_a_source_of_video_is_another_one(
    tmp_path: Path, kind: type[MediaFolder] | type[YtDlpSource]
) -> None:
    named = str(tmp_path) if kind is MediaFolder else "http://x/{video_id}"
    spec = parse_source(named)
    source = open_source(spec, with_video=True)
    assert isinstance(source, kind)
    assert open_source(spec, with_video=True) is source
    assert open_source(spec) is not source


def test_an_opened_source_belongs_to_its_thread(tmp_path: Path) -> None:
    spec, sources = SourceSpec("folder", str(tmp_path)), list[Source]()
    thread = threading.Thread(target=lambda: sources.append(open_source(spec)))
    thread.start()
    thread.join()
    assert sources[0] is not open_source(spec)


def test_a_closed_source_is_opened_again(tmp_path: Path) -> None:
    spec = SourceSpec("folder", str(tmp_path))
    source = open_source(spec)
    close_sources()
    assert open_source(spec) is not source
