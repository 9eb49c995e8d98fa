"""Every face clip is the right part of the right frames, or is missing with a reason."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from support.synthetic_audio import M4A, MediaCache, measure_delay, samples_of
from support.synthetic_video import (
    H264,
    LOSSLESS,
    MATRICES,
    PLAIN,
    UNSTEADY,
    VP9,
    Box,
    Matrix,
    Planes,
    VideoSpec,
    corrupt,
    corrupt_noticeably,
    is_noticed,
    packets_of_video,
    render,
    render_with_hidden,
    run_ffmpeg,
    track,
    video_spec,
    write_with_matrix,
    x264_options,
)
from support.video_oracle import (
    displayed_by,
    due_frames,
    edges_in,
    expected_edges,
    indices_in,
    read_clips,
    read_video,
)

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media import faces, video_decoder
from voxblink2_lib.media.audio import crop_audio
from voxblink2_lib.media.faces import FaceCut, crop_faces
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import SAMPLE_RATE_HZ, FaceTrack, Utterance, WindowShape

NTSC = Fraction(30_000, 1001)
AAC: dict[str, Any] = {"audio": "aac"}
OPUS: dict[str, Any] = {"audio": "libopus"}
LATE: dict[str, Any] = {"audio": "aac", "late": Fraction(12, 25)}


def moving(frame: int) -> Box:
    """Return a box that moves, grows and shrinks; with a margin it stays inside the frame."""
    width, height = 60 + frame % 40, 50 + 3 * frame % 50
    return 100 + 2 * frame % 120 - width // 2, 85 + frame % 10 - height // 2, width, height


# At the start, overlapping, and up to the end.
TRACKS = tuple(track(*ends, moving) for ends in ((0, 24), (40, 74), (60, 99), (160, 187)))


def crop(
    path: Path, tracks: Sequence[FaceTrack], *, reference_height: int = 0, **options: Any
) -> FaceCut:
    fine = ClipOptions(**{"video_size": 112, "video_crf": 12, **options})
    return crop_faces(path, tracks, options=fine, reference_height=reference_height)


def ids(tracks: Sequence[FaceTrack]) -> list[str]:
    return [track.utterance.utterance_id for track in tracks]


def names(result: FaceCut) -> tuple[list[str], list[str]]:
    """Return the names of the clips, and of the missing utterances."""
    clips = [clip.utterance.utterance_id for clip in result.clips]
    return clips, [missing.utterance_id for missing in result.missing]


def assert_frames(
    result: FaceCut, times: Sequence[Fraction], *, size: int = 112, skipped: int = 0
) -> list[Planes]:
    """Check that every frame of every clip is the right one; return all of them.

    Args:
        result: the clips.
        times: display time of each frame of the file.
        size: of the clips.
        skipped: how many frames of the synthetic video precede the first of the file.
    """
    frames_of_clips = read_clips([clip.data for clip in result.clips], size=size)
    for clip, planes in zip(result.clips, frames_of_clips, strict=True):
        due = [index + skipped for index in due_frames(times, clip.utterance)]
        assert len(planes) == len(due)
        assert indices_in(planes, near=due) == due, clip.utterance.name
    return frames_of_clips


def assert_shows(
    result: FaceCut,
    spec: VideoSpec,
    *,
    size: int = 112,
    margin: Fraction = Fraction(0),
    square: bool = True,
    scales: Sequence[tuple[Fraction, Fraction]] = (),
) -> None:
    """Check which frame each frame of a clip is, and its window, to two pixels."""
    frames_of_clips = assert_frames(result, spec.times, size=size)
    scales = scales or [(Fraction(1), Fraction(1))] * len(frames_of_clips)
    for clip, planes, scale in zip(result.clips, frames_of_clips, scales, strict=True):
        expected = [
            expected_edges(box, scale=scale, margin=margin, square=square) for box in clip.boxes
        ]
        edges = list(edges_in(planes, spec.size))
        np.testing.assert_allclose(edges, np.array(expected, np.float64), rtol=0, atol=2)


# -- The right part of the right frame -------------------------------------------------------------


MAIN = (
    video_spec("25.mp4", 25, **AAC),
    video_spec("30.mp4", 30, **AAC),
    video_spec("ntsc.webm", NTSC, codec="libvpx-vp9", options=VP9, **OPUS),
    VideoSpec("unsteady.mp4", UNSTEADY, Fraction(1, 1000), **AAC),
)


@pytest.mark.parametrize("margin", [0, 0.25])
@pytest.mark.parametrize("shape", ["square", "stretched"])
@pytest.mark.parametrize("spec", MAIN, ids=lambda spec: spec.name)
def test_every_frame_is_the_right_part_of_the_right_one(
    media_cache: MediaCache, spec: VideoSpec, shape: WindowShape, margin: float
) -> None:
    result = crop(render(media_cache, spec), TRACKS, video_shape=shape, video_margin=margin)
    assert [clip.utterance for clip in result.clips] == [track.utterance for track in TRACKS]
    assert result.missing == ()
    assert_shows(result, spec, margin=Fraction(margin), square=shape == "square")
    for clip, face_track in zip(result.clips, TRACKS, strict=True):
        assert clip.boxes.tolist() == face_track.boxes.tolist()
        assert clip.boxes_fit


MPEG2 = (("b", "3M"), ("bf", "2"), ("g", "12"))
X265 = (("x265-params", "crf=6:bframes=3:keyint=50:open-gop=1:log-level=none:pools=none"),)
JPEG = (("qmin", "1"), ("qmax", "2"))
RATES = {
    "23.976.mp4": Fraction(24_000, 1001),
    "50.mp4": Fraction(50),
    "60.mkv": Fraction(60),
    "59.94.ts": Fraction(60_000, 1001),
    "10.mp4": Fraction(10),
    # Every other frame, or every third, is exactly between two video frames.
    "12.5.mp4": Fraction(25, 2),
    "12.5.mkv": Fraction(25, 2),
    "37.5.mkv": Fraction(75, 2),
}
SPOT = (
    *(video_spec(name, rate, 5) for name, rate in RATES.items()),
    video_spec("25.mkv", 25, 5, **AAC),
    video_spec("30.mkv", 30, 5, **OPUS),
    video_spec("ntsc.ts", NTSC, 5, **AAC),
    video_spec("mpeg4.avi", 25, 5, codec="mpeg4", options=MPEG2),
    video_spec("h264.avi", 30, 5, options=(*H264[:3], ("bf", "0"))),
    video_spec("mpeg2.mpg", 25, 5, codec="mpeg2video", options=MPEG2),
    video_spec("25.flv", 25, 5),
    video_spec("25.mov", 25, 5, codec="mjpeg", pix_fmt="yuvj420p", options=JPEG),
    video_spec(
        "vp8.webm", 30, 5, codec="libvpx", options=(("b", "4M"), ("qmax", "10"), ("g", "50"))
    ),
    video_spec("hevc.mp4", 30, 5, codec="libx265", options=(("preset", "ultrafast"), *X265)),
    video_spec("late.mp4", 25, 5, **LATE),
    video_spec("late.mkv", 25, 5, **LATE),
    video_spec("late.ts", 25, 5, **LATE),
    VideoSpec("unsteady.mkv", UNSTEADY[:140], Fraction(1, 1000), **AAC),
    VideoSpec("unsteady.ts", UNSTEADY[:140], Fraction(1, 1000)),
)


@pytest.mark.parametrize("spec", SPOT, ids=lambda spec: spec.name)
def test_every_rate_and_container_gives_the_right_frames(
    media_cache: MediaCache, spec: VideoSpec
) -> None:
    result = crop(render(media_cache, spec), TRACKS[1:3], video_crf=10)
    assert names(result) == (ids(TRACKS[1:3]), [])
    assert_shows(result, spec)


def test_hidden_frames_are_not_expected(media_cache: MediaCache) -> None:
    # Their timestamps are the nearest to some frames.
    path = render_with_hidden(media_cache, PLAIN, clock="1/1000")
    tracks = [track(first, first + 24, (20, 10, 32, 32)) for first in range(0, 100, 25)]
    result = crop(path, tracks, video_size=32, video_crf=0)
    assert names(result) == (ids(tracks), [])
    assert_same_pixels(result, read_video(path, PLAIN.size), PLAIN.times)


@pytest.mark.parametrize("first", [75, 88])
def test_what_an_edit_list_hides_does_not_count(
    media_cache: MediaCache, first: int, tmp_path: Path
) -> None:
    spec, path = MAIN[0], tmp_path / "edited.mp4"
    start = spec.times[first]
    cut_off = ("-ss", str(float(start)), "-i", str(render(media_cache, spec)), "-c", "copy")
    run_ffmpeg(*cut_off, str(path))
    # Decoding begins with a keyframe before that, which is not displayed.
    assert len(packets_of_video(path)) > len(spec.times) - first
    result = crop(path, TRACKS[:3])
    assert names(result) == (ids(TRACKS[:3]), [])
    assert_frames(result, [time - start for time in spec.times[first:]], skipped=first)
    assert_audio(path, [track.utterance for track in TRACKS[:3]], start=start)


def assert_audio(
    path: Path, utterances: Sequence[Utterance], *, start: Fraction, at_most_samples: float = 1
) -> None:
    """Check that the audio of an utterance begins with its first frame.

    Args:
        path: a video with the audio ``truth``.
        utterances: what to crop.
        start: time on the axis of the truth at which the first frame is displayed.
        at_most_samples: how far it may be off.
    """
    result = crop_audio(path, utterances, audio_format="wav")
    assert [clip.utterance for clip in result.clips] == list(utterances)
    for clip in result.clips:
        start_sample = clip.utterance.samples[0] + int(start * SAMPLE_RATE_HZ)
        delay = measure_delay(samples_of(clip), start_sample=start_sample)
        assert abs(delay) <= at_most_samples, f"{clip.utterance.name} is {delay:.2f} samples late"


# Matroska files whose video begins late are of two kinds that look alike, see docs/cutting.md.
AUDIBLE = (
    *MAIN,
    *(spec for spec in SPOT if spec.audio and not (spec.late and spec.name.endswith(".mkv"))),
)


@pytest.mark.parametrize("spec", AUDIBLE, ids=lambda spec: spec.name)
def test_audio_begins_with_the_first_video_frame(media_cache: MediaCache, spec: VideoSpec) -> None:
    utterances = [track.utterance for track in TRACKS[:3]]
    assert_audio(render(media_cache, spec), utterances, start=spec.late)


# -- Pixels ----------------------------------------------------------------------------------------


def assert_same_pixels(
    result: FaceCut, video_planes: Sequence[Sequence[Planes]], times: Sequence[Fraction]
) -> None:
    """Check lossless clips whose boxes have their size and even positions, bit for bit."""
    for clip in result.clips:
        size = int(clip.boxes[0][2])
        (frames,) = read_clips([clip.data], size=size)
        due = due_frames(times, clip.utterance)
        assert len(frames) == len(due) == len(clip.boxes)
        for planes, index, (x, y, _, _) in zip(frames, due, clip.boxes.tolist(), strict=True):
            expected = [
                video_planes[index][0][y : y + size, x : x + size],
                *(
                    plane[y // 2 : (y + size) // 2, x // 2 : (x + size) // 2].reshape(-1, size)
                    for plane in video_planes[index][1:]
                ),
            ]
            np.testing.assert_array_equal(planes, np.concatenate(expected))


BUSY = video_spec("busy.mp4", 30, 6, is_busy=True)


REFRESH = (("g", "20"), ("intra-refresh", "1"))


def even_box(frame: int) -> Box:
    return 4 * frame % 200, 2 * frame % 60, 112, 112


@pytest.mark.parametrize(
    "spec",
    [
        BUSY,
        # Frames become whole some time after a start of decoding: skipping fails and is given up.
        video_spec("refresh.ts", 30, 6, is_busy=True, options=(*H264[:2], *REFRESH)),
        video_spec("vp9.webm", 30, 6, codec="libvpx-vp9", options=VP9, is_busy=True),
    ],
    ids=lambda spec: spec.name,
)
def test_lossless_clips_have_the_pixels_of_the_video(
    media_cache: MediaCache, spec: VideoSpec
) -> None:
    path = render(media_cache, spec)
    tracks = [track(0, 9, even_box), track(33, 60, even_box), track(120, 140, even_box)]
    result = crop(path, tracks, video_crf=0)
    assert names(result) == (ids(tracks), [])
    assert_same_pixels(result, read_video(path, spec.size), spec.times)


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_frames_are_turned_and_mirrored_as_they_are_displayed(
    media_cache: MediaCache, matrix: Matrix, tmp_path: Path
) -> None:
    spec, path = BUSY, tmp_path / "turned.mp4"
    write_with_matrix(render(media_cache, spec), path, matrix)
    tracks = [track(10, 30, lambda frame: (2 * frame, 60 - 2 * frame, 112, 112))]
    result = crop(path, tracks, video_crf=0)
    assert names(result) == (ids(tracks), [])
    assert result.clips[0].boxes_fit
    displayed = [
        [displayed_by(matrix, plane) for plane in planes]
        for planes in read_video(path, spec.size, as_stored=True)
    ]
    assert_same_pixels(result, displayed, spec.times)


def test_a_matrix_that_shows_nothing_is_no_matrix(media_cache: MediaCache, tmp_path: Path) -> None:
    path = tmp_path / "nothing.mp4"
    write_with_matrix(render(media_cache, BUSY), path, (0, 0, 0, 0))
    result = crop(path, [track(10, 30, (20, 40, 112, 112))], video_crf=0)
    assert_same_pixels(result, read_video(path, BUSY.size, as_stored=True), BUSY.times)


def rgb(path: Path, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return frames as FFmpeg's program displays them, shape (n, height, width, 3)."""
    raw = run_ffmpeg(
        *("-i", str(path), "-map", "0:v:0", "-vsync", "passthrough"),
        *("-pix_fmt", "rgb24", "-f", "rawvideo", "-"),
    )
    return np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], 3).astype(np.int64)


