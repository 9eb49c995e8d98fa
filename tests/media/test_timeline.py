"""Time zero of media files, and how far their audio reaches."""

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
    drop_audio,
)

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.timeline import Timeline, read_timeline


def make_timeline(
    audio_start_seconds: float, video_start_seconds: float | None, *, free_clock: bool = False
) -> Timeline:
    return Timeline(audio_start_seconds, video_start_seconds, free_clock, 60.0, True)


# The container's clock runs to the right; O is where the video starts, f the first sample.
#
#  with video     O=first frame             the video decides, wherever the audio is
#                 |####|####
#              f..|....                     (the encoder's delay was not dropped: audio before O)
#                    f...                   (the audio begins late)
#
#  audio only     0   f                     f within 0.1 s of zero: the decoder has dropped the
#                 |   O...                  encoder's delay, or the clock is a little off
#
#                 0           f             f later than that: the audio really begins late
#                 O           |...
#
#  free clock     0           f             the clock's zero means nothing (MPEG-TS)
#                 |           O...
@pytest.mark.parametrize(
    ("timeline", "first_sample_seconds", "origin_seconds"),
    [
        (make_timeline(0.0, 0.0), 0.0, 0.0),
        (make_timeline(-0.023, 0.0), 0.0, 0.0),
        (make_timeline(0.477, 0.0), 0.5, 0.0),
        (make_timeline(0.0, 0.48), 0.0, 0.48),
        (make_timeline(1.4, 1.42, free_clock=True), 1.4, 1.42),
        (make_timeline(0.0, None), 0.0, 0.0),
        (make_timeline(-0.007, None), 0.0, 0.0),
        (make_timeline(0.025, None), 0.025, 0.025),
        (make_timeline(0.1, None), 0.1, 0.1),
        (make_timeline(0.5, None), 0.5, 0.0),
        (make_timeline(1.4, None, free_clock=True), 1.4, 1.4),
    ],
)
def test_origin(timeline: Timeline, first_sample_seconds: float, origin_seconds: float) -> None:
    assert timeline.origin_seconds(first_sample_seconds) == pytest.approx(origin_seconds)


@pytest.mark.parametrize(
    ("spec", "free_clock", "origin_seconds", "tolerance_seconds"),
    [
        (MP4, False, 0.0, 0.0),
        # FFmpeg's muxers shift the video by the audio encoder's delay, to keep times positive.
        (MediaSpec("video.ts", 44_100, 1, "25", (*AAC, *H264)), True, 1.4 + 1024 / 44_100, 2e-5),
        (MediaSpec("video.mkv", 44_100, 1, "25", (*AAC, *H264)), False, 1024 / 44_100, 5e-4),
        # Opus in Matroska: shifted as well, but the demuxer shifts the audio back, and only that.
        (MediaSpec("vp9.webm", 48_000, 2, "30000/1001", (*OPUS, *VP9)), False, 0.0, 1e-3),
        (WEBM, False, 0.0, 0.0),
        (WAV, False, 0.0, 0.0),
    ],
    ids=lambda value: value.name if isinstance(value, MediaSpec) else "",
)
def test_origin_of_real_media(
    media_cache: MediaCache,
    spec: MediaSpec,
    free_clock: bool,
    origin_seconds: float,
    tolerance_seconds: float,
) -> None:
    timeline = read_timeline(media_cache.make(spec))
    assert timeline.free_clock == free_clock
    assert timeline.contiguous
    origin = timeline.origin_seconds(max(0.0, timeline.audio_start_seconds))
    assert origin == pytest.approx(origin_seconds, abs=tolerance_seconds + 1e-9)
    assert (timeline.video_start_seconds is None) == (not spec.fps)


@pytest.mark.parametrize(
    "spec",
    [
        MP4,
        WEBM,
        WAV,
        MediaSpec("video.ts", 44_100, 1, "25", (*AAC, *H264)),
        # Its first packet states no duration.
        MediaSpec("audio.mka", 44_100, 1, "", AAC),
        MediaSpec("audio.mp3", 44_100, 1, "", ("-c:a", "libmp3lame")),
    ],
    ids=lambda spec: spec.name,
)
def test_media_without_gaps_are_contiguous_up_to_their_end(
    media_cache: MediaCache, spec: MediaSpec
) -> None:
    timeline = read_timeline(media_cache.make(spec))
    assert timeline.contiguous
    start_seconds = max(0.0, timeline.audio_start_seconds)
    assert timeline.end_seconds - start_seconds == pytest.approx(12, abs=0.05)


@pytest.mark.parametrize("name", ["plain.mp4", "gap.ts", "gap.mkv", "plain.webm"])
def test_gaps_are_detected(media_cache: MediaCache, name: str, tmp_path: Path) -> None:
    specs = (
        MP4,
        WEBM,
        MediaSpec("gap.ts", 44_100, 1, "25", (*AAC, *H264)),
        MediaSpec("gap.mkv", 44_100, 1, "25", (*AAC, *H264)),
    )
    (spec,) = (spec for spec in specs if spec.name == name)
    path = tmp_path / name
    drop_audio(media_cache.make(spec), path, from_seconds=5, to_seconds=5.2)
    assert not read_timeline(path).contiguous


def test_only_the_requested_part_is_read(media_cache: MediaCache) -> None:
    timeline = read_timeline(media_cache.make(MP4), until_seconds=3)
    assert 3 < timeline.end_seconds < 3.1


def test_a_truncated_file_ends_early(media_cache: MediaCache, tmp_path: Path) -> None:
    # The index lists one minute; the file ends early.
    spec = MediaSpec("long.mp4", 16_000, 1, "5", (*AAC, *H264, *FASTSTART), duration_seconds=60)
    data = media_cache.make(spec).read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(data[: len(data) // 2])
    assert 20 < read_timeline(path).end_seconds < 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the media file is empty"),
        (b"not media", "the media file cannot be read: Invalid data found when processing input"),
    ],
)
def test_a_file_that_is_not_media_is_reported(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "media"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=message):
        read_timeline(path)
