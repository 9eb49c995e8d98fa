"""Where time zero lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.synthetic_audio import (
    AAC,
    FASTSTART,
    H264,
    MP4,
    OPUS,
    VP9,
    WAV,
    WEBM,
    MediaCache,
    MediaSpec,
    drop_sound,
)

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.timeline import Timeline, read_timeline


def timeline(
    audio_start_seconds: float, video_start_seconds: float | None, *, free_clock: bool = False
) -> Timeline:
    return Timeline(audio_start_seconds, video_start_seconds, free_clock, 60.0, True)


# The container's clock runs to the right; O is where the video starts, f the first sample.
#
#  a picture      O=picture                 the picture decides, wherever the sound is
#                 |####|####
#              f..|....                     (the encoder's delay was not dropped: sound before O)
#                    f...                   (the sound begins late)
#
#  sound alone    0   f                     f within 0.1 s of zero: the decoder has dropped the
#                 |   O...                  encoder's delay, or the clock is a little off
#
#                 0           f             f later than that: the sound really begins late
#                 O           |...
#
#  free clock     0           f             the clock's zero means nothing (MPEG-TS)
#                 |           O...
@pytest.mark.parametrize(
    ("about", "first_sample_seconds", "origin_seconds"),
    [
        (timeline(0.0, 0.0), 0.0, 0.0),
        (timeline(-0.023, 0.0), 0.0, 0.0),
        (timeline(0.477, 0.0), 0.5, 0.0),
        (timeline(0.0, 0.48), 0.0, 0.48),
        (timeline(1.4, 1.42, free_clock=True), 1.4, 1.42),
        (timeline(0.0, None), 0.0, 0.0),
        (timeline(-0.007, None), 0.0, 0.0),
        (timeline(0.025, None), 0.025, 0.025),
        (timeline(0.1, None), 0.1, 0.1),
        (timeline(0.5, None), 0.5, 0.0),
        (timeline(1.4, None, free_clock=True), 1.4, 1.4),
    ],
)
def test_origin(about: Timeline, first_sample_seconds: float, origin_seconds: float) -> None:
    assert about.origin_seconds(first_sample_seconds) == pytest.approx(origin_seconds)


@pytest.mark.parametrize(
    ("recipe", "free_clock", "origin_seconds", "tolerance_seconds"),
    [
        (MP4, False, 0.0, 0.0),
        # FFmpeg's muxers shift the pictures by the sound encoder's delay, to keep times positive.
        (MediaSpec("picture.ts", 44_100, 1, "25", (*AAC, *H264)), True, 1.4 + 1024 / 44_100, 2e-5),
        (MediaSpec("picture.mkv", 44_100, 1, "25", (*AAC, *H264)), False, 1024 / 44_100, 5e-4),
        # Opus in Matroska: shifted as well, but the demuxer shifts the sound back, and only that.
        (MediaSpec("vp9.webm", 48_000, 2, "30000/1001", (*OPUS, *VP9)), False, 0.0, 1e-3),
        (WEBM, False, 0.0, 0.0),
        (WAV, False, 0.0, 0.0),
    ],
    ids=lambda value: value.name if isinstance(value, MediaSpec) else "",
)
def test_origin_of_real_media(
    studio: MediaCache,
    recipe: MediaSpec,
    free_clock: bool,
    origin_seconds: float,
    tolerance_seconds: float,
) -> None:
    found = read_timeline(studio.make(recipe))
    assert found.free_clock == free_clock
    assert found.contiguous
    origin = found.origin_seconds(max(0.0, found.audio_start_seconds))
    assert origin == pytest.approx(origin_seconds, abs=tolerance_seconds + 1e-9)
    assert (found.video_start_seconds is None) == (not recipe.picture_rate)


@pytest.mark.parametrize(
    "recipe",
    [
        MP4,
        WEBM,
        WAV,
        MediaSpec("picture.ts", 44_100, 1, "25", (*AAC, *H264)),
        # Its first packet does not say how long it is.
        MediaSpec("sound.mka", 44_100, 1, "", AAC),
        MediaSpec("sound.mp3", 44_100, 1, "", ("-c:a", "libmp3lame")),
    ],
    ids=lambda recipe: recipe.name,
)
def test_media_without_holes_are_contiguous_up_to_their_end(
    studio: MediaCache, recipe: MediaSpec
) -> None:
    found = read_timeline(studio.make(recipe))
    assert found.contiguous
    assert found.end_seconds - max(0.0, found.audio_start_seconds) == pytest.approx(12, abs=0.05)


@pytest.mark.parametrize("name", ["plain.mp4", "hole.ts", "hole.mkv", "plain.webm"])
def test_holes_are_seen(studio: MediaCache, name: str, tmp_path: Path) -> None:
    recipes = (
        MP4,
        WEBM,
        MediaSpec("hole.ts", 44_100, 1, "25", (*AAC, *H264)),
        MediaSpec("hole.mkv", 44_100, 1, "25", (*AAC, *H264)),
    )
    (recipe,) = (one for one in recipes if one.name == name)
    path = tmp_path / name
    drop_sound(studio.make(recipe), path, from_seconds=5, to_seconds=5.2)
    assert not read_timeline(path).contiguous


def test_only_the_asked_part_is_read(studio: MediaCache) -> None:
    found = read_timeline(studio.make(MP4), until_seconds=3)
    assert 3 < found.end_seconds < 3.1


def test_what_was_cut_off_does_not_count(studio: MediaCache, tmp_path: Path) -> None:
    # One minute is announced by the index; the file ends early.
    recipe = MediaSpec("long.mp4", 16_000, 1, "5", (*AAC, *H264, *FASTSTART), duration_seconds=60)
    data = studio.make(recipe).read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(data[: len(data) // 2])
    assert 20 < read_timeline(path).end_seconds < 40


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the media file is empty"),
        (b"not media", "the media file cannot be read: Invalid data found when processing input"),
    ],
)
def test_no_media(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "media"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=words):
        read_timeline(path)