FINE = (("preset", "veryfast"), ("crf", "4"))
FORMATS = (
    video_spec("420.mp4", 25, 2, options=FINE),
    video_spec("full-range.mp4", 25, 2, options=FINE, pix_fmt="yuvj420p"),
    video_spec("422.mp4", 25, 2, options=FINE, pix_fmt="yuv422p"),
    video_spec("444.mp4", 25, 2, options=FINE, pix_fmt="yuv444p"),
    video_spec("full-range-444.mp4", 25, 2, options=FINE, pix_fmt="yuvj444p"),
    video_spec("ten-bits.mp4", 25, 2, options=FINE, pix_fmt="yuv420p10le"),
    video_spec("grey.mkv", 25, 2, codec="ffv1", options=LOSSLESS, pix_fmt="gray"),
    video_spec("odd.mkv", 25, 2, codec="ffv1", options=LOSSLESS, size=(321, 241)),
    video_spec("odd-444.mp4", 25, 2, options=FINE, pix_fmt="yuv444p", size=(321, 241)),
    video_spec("odd.webm", 25, 2, codec="libvpx-vp9", options=VP9, size=(321, 241)),
    video_spec("jpeg.avi", 25, 2, codec="mjpeg", options=JPEG, pix_fmt="yuvj420p"),
)


