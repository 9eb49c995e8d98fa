"""Time zero of media files, and which holes their audio has."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.synthetic_audio import (
    AAC,
    FASTSTART,
    H264,
    MP4,
    WAV,
    WEBM,
    MediaCache,
    MediaSpec,
    drop_audio,
)

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.audio_decoder import decode_audio
from voxblink2_lib.media.clock import Clock, unstated_delay_samples
from voxblink2_lib.media.coverage import covered_seconds
from voxblink2_lib.media.video_index import read_frame_times

OLD, NEW, OTHER = "Lavf59.27.100", "Lavf62.12.102", "libebml v1.4.4 + libmatroska v1.7.1"


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
    ("clock", "first_sample_seconds", "origin_seconds"),
    [
        (Clock(0.0), 0.0, 0.0),
        (Clock(0.0), 0.5, 0.0),
        (Clock(0.48), 0.0, 0.48),
        (Clock(1.42, is_free=True), 1.4, 1.42),
        (Clock(-6.4, is_free=True), -6.42, -6.4),
        (Clock(), 0.0, 0.0),
        (Clock(), 0.025, 0.025),
        (Clock(), 0.1, 0.1),
        (Clock(), 0.5, 0.0),
        (Clock(is_free=True), 1.4, 1.4),
    ],
)
def test_origin(clock: Clock, first_sample_seconds: float, origin_seconds: float) -> None:
    origin = clock.origin_seconds(first_sample_seconds, first_sample_seconds, frame_seconds=0.0)
    assert origin == pytest.approx(origin_seconds)


@pytest.mark.parametrize(
    ("muxer", "video_start", "first_packet", "origin"),
    [
        # FFmpeg up to 5 moved the video by the delay of the audio that it encoded.
        (OLD, 0.007, -0.007, 0.0),
        (OLD, 1.007, -0.007, 1.0),
        # It did not where it copied the audio; nor do newer versions, nor other muxers.
        (OLD, 0.0, -0.007, 0.0),
        (OLD, 0.08, -0.007, 0.08),
        (NEW, 0.007, -0.007, 0.007),
        (NEW, 1.007, -0.007, 1.007),
        (OTHER, 0.007, -0.007, 0.007),
        ("", 0.007, -0.007, 0.007),
        # Neither time is one of the video's frames: the time stamps count.
        (OLD, 0.5, -0.007, 0.5),
        # AAC has no stated delay; both streams move by one frame, which the clock rounds.
        (OLD, 0.023, 0.0, 1024 / 44_100),
        (NEW, 0.023, 0.0, 1024 / 44_100),
        (NEW, 0.040, 0.0, 0.040),
    ],
)
def test_the_video_of_matroska_starts_where_its_muxer_put_it(
    muxer: str, video_start: float, first_packet: float, origin: float
) -> None:
    clock = Clock(video_start, False, 0.001, muxer, frame_period_seconds=0.04)
    frame = 1024 / 44_100
    assert clock.origin_seconds(first_packet, 0.0, frame_seconds=frame) == pytest.approx(origin)


@pytest.mark.parametrize(
    ("codec", "profile", "stated", "unstated"),
    [
        ("aac", "HE-AAC", 2048, 3010),
        ("aac", "HE-AACv2", 3072, 4034),
        ("aac", "HE-AAC", 5058, 0),  # the whole delay
        ("aac", "HE-AAC", 0, 0),
        ("aac", "LC", 1024, 0),
        ("opus", None, 312, 0),
    ],
)
def test_delays_of_he_aac_are_completed(
    codec: str, profile: str | None, stated: int, unstated: int
) -> None:
    assert unstated_delay_samples(codec, profile, stated) == unstated


TS = MediaSpec("video.ts", 44_100, 1, "25", (*AAC, *H264))
MKV = MediaSpec("video.mkv", 44_100, 1, "25", (*AAC, *H264))


@pytest.mark.parametrize(
    "spec",
    [
        MP4,
        WEBM,
        WAV,
        TS,
        MKV,
        MediaSpec("audio.mka", 44_100, 1, "", AAC),
        MediaSpec("audio.mp3", 44_100, 1, "", ("-c:a", "libmp3lame")),
    ],
    ids=lambda spec: spec.name,
)
def test_media_without_gaps_are_one_piece_up_to_their_end(
    media_cache: MediaCache, spec: MediaSpec
) -> None:
    path = media_cache.make(spec)
    ((start, stop),) = decode_audio(path, end_seconds=60).covered
    assert start == 0
    assert stop / 16_000 == pytest.approx(12, abs=0.06)
    assert covered_seconds(path, audio=True, video=False) == pytest.approx(12, abs=0.06)


@pytest.mark.parametrize("spec", [MP4, WEBM, TS, MKV], ids=lambda spec: spec.name)
def test_gaps_are_left_out(media_cache: MediaCache, spec: MediaSpec, tmp_path: Path) -> None:
    path = tmp_path / spec.name
    drop_audio(media_cache.make(spec), path, from_seconds=5, to_seconds=5.2)
    (first, last) = decode_audio(path, end_seconds=60).covered
    assert first[1] / 16_000 == pytest.approx(5, abs=0.06)
    assert last[0] / 16_000 == pytest.approx(5.2, abs=0.06)


def test_coverage_is_that_of_all_streams_that_are_needed(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    # The index lists one minute; the file ends early.
    spec = MediaSpec("long.mp4", 16_000, 1, "5", (*AAC, *H264, *FASTSTART), duration_seconds=60)
    data = media_cache.make(spec).read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(data[: len(data) // 2])
    audio = covered_seconds(path, audio=True, video=False)
    video = covered_seconds(path, audio=False, video=True)
    assert 20 < audio < 40
    assert video == read_frame_times(path).end_seconds
    assert covered_seconds(path, audio=True, video=True) == min(audio, video)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the media file is empty"),
        (b"not media", "the media file cannot be read: Invalid data found when processing input"),
        (
            b"ffconcat version 1.0\nfile media\n",
            r"Invalid argument \(damaged, or no audio or video, as",
        ),
    ],
)
def test_a_file_that_is_not_media_is_reported(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "media"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=message):
        decode_audio(path, end_seconds=1)
    assert covered_seconds(path, audio=True, video=False) == 0
