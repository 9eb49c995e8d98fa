"""A folder of media that were downloaded before."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.synthetic_audio import DURATION_SECONDS, SPEAKER, VIDEO

from voxblink2_lib.errors import FetchError
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources.folder import MEDIA_EXTENSIONS, VIDEO_EXTENSIONS, MediaFolder

KEY = VideoKey(SPEAKER, VIDEO)


def read_media(source: MediaFolder, tmp: Path) -> bytes:
    with source.fetch(KEY, needed_seconds=DURATION_SECONDS, tmp=tmp) as media:
        assert media.size_bytes == media.path.stat().st_size
        return media.path.read_bytes()


def test_files_are_served_unchanged(tmp_path: Path) -> None:
    (tmp_path / SPEAKER).mkdir()
    path = tmp_path / SPEAKER / f"{VIDEO}.m4a"
    path.write_bytes(b"media")
    assert VIDEO.startswith("-")
    assert read_media(MediaFolder(tmp_path), tmp_path) == b"media"
    assert path.exists()


def test_audio_only_is_preferred(tmp_path: Path) -> None:
    (tmp_path / SPEAKER).mkdir()
    for extension in reversed(MEDIA_EXTENSIONS):
        (tmp_path / SPEAKER / f"{VIDEO}.{extension}").write_bytes(extension.encode())
        assert read_media(MediaFolder(tmp_path), tmp_path) == extension.encode()


@pytest.mark.parametrize("name", [f"{VIDEO}.txt", f"{VIDEO}.m4a.part", f"x{VIDEO}.m4a", VIDEO])
def test_the_message_names_the_missing_file(tmp_path: Path, name: str) -> None:
    (tmp_path / SPEAKER).mkdir()
    (tmp_path / SPEAKER / name).write_bytes(b"")
    message = re.escape(f"no file {SPEAKER}/{VIDEO}.<ext> in {tmp_path} (extensions tried: wav,")
    with pytest.raises(FetchError, match=message):
        read_media(MediaFolder(tmp_path), tmp_path)


def test_a_video_of_another_speaker_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "id000009").mkdir()
    (tmp_path / "id000009" / f"{VIDEO}.m4a").write_bytes(b"media")
    with pytest.raises(FetchError, match=f"no file {SPEAKER}/") as caught:
        read_media(MediaFolder(tmp_path), tmp_path)
    assert caught.value.status == "gone"


def test_with_video_audio_only_is_skipped(tmp_path: Path) -> None:
    (tmp_path / SPEAKER).mkdir()
    source = MediaFolder(tmp_path, with_video=True)
    for extension in MEDIA_EXTENSIONS:
        (tmp_path / SPEAKER / f"{VIDEO}.{extension}").write_bytes(extension.encode())
    for extension in VIDEO_EXTENSIONS:
        assert read_media(source, tmp_path) == extension.encode()
        (tmp_path / SPEAKER / f"{VIDEO}.{extension}").unlink()
    assert list((tmp_path / SPEAKER).iterdir()), "only audio is left"
    with pytest.raises(FetchError, match=f"no file {SPEAKER}/{VIDEO}.<ext> in "):
        read_media(source, tmp_path)
    assert read_media(MediaFolder(tmp_path), tmp_path) == b"wav"


def test_names_in_capitals_are_found(tmp_path: Path) -> None:
    (tmp_path / SPEAKER).mkdir()
    (tmp_path / SPEAKER / f"{VIDEO}.MKV").write_bytes(b"video")
    assert read_media(MediaFolder(tmp_path, with_video=True), tmp_path) == b"video"


@pytest.mark.parametrize("extension", [".wav", ".m4a", ".opus", ".mp4.part", ""])
def test_with_video_the_message_names_the_extensions_tried(tmp_path: Path, extension: str) -> None:
    (tmp_path / SPEAKER).mkdir()
    (tmp_path / SPEAKER / f"{VIDEO}{extension}").write_bytes(b"")
    message = re.escape(
        f"no file {SPEAKER}/{VIDEO}.<ext> in {tmp_path} "
        "(extensions tried: mp4, mkv, mov, m4v, webm, ts, avi, flv, 3gp, mpg)"
    )
    with pytest.raises(FetchError, match=f"^{message}$"):
        read_media(MediaFolder(tmp_path, with_video=True), tmp_path)