@pytest.mark.parametrize("spec", FORMATS, ids=lambda spec: spec.name)
def test_displayed_colours_are_those_of_the_video(
    media_cache: MediaCache, spec: VideoSpec, tmp_path: Path
) -> None:
    path = render(media_cache, spec)
    result = crop(path, [track(5, 30, (100, 40, 112, 112))], video_crf=2)
    (tmp_path / "clip.mp4").write_bytes(result.clips[0].data)
    displayed = rgb(tmp_path / "clip.mp4", (112, 112))
    expected = rgb(path, spec.size)[5:31, 40:152, 100:212]
    differences = np.abs(displayed - expected)
    # Chroma is halved and interpolated; a wrong range would differ by 16 or more.
    assert differences.mean() <= 2
    assert differences.max() <= 8


# -- Boxes and frames of other sizes ---------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 112, 224])
def test_clips_have_the_requested_size(media_cache: MediaCache, size: int) -> None:
    spec = MAIN[1]
    result = crop(render(media_cache, spec), TRACKS[:1], video_size=size)
    assert_shows(result, spec, size=size)


@pytest.mark.parametrize("box", [(100, 90, 3, 3), (200, 30, 1, 7), (50, 120, 12, 8)], ids=str)
def test_tiny_boxes_are_scaled_up(media_cache: MediaCache, box: Box) -> None:
    spec = MAIN[0]
    result = crop(render(media_cache, spec), [track(3, 9, box)], video_crf=2)
    assert_shows(result, spec)


