"""Containers whose clock or whose streams mislead: every frame of a clip is still the right one."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.synthetic_audio import MediaCache
from support.synthetic_video import (
    LOSSLESS,
    VideoSpec,
    packets_of_video,
    render,
    run_ffmpeg,
    track,
    video_spec,
)
from support.video_oracle import due_frames, indices_in, read_clips

from voxblink2_lib.media.faces import FaceCut, crop_faces
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.media.video_index import read_frame_times

NTSC = Fraction(30_000, 1001)
SECONDS = 14
TRACKS = tuple(
    track(*ends, (100, 40, 80, 80)) for ends in ((0, 60), (65, 159), (160, 260), (270, 344))
)
# A clock of 33 bits at 90 kHz begins again at zero after 26.5 hours.
WRAP_SECONDS = 2**33 / 90_000
PACK_BYTES = 2048
SMALL = ("-q:v", "4", "-bf", "2")
NO_DELAY = ("-muxdelay", "0", "-muxpreload", "0")


@dataclass(frozen=True)
class Container:
    """A file of the video that identifies its frames, made by FFmpeg's program."""

    name: str
    rate: Fraction
    options: tuple[str, ...]

    @property
    def source(self) -> VideoSpec:
        return video_spec("source.mkv", self.rate, SECONDS, codec="ffv1", options=LOSSLESS)


def h264_ts(name: str, offset_seconds: float, rate: Fraction = Fraction(25)) -> Container:
    offset = ("-output_ts_offset", f"{offset_seconds:.6f}", "-avoid_negative_ts", "disabled")
    return Container(name, rate, ("-c:v", "libx264", "-crf", "12", *NO_DELAY, *offset))


CONTAINERS = (
    # Frames that are smaller than a pack of the stream: some get another's timestamp.
    Container("intra.mpg", Fraction(25), ("-c:v", "mpeg2video", "-q:v", "3")),
    Container("two.mpg", NTSC, ("-c:v", "mpeg2video", *SMALL)),
    Container("one.mpg", Fraction(25), ("-c:v", "mpeg1video", *SMALL)),
    Container("disc.vob", NTSC, ("-f", "vob", "-c:v", "mpeg2video", *SMALL)),
    # FFmpeg takes the average rate from the rounded duration of the file.
    Container("rate.flv", NTSC, ("-c:v", "libx264", "-crf", "12")),
    h264_ts("wraps.ts", WRAP_SECONDS - 6.4),
    h264_ts("wraps-ntsc.ts", WRAP_SECONDS - 6.4, NTSC),
    h264_ts("wraps-between-decoding-and-display.ts", WRAP_SECONDS - 0.01),
    h264_ts("wraps-late.ts", WRAP_SECONDS - 13.9),
    h264_ts("below-zero.ts", -3.0),
    h264_ts("just-below-zero.ts", -0.001),
)
SHARING = CONTAINERS[:4]
by_container = pytest.mark.parametrize("container", CONTAINERS, ids=lambda entry: entry.name)


def encoded(media_cache: MediaCache, container: Container) -> Path:
    source = render(media_cache, container.source)

    inputs = ("-i", str(source), "-f", "lavfi", "-i", f"sine=duration={SECONDS}")

    def encode(path: Path) -> None:
        run_ffmpeg(*inputs, *container.options, str(path))

    return media_cache.keep(container.name, container, encode)


def wrong_frames(result: FaceCut, container: Container) -> list[tuple[int, int]]:
    """Return due and actual index of each frame that is another one than it should be."""
    decoded = read_clips([clip.data for clip in result.clips], size=112)
    wrong = []
    for clip, planes in zip(result.clips, decoded, strict=True):
        due = due_frames(container.source.times, clip.utterance)
        pairs = zip(due, indices_in(planes, near=due), strict=True)
        wrong += [pair for pair in pairs if pair[0] != pair[1]]
    return wrong


@by_container
def test_every_frame_is_the_right_one(media_cache: MediaCache, container: Container) -> None:
    path = encoded(media_cache, container)
    result = crop_faces(path, TRACKS, options=ClipOptions(video_crf=10))
    assert len(result.clips) == len(TRACKS)
    assert wrong_frames(result, container) == []


@by_container
def test_times_are_exact(media_cache: MediaCache, container: Container) -> None:
    times = read_frame_times(encoded(media_cache, container))
    expected = [float(time) for time in container.source.times]
    np.testing.assert_allclose(times.seconds, expected, rtol=0, atol=1e-9)


def test_the_program_streams_of_these_tests_share_timestamps(media_cache: MediaCache) -> None:
    for container in SHARING:
        stamps = [packet.pts for packet in packets_of_video(encoded(media_cache, container))]
        assert len(set(stamps)) < len(stamps), container.name


@pytest.mark.parametrize("container", CONTAINERS[:2], ids=lambda entry: entry.name)
def test_a_damaged_program_stream_gives_no_wrong_frame(
    media_cache: MediaCache, container: Container, tmp_path: Path
) -> None:
    data = encoded(media_cache, container).read_bytes()
    path = tmp_path / container.name
    # Two packs are lost, and with them some frames.
    at = len(data) // 2 // PACK_BYTES * PACK_BYTES
    path.write_bytes(data[:at] + data[at + 2 * PACK_BYTES :])
    result = crop_faces(path, TRACKS, options=ClipOptions(video_crf=10))
    assert len(result.clips) >= len(TRACKS) - 1
    assert wrong_frames(result, container) == []


# -- A still image as first stream -----------------------------------------------------------------


@pytest.mark.parametrize("codec", ["png", "mjpeg"])
def test_a_still_image_as_first_video_stream_is_not_the_video(
    media_cache: MediaCache, codec: str, tmp_path: Path
) -> None:
    film = Container("film.mkv", Fraction(25), ("-c:v", "libx264", "-crf", "12"))
    still, path = tmp_path / "still.mkv", tmp_path / "still-first.mkv"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "color=red:size=320x180", "-frames:v", "1", "-c:v", codec),
        *("-pix_fmt", "yuvj420p" if codec == "mjpeg" else "rgb24", str(still)),
    )
    inputs = ("-i", str(still), "-i", str(encoded(media_cache, film)))
    maps = ("-map", "0:v", "-map", "1:v", "-map", "1:a")
    run_ffmpeg(*inputs, *maps, "-c", "copy", str(path))
    with av.open(str(path)) as container:
        assert [stream.name for stream in container.streams.video] == [codec, "h264"]
    result = crop_faces(path, TRACKS, options=ClipOptions(video_crf=10))
    assert len(result.clips) == len(TRACKS)
    assert wrong_frames(result, film) == []