def test_boxes_of_a_given_frame_size_are_scaled_from_it(media_cache: MediaCache) -> None:
    spec = MAIN[0]
    path = render(media_cache, spec)
    tracks = [
        track(0, 20, lambda frame: (400 + 4 * frame, 160, 320, 240), frame_size=(1280, 720)),
        track(30, 40, (50, 40, 40, 80), frame_size=(160, 180)),
    ]
    # A header counts more than what the source lists.
    result = crop(path, tracks, reference_height=90, video_shape="stretched")
    assert {clip.boxes_evidence for clip in result.clips} == {"header"}
    quarter = Fraction(1, 4)
    scales = [(quarter, quarter), (Fraction(2), Fraction(1))]
    assert_shows(result, spec, square=False, scales=scales)
    # The boxes of a clip are in the release's pixels.
    assert result.clips[0].boxes[1].tolist() == [404, 160, 320, 240]


@pytest.mark.parametrize("lines", [1080, 720, 360])
def test_without_a_size_boxes_are_of_720_lines_or_fewer(
    media_cache: MediaCache, lines: int
) -> None:
    spec = video_spec("lines.mp4", 25, 2, size=(180, lines))
    result = crop(
        render(media_cache, spec), [track(5, 20, (20, 100, 80, 160))], video_shape="stretched"
    )
    scale = Fraction(max(lines, 720), 720)
    assert_shows(result, spec, square=False, scales=[(scale, scale)])
    assert result.clips[0].boxes_evidence == "assumed"


@pytest.mark.parametrize("lines", [1080, 720, 360, 180])
def test_boxes_are_scaled_from_the_rendition_that_the_source_lists(
    media_cache: MediaCache, lines: int
) -> None:
    # Of 360 lines, these boxes of 480 fit without being scaled, and show the wrong part.
    spec = video_spec("lines.mp4", 25, 2, size=(lines // 2, lines))
    boxes = track(5, 20, (40, 100, 96, 160))
    path = render(media_cache, spec)
    result = crop(path, [boxes], reference_height=480, video_shape="stretched")
    scale = Fraction(lines, 480)
    assert_shows(result, spec, square=False, scales=[(scale, scale)])
    assert [(clip.boxes_evidence, clip.boxes_fit) for clip in result.clips] == [("offered", True)]


def test_each_clip_says_where_its_scale_is_from(media_cache: MediaCache) -> None:
    tracks = [track(5, 20), track(30, 40, frame_size=(320, 180))]
    for height, expected in ((0, ["assumed", "header"]), (180, ["offered", "header"])):
        result = crop(render(media_cache, MAIN[0]), tracks, reference_height=height)
        assert [clip.boxes_evidence for clip in result.clips] == expected


def test_a_change_of_size_within_a_video_is_followed(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    sizes = ((320, 180), (160, 90))
    parts = [video_spec("part.ts", 25, 4, size=size, options=H264[:3]) for size in sizes]
    path, plan = tmp_path / "both.ts", tmp_path / "plan.txt"
    plan.write_text("".join(f"file '{render(media_cache, part)}'\n" for part in parts))
    run_ffmpeg("-f", "concat", "-safe", "0", "-i", str(plan), "-c", "copy", str(path))
    tracks = [
        track(*ends, (100, 40, 80, 80), frame_size=(320, 180))
        for ends in ((20, 60), (80, 119), (130, 170))
    ]
    result = crop(path, tracks, video_crf=8)
    assert names(result) == (ids(tracks), [])
    frames_of_clips = read_clips([clip.data for clip in result.clips], size=112)
    for clip, planes in zip(result.clips, frames_of_clips, strict=True):
        frames = range(clip.utterance.first_frame, clip.utterance.last_frame + 1)
        # Indices begin again with the second part, and windows shrink with it.
        for position, frame in enumerate(frames):
            single = planes[position : position + 1]
            assert indices_in(single, near=[frame % 100]) == [frame % 100]
            size = sizes[frame // 100]
            expected = np.array([100, 40, 180, 120]) * size[0] / 320
            (edges,) = edges_in(single, size)
            np.testing.assert_allclose(edges, expected, rtol=0, atol=2)


# -- Boxes that extend beyond the frame ------------------------------------------------------------


def test_the_part_of_a_box_outside_the_frame_is_black(media_cache: MediaCache) -> None:
    spec = MAIN[0]
    path = render(media_cache, spec)
    corners = {
        (0, 9): (-56, -28),
        (10, 19): (320 - 28, 180 - 84),
        (20, 29): (-40, 180 - 12),
        (30, 39): (100, -100),
    }
    tracks = [track(*ends, (*corner, 112, 112)) for ends, corner in corners.items()]
    result = crop(path, tracks, video_crf=0)
    assert names(result) == (ids(tracks), [])
    source_frames = read_video(path, spec.size)
    for clip, (x, y) in zip(result.clips, corners.values(), strict=True):
        (frames,) = read_clips([clip.data], size=112)
        for planes, index in zip(frames, due_frames(spec.times, clip.utterance), strict=True):
            for position, plane in enumerate(source_frames[index]):
                half = 1 if position == 0 else 2
                size = 112 // half
                wide = np.full((3 * size + plane.shape[0], 3 * size + plane.shape[1]), 128)
                wide[:] = 16 if position == 0 else 128
                wide[size : size + plane.shape[0], size : size + plane.shape[1]] = plane
                left, top = x // half + size, y // half + size
                expected = wide[top : top + size, left : left + size]
                start = (0, 112, 140)[position]
                cells = planes[start : start + size // half].reshape(size, size)
                np.testing.assert_array_equal(cells, expected)


def test_a_box_entirely_outside_costs_its_utterance_only(media_cache: MediaCache) -> None:
    def leaving(frame: int) -> Box:
        return (100, 40, 80, 80) if frame < 57 else (320, 40, 80, 90)

    tracks = [TRACKS[0], track(50, 70, leaving), track(50, 70, moving, name="beside"), TRACKS[3]]
    result = crop(render(media_cache, MAIN[0]), tracks)
    assert names(result) == (ids([tracks[0], tracks[2], tracks[3]]), ids(tracks[1:2]))
    assert result.missing[0].reason == (
        "has a box outside the video at frame 57 (x 320, y 40, 80 x 90; "
        "the video has 320 x 180 pixels)"
    )
    assert_shows(result, MAIN[0])


def test_a_box_with_one_column_inside_is_cropped(media_cache: MediaCache) -> None:
    tracks = [track(0, 5, (319, 40, 80, 90)), track(10, 15, (100, -79, 80, 80))]
    assert names(crop(render(media_cache, MAIN[0]), tracks)) == (ids(tracks), [])


def test_boxes_that_do_not_fit_are_marked_in_all_rows_of_a_video(media_cache: MediaCache) -> None:
    path = render(media_cache, MAIN[0])
    beyond = track(50, 70, (270, 40, 101, 80))  # its centre is half a pixel outside
    within = track(50, 70, (270, 40, 99, 80))
    outside = track(80, 90, (400, 40, 80, 80))
    for odd, expected in ((within, True), (beyond, False), (outside, False)):
        for tracks in ([TRACKS[0], odd, TRACKS[3]], [odd, TRACKS[0], TRACKS[3]]):
            result = crop(path, tracks, video_size=32, video_margin=0.5)
            assert {clip.boxes_fit for clip in result.clips} == {expected}
            assert len(result.clips) == (2 if odd is outside else 3)


def test_boxes_with_no_area_cost_their_utterance_only(media_cache: MediaCache) -> None:
    tracks = [
        track(0, 20, lambda frame: (100, 40, 80, 80 * (frame < 17))),
        TRACKS[1],
        track(90, 99, (100, 40, -20, 30)),
    ]
    result = crop(render(media_cache, MAIN[0]), tracks)
    assert names(result) == (ids(tracks[1:2]), ids([tracks[0], tracks[2]]))
    assert [missing.reason for missing in result.missing] == [
        "has a box with no area at frame 17 (80 x 0 pixels)",
        "has a box with no area at frame 90 (-20 x 30 pixels)",
    ]


def test_gaps_of_up_to_25_frames_are_interpolated(media_cache: MediaCache) -> None:
    spec = MAIN[0]

    def sliding(frame: int) -> Box:
        return 40 + 2 * frame, 30 + frame, 40 + frame, 50

    tracks = [
        track(0, 60, sliding, rows=[0, 1, 20, 46, 60]),
        track(70, 97, sliding, rows=[70, 97]),
    ]
    result = crop(render(media_cache, spec), tracks)
    assert names(result) == (ids(tracks[:1]), ids(tracks[1:]))
    assert result.clips[0].boxes.tolist() == [list(sliding(frame)) for frame in range(61)]
    assert_shows(result, spec)
    assert result.missing[0].reason == (
        "has no box for 26 frames after frame 70; at most 25 are interpolated"
    )


def test_two_faces_at_the_same_time_are_two_clips(media_cache: MediaCache) -> None:
    spec = MAIN[1]
    left, right = track(50, 80, (20, 40, 80, 80), name="l"), track(50, 80, (200, 90, 60, 60))
    result = crop(render(media_cache, spec), [right, left, track(80, 80, (100, 100, 50, 50))])
    assert [clip.boxes[0][0] for clip in result.clips] == [200, 20, 100]
    assert_shows(result, spec)


HUGE = """
import pathlib, resource, sys
import numpy as np
from support.synthetic_video import track
from support.video_oracle import read_clips
from voxblink2_lib.media.faces import crop_faces
from voxblink2_lib.media.options import ClipOptions
boxes = {"corner": (-16000, -16000, 32767, 32767), "far": (-32768, -32768, 32767, 32767)}
tracks = [track(0, 5, box, name=name) for name, box in boxes.items()]
options = ClipOptions(video_margin=2.0)
crop_faces(pathlib.Path(sys.argv[1]), [track(0, 5)], options=options)
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**28
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
cut = crop_faces(pathlib.Path(sys.argv[1]), tracks, options=options)
(clip,) = read_clips([clip.data for clip in cut.clips], size=112)
assert len(clip) == 6 and np.all(clip[:, :112] <= 17) and not cut.clips[0].boxes_fit
assert [missing.utterance_id for missing in cut.missing] == ["far"]
"""


def run_python(program: str, *arguments: object) -> str:
    """Run a program in a process of its own, with the library and the tests on its path."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": ":".join(["tests", *sys.path[1:]]), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_huge_box_takes_no_more_memory_than_another(media_cache: MediaCache) -> None:
    # A frame of its size would take a gigabyte; a quarter is allowed.
    run_python(HUGE, render(media_cache, MAIN[0]))


# -- Missing frames --------------------------------------------------------------------------------


def test_the_video_may_end_one_frame_early(media_cache: MediaCache) -> None:
    # 200 video frames of 40 ms end with frame 199.
    spec = MAIN[0]
    tracks = [track(180, last, moving) for last in (199, 200, 201)] + [track(900, 950)]
    result = crop(render(media_cache, spec), tracks)
    assert names(result) == (ids(tracks[:2]), ids(tracks[2:]))
    assert_frames(result, spec.times)
    assert [missing.reason for missing in result.missing] == [
        "ends at 8.08 s, but the video ends at 8.00 s",
        "ends at 38.04 s, but the video ends at 8.00 s",
    ]


def copy_without(source: Path, target: Path, indices: range) -> None:
    """Copy a video of keyframes without some of them."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for index, packet in enumerate(old.demux(video=0)):
            if packet.size and index not in indices:
                packet.stream = stream
                new.mux(packet)


@pytest.mark.parametrize("name", ["keys.mp4", "keys.mkv"])
def test_a_gap_is_filled_with_frames_at_most_half_a_second_away(
    media_cache: MediaCache, name: str, tmp_path: Path
) -> None:
    spec = video_spec(name, 25, 5, options=(*H264[:2], ("g", "1")))
    path = tmp_path / name
    # From video frame 49 to 74: 12 frames at most to the nearer of the two.
    copy_without(render(media_cache, spec), path, range(50, 74))
    result = crop(path, [track(40, 62, moving), track(55, 90, moving), track(61, 61, moving)])
    assert result.missing == ()
    times = [time for index, time in enumerate(spec.times) if not 50 <= index < 74]
    frames_of_clips = read_clips([clip.data for clip in result.clips], size=112)
    for clip, planes in zip(result.clips, frames_of_clips, strict=True):
        due = [n if n < 50 else n + 24 for n in due_frames(times, clip.utterance)]
        assert indices_in(planes, near=due) == due


def test_a_longer_gap_costs_the_utterances_in_it(media_cache: MediaCache, tmp_path: Path) -> None:
    spec = video_spec("keys.mp4", 25, 5, options=(*H264[:2], ("g", "1")))
    path = tmp_path / "gap.mp4"
    # From video frame 49 to 91: 21 frames to both from index 70.
    copy_without(render(media_cache, spec), path, range(50, 91))
    before, edge = track(20, 49, moving), track(40, 61, moving)
    inside, across, after = track(62, 70, moving), track(45, 120, moving), track(91, 120, moving)
    result = crop(path, [before, edge, inside, across, after])
    assert names(result) == (ids([before, edge, after]), ids([inside, across]))
    assert [missing.reason for missing in result.missing] == [
        "needs a video frame at 2.80 s, but the nearest is 0.84 s away",
        "needs a video frame at 2.80 s, but the nearest is 0.84 s away",
    ]


SHORT = (
    video_spec("short.mkv", 25, is_busy=True, size=(160, 96)),
    video_spec("short.ts", 25, is_busy=True, size=(160, 96)),
    video_spec("short.mp4", 25, is_busy=True, size=(160, 96)),
    video_spec("vp9.webm", 25, codec="libvpx-vp9", options=VP9, is_busy=True, size=(160, 96)),
    video_spec("vp9.mp4", 25, codec="libvpx-vp9", options=VP9, is_busy=True, size=(160, 96)),
)


@pytest.mark.parametrize("spec", SHORT, ids=lambda spec: spec.name)
def test_the_beginning_of_a_truncated_file_is_used(
    media_cache: MediaCache, spec: VideoSpec, tmp_path: Path
) -> None:
    whole, path = tmp_path / f"whole-{spec.name}", tmp_path / spec.name
    index_first = ("-movflags", "+faststart") if spec.name.endswith("mp4") else ()
    run_ffmpeg("-i", str(render(media_cache, spec)), "-c", "copy", *index_first, str(whole))
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    tracks = [track(frame, frame, (20, 10, 64, 64)) for frame in range(60, 140)]
    expected = [clip.data for clip in crop(whole, tracks, video_size=64, video_crf=0).clips]
    result = crop(path, tracks, video_size=64, video_crf=0)
    done, missing = names(result)
    assert done + missing == ids(tracks)
    assert 20 <= len(done) <= 60
    # One frame after the end the last video frame still counts; none is from half a packet.
    clips = [clip.data for clip in result.clips]
    assert clips in (expected[: len(clips)], [*expected[: len(clips) - 1], clips[-2]])
    end = r"(ends at \d.\d\d s, but the video ends at \d.\d\d s|.*, which is damaged)"
    assert all(re.fullmatch(end, missing.reason) for missing in result.missing)


def cover(media_cache: MediaCache, folder: Path) -> Path:
    image, path = folder / "cover.png", folder / "cover.m4a"
    run_ffmpeg("-f", "lavfi", "-i", "color=red:size=16x16", "-frames:v", "1", str(image))
    both = ("-i", str(media_cache.make(M4A)), "-i", str(image), "-map", "0:a", "-map", "1:v")
    run_ffmpeg(*both, "-c", "copy", "-disposition:v", "attached_pic", str(path))
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the media file is empty"),
        (b"Sign in to confirm your age\n" * 40, "cannot be read: Invalid data found"),
        ("audio", "the media file has no video stream"),
        ("cover", "the media file has no video stream"),
    ],
    ids=["empty", "text", "audio", "cover"],
)
def test_a_file_without_video_is_reported(
    media_cache: MediaCache, content: bytes | str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "media"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path = media_cache.make(M4A) if content == "audio" else cover(media_cache, tmp_path)
    with pytest.raises(MediaError, match=message):
        crop(path, TRACKS)


def test_without_tracks_there_are_no_clips(media_cache: MediaCache) -> None:
    assert crop(render(media_cache, MAIN[0]), []) == FaceCut((), ())


# -- Damage ----------------------------------------------------------------------------------------


GOP = 25
GOPS_OF_25 = x264_options(GOP, 2, "b-pyramid=none")
FRAGILE = video_spec("fragile.mp4", 25, 6, is_busy=True, size=(160, 96), options=GOPS_OF_25)
# Four in each GOP of 25 frames.
PIECES = tuple(
    track(GOP * gop + first, GOP * gop + last, (20, 10, 64, 64))
    for gop in range(6)
    for first, last in ((0, 5), (6, 11), (12, 18), (19, 24))
)


def crop_pieces(path: Path) -> tuple[dict[Utterance, bytes], dict[str, str]]:
    """Return the clips, lossless, and the reasons of those missing."""
    result = crop(path, PIECES, video_size=64, video_crf=0)
    assert len(result.clips) + len(result.missing) == len(PIECES)
    clips = {clip.utterance: clip.data for clip in result.clips}
    return clips, {missing.utterance_id: missing.reason for missing in result.missing}


crop_undamaged = functools.cache(crop_pieces)


@pytest.mark.parametrize("skip", [0.0, 0.5], ids=["lost", "concealed"])
@pytest.mark.parametrize("packet", [75, 76, 81, 83, 94])
def test_damage_costs_what_depends_on_it_and_nothing_else(
    media_cache: MediaCache, packet: int, skip: float, tmp_path: Path
) -> None:
    source, path = render(media_cache, FRAGILE), tmp_path / "damaged.mp4"
    whole, no_reasons = crop_undamaged(source)
    assert not no_reasons
    packets = packets_of_video(source)
    stamps = sorted(packet.pts for packet in packets)
    damaged = {stamps.index(packet.pts) for packet in packets[packet:100]}
    corrupt_noticeably(source, path, packet=packet, skip=skip)
    clips, missing = crop_pieces(path)
    lost = {piece.utterance for piece in PIECES if damaged.intersection(piece.frames.tolist())}
    assert clips == {utterance: data for utterance, data in whole.items() if utterance not in lost}
    assert missing.keys() == {utterance.utterance_id for utterance in lost}
    for utterance in lost:
        first = min(damaged.intersection(range(utterance.first_frame, utterance.last_frame + 1)))
        reason = missing[utterance.utterance_id]
        assert reason == f"needs the video frame at {first / 25:.2f} s, which is damaged"


def test_only_damaged_videos_are_decoded_twice(
    media_cache: MediaCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[bool] = []

    class Counted(video_decoder.VideoFrameDecoder):
        def __init__(self, *arguments: Any, skip_unneeded: bool) -> None:
            passes.append(skip_unneeded)
            super().__init__(*arguments, skip_unneeded=skip_unneeded)

    monkeypatch.setattr(faces, "VideoFrameDecoder", Counted)
    source, path = render(media_cache, FRAGILE), tmp_path / "damaged.mp4"
    outside = track(0, 5, (400, 40, 80, 80), name="outside")
    crop(source, [*PIECES, outside])
    assert passes == [True]
    corrupt(source, path, packet=83)
    crop(path, PIECES)
    assert passes == [True, True, False]
    crop(path, PIECES[:12])
    assert passes == [True, True, False, True]


@pytest.mark.parametrize("seed", range(8))
def test_no_wrong_frame_is_returned_if_the_decoder_notices(
    media_cache: MediaCache, seed: int, tmp_path: Path
) -> None:
    source, path = render(media_cache, FRAGILE), tmp_path / "damaged.mp4"
    whole, _ = crop_undamaged(source)
    position = 50 + 7 * seed % 25
    corrupt(source, path, packet=position, skip=(seed % 4) / 5, seed=seed)
    clips, missing = crop_pieces(path)
    wrong = {
        utterance.utterance_id for utterance, data in clips.items() if data != whole[utterance]
    }
    if is_noticed(path):
        assert wrong == set()
        assert missing
    # Damage that decodes without error spreads as well, and no farther than its GOP.
    assert {int(name[:5]) // GOP for name in wrong | missing.keys()} <= {2}


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libvpx-vp9", (*VP9[:-1], ("g", "25"))),
        ("mpeg4", (("b", "600k"), ("g", "25"))),
    ],
)
def test_other_decoders_do_not_hide_a_lost_frame(
    media_cache: MediaCache, codec: str, options: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    spec = replace(FRAGILE, name=f"{codec}.mp4", codec=codec, options=options)
    source, path = render(media_cache, spec), tmp_path / spec.name
    whole, _ = crop_pieces(source)
    assert [packet.is_key for packet in packets_of_video(source)[::GOP]] == [True] * 6
    corrupt(source, path, packet=83)
    clips, missing = crop_pieces(path)
    lost = [piece.utterance for piece in PIECES[13:16]]
    assert clips == {utterance: data for utterance, data in whole.items() if utterance not in lost}
    firsts = {utterance.utterance_id: max(83, utterance.first_frame) for utterance in lost}
    assert missing == {
        name: f"needs the video frame at {first / 25:.2f} s, which is damaged"
        for name, first in firsts.items()
    }


def test_timestamps_in_the_wrong_order_are_noticed(media_cache: MediaCache) -> None:
    # AVI cannot store the times of B-frames; FFmpeg numbers them in stored order.
    result = crop(render(media_cache, video_spec("h264.avi", 25)), TRACKS[:3])
    assert names(result) == ([], ids(TRACKS[:3]))
    assert {missing.reason for missing in result.missing} == {
        "has video frames that are decoded in another order than that of their times"
    }


FLIP = """
import collections, io, json, pathlib, random, sys
import av
from support.synthetic_audio import damaged
from support.synthetic_video import track
from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.faces import crop_faces
from voxblink2_lib.media.options import ClipOptions
source, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
data = source.read_bytes()
tracks = [track(3, 20, (20, 10, 64, 64)), track(30, 60, (90, 10, 64, 64))]
ends = collections.Counter()
for seed in range(15):
    rng = random.Random(seed)
    count = rng.choice((1, 3, 10, 100))
    # The index breaks in more ways than the video: every second file is damaged there only.
    size = 4000 if seed % 2 else len(data)
    positions = [rng.randrange(size) for _ in range(count)]
    path = work / f"{seed}{source.suffix}"
    path.write_bytes(damaged(data, positions, [rng.randrange(256) for _ in range(count)]))
    try:
        cut = crop_faces(path, tracks, options=ClipOptions(video_size=32))
        assert len(cut.clips) + len(cut.missing) == len(tracks)
        assert all(len(missing.reason) > 10 for missing in cut.missing)
        for clip in cut.clips:
            with av.open(io.BytesIO(clip.data)) as container:
                assert sum(1 for _ in container.decode(video=0)) == len(clip.boxes)
        ends["cut" if cut.clips else "missing"] += 1
    except MediaError as error:
        assert len(str(error)) > 10
        ends["MediaError"] += 1
    except BaseException as error:
        ends[f"seed {seed}: {error!r}"] += 1
print(json.dumps(ends))
"""


@pytest.mark.parametrize(
    "spec",
    [FRAGILE, replace(FRAGILE, name="flip.mkv"), replace(FRAGILE, name="flip.ts")],
    ids=lambda spec: spec.name,
)
def test_changed_bytes_end_in_clips_or_reasons_or_a_media_error(
    media_cache: MediaCache, spec: VideoSpec, tmp_path: Path
) -> None:
    # In a process of its own: a crash in a C library would take pytest with it.
    ends = json.loads(run_python(FLIP, render(media_cache, spec), tmp_path))
    assert set(ends) <= {"cut", "missing", "MediaError"}, ends
    assert sum(ends.values()) == 15


# -- The same at every run -------------------------------------------------------------------------


def digests(result: FaceCut) -> list[str]:
    return [hashlib.sha256(clip.data).hexdigest() for clip in result.clips]


DIGESTS = """
import hashlib, json, pathlib, sys
from media.test_faces import TRACKS, crop
clips = crop(pathlib.Path(sys.argv[1]), TRACKS[:3]).clips
print(json.dumps([hashlib.sha256(clip.data).hexdigest() for clip in clips]))
"""


def test_a_second_run_and_another_process_give_the_same_bytes(media_cache: MediaCache) -> None:
    path = render(media_cache, BUSY)
    expected = digests(crop(path, TRACKS[:3]))
    assert len(set(expected)) == 3
    assert digests(crop(path, TRACKS[:3])) == expected
    assert json.loads(run_python(DIGESTS, path)) == expected


def test_busy_threads_change_nothing(media_cache: MediaCache) -> None:
    path = render(media_cache, BUSY)
    expected = digests(crop(path, TRACKS[:3]))
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            crop(path, TRACKS[:1])

    threads = [threading.Thread(target=keep_busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert digests(crop(path, TRACKS[:3])) == expected
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_clip_does_not_depend_on_the_other_clips(media_cache: MediaCache) -> None:
    path = render(media_cache, BUSY)
    expected = digests(crop(path, TRACKS[:3]))
    alone = [digests(crop(path, [track])) for track in TRACKS[:3]]
    assert alone == [[digest] for digest in expected]
    assert digests(crop(path, TRACKS[2::-1])) == expected[::-1]
    crowd = [
        *TRACKS,
        *(track(frame, frame + 40, moving, name=f"n{frame}") for frame in range(0, 90, 6)),
    ]
    assert digests(crop(path, crowd))[:3] == expected
