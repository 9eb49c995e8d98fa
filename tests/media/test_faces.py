"""Every face is the right part of the right picture, or its utterance is missing with a reason."""

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
from support.synthetic_audio import M4A, MediaCache, heard_in, measure_delay
from support.synthetic_video import (
    H264,
    UNSTEADY,
    VP9,
    Box,
    Film,
    Planes,
    asked_edges,
    due_pictures,
    edges_in,
    film,
    notices,
    numbers_in,
    packets_of_film,
    read_clips,
    read_film,
    run_ffmpeg,
    shoot,
    shoot_with_hidden,
    spoil,
    spoil_noticeably,
    track,
)

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media import faces, video_decoder
from voxblink2_lib.media.audio import crop_audio
from voxblink2_lib.media.faces import FaceCut, crop_faces
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import SAMPLE_RATE_HZ, FaceTrack, Utterance, WindowShape

NTSC = Fraction(30_000, 1001)
AAC: dict[str, Any] = {"sound": "aac"}
OPUS: dict[str, Any] = {"sound": "libopus"}
LATE: dict[str, Any] = {"sound": "aac", "late": Fraction(12, 25)}
LOSSLESS = (("level", "3"),)


def moving(frame: int) -> Box:
    """Return a box that moves, grows and shrinks; with a margin it stays in the picture."""
    width, height = 60 + frame % 40, 50 + 3 * frame % 50
    return 100 + 2 * frame % 120 - width // 2, 85 + frame % 10 - height // 2, width, height


# At the start, overlapping, and up to the end.
TRACKS = tuple(track(*ends, moving) for ends in ((0, 24), (40, 74), (60, 99), (160, 187)))


def cut(path: Path, tracks: Sequence[FaceTrack], **options: Any) -> FaceCut:
    fine = {"video_size": 112, "video_crf": 12}
    return crop_faces(path, tracks, options=ClipOptions(**{**fine, **options}))


def ids(some: Sequence[FaceTrack]) -> list[str]:
    return [one.utterance.utterance_id for one in some]


def names(result: FaceCut) -> tuple[list[str], list[str]]:
    """Return the utterances cut, and those missing."""
    return [clip.utterance.utterance_id for clip in result.clips], [
        one.utterance_id for one in result.missing
    ]


def assert_numbers(
    result: FaceCut, times: Sequence[Fraction], *, size: int = 112, skipped: int = 0
) -> list[Planes]:
    """Check that every picture of every clip is the one that is due; return them all.

    Args:
        result: what was cut.
        times: when each picture of the file is shown.
        size: of the clips.
        skipped: so many pictures of the film come before the first of the file.
    """
    every = read_clips([clip.data for clip in result.clips], size=size)
    for clip, planes in zip(result.clips, every, strict=True):
        due = [number + skipped for number in due_pictures(times, clip.utterance)]
        assert len(planes) == len(due)
        assert numbers_in(planes, near=due) == due, clip.utterance.name
    return every


def assert_shows(
    result: FaceCut,
    one: Film,
    *,
    size: int = 112,
    margin: Fraction = Fraction(0),
    square: bool = True,
    scales: Sequence[tuple[Fraction, Fraction]] = (),
) -> None:
    """Check of every picture which one it is, and where its window lies in it, to two pixels."""
    every = assert_numbers(result, one.times, size=size)
    scales = scales or [(Fraction(1), Fraction(1))] * len(every)
    for clip, planes, scale in zip(result.clips, every, scales, strict=True):
        asked = [asked_edges(box, scale=scale, margin=margin, square=square) for box in clip.boxes]
        found = list(edges_in(planes, one.size))
        np.testing.assert_allclose(found, np.array(asked, np.float64), rtol=0, atol=2)


# Which picture, and which part of it


MAIN = (
    film("25.mp4", 25, **AAC),
    film("30.mp4", 30, **AAC),
    film("ntsc.webm", NTSC, codec="libvpx-vp9", options=VP9, **OPUS),
    Film("unsteady.mp4", UNSTEADY, Fraction(1, 1000), **AAC),
)


@pytest.mark.parametrize("margin", [0, 0.25])
@pytest.mark.parametrize("shape", ["square", "stretched"])
@pytest.mark.parametrize("one", MAIN, ids=lambda one: one.name)
def test_every_picture_is_the_right_part_of_the_right_one(
    studio: MediaCache, one: Film, shape: WindowShape, margin: float
) -> None:
    result = cut(shoot(studio, one), TRACKS, video_shape=shape, video_margin=margin)
    assert [clip.utterance for clip in result.clips] == [track.utterance for track in TRACKS]
    assert result.missing == ()
    assert_shows(result, one, margin=Fraction(margin), square=shape == "square")
    for clip, asked in zip(result.clips, TRACKS, strict=True):
        assert clip.boxes.tolist() == asked.boxes.tolist()
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
    # Every other frame, or every third, lies just between two pictures.
    "12.5.mp4": Fraction(25, 2),
    "12.5.mkv": Fraction(25, 2),
    "37.5.mkv": Fraction(75, 2),
}
SPOT = (
    *(film(name, rate, 5) for name, rate in RATES.items()),
    film("25.mkv", 25, 5, **AAC),
    film("30.mkv", 30, 5, **OPUS),
    film("ntsc.ts", NTSC, 5, **AAC),
    film("mpeg4.avi", 25, 5, codec="mpeg4", options=MPEG2),
    film("h264.avi", 30, 5, options=(*H264[:3], ("bf", "0"))),
    film("mpeg2.mpg", 25, 5, codec="mpeg2video", options=MPEG2),
    film("25.flv", 25, 5),
    film("25.mov", 25, 5, codec="mjpeg", pix_fmt="yuvj420p", options=JPEG),
    film("vp8.webm", 30, 5, codec="libvpx", options=(("b", "4M"), ("qmax", "10"), ("g", "50"))),
    film("hevc.mp4", 30, 5, codec="libx265", options=(("preset", "ultrafast"), *X265)),
    film("late.mp4", 25, 5, **LATE),
    film("late.mkv", 25, 5, **LATE),
    film("late.ts", 25, 5, **LATE),
    Film("unsteady.mkv", UNSTEADY[:140], Fraction(1, 1000), **AAC),
    Film("unsteady.ts", UNSTEADY[:140], Fraction(1, 1000)),
)


@pytest.mark.parametrize("one", SPOT, ids=lambda one: one.name)
def test_every_rate_and_container_gives_the_right_pictures(studio: MediaCache, one: Film) -> None:
    result = cut(shoot(studio, one), TRACKS[1:3], video_crf=10)
    assert names(result) == (ids(TRACKS[1:3]), [])
    assert_shows(result, one)


def test_pictures_that_are_never_shown_are_not_waited_for(studio: MediaCache) -> None:
    # Theirs are time stamps that are nearest to some frames.
    one = film("plain.avi", 30, 5, codec="ffv1", options=LOSSLESS, is_busy=True, size=(160, 96))
    path = shoot_with_hidden(studio, one, clock="1/1000")
    some = [track(first, first + 24, (20, 10, 32, 32)) for first in range(0, 100, 25)]
    result = cut(path, some, video_size=32, video_crf=0)
    assert names(result) == (ids(some), [])
    assert_same_pixels(result, read_film(path, one.size), one.times)


@pytest.mark.parametrize("first", [75, 88])
def test_what_an_edit_list_hides_does_not_count(
    studio: MediaCache, first: int, tmp_path: Path
) -> None:
    one, path = MAIN[0], tmp_path / "edited.mp4"
    begins = one.times[first]
    cut_off = ("-ss", str(float(begins)), "-i", str(shoot(studio, one)), "-c", "copy")
    run_ffmpeg(*cut_off, str(path))
    # Decoding begins with a key picture before that, which is not shown.
    assert len(packets_of_film(path)) > len(one.times) - first
    result = cut(path, TRACKS[:3])
    assert names(result) == (ids(TRACKS[:3]), [])
    assert_numbers(result, [time - begins for time in one.times[first:]], skipped=first)
    assert_sounds(path, [one.utterance for one in TRACKS[:3]], begins=begins)


def assert_sounds(
    path: Path, said: Sequence[Utterance], *, begins: Fraction, at_most_samples: float = 1
) -> None:
    """Check that sound begins with the picture of its first frame.

    Args:
        path: a film with truth.py's sound.
        said: what to cut.
        begins: what the sound says when the first picture is shown.
        at_most_samples: how far it may be off.
    """
    result = crop_audio(path, said, audio_format="wav")
    assert [clip.utterance for clip in result.clips] == list(said)
    for clip in result.clips:
        start = clip.utterance.samples[0] + int(begins * SAMPLE_RATE_HZ)
        delay = measure_delay(heard_in(clip), start_sample=start)
        assert abs(delay) <= at_most_samples, f"{clip.utterance.name} is {delay:.2f} samples late"


# Matroska files whose pictures begin late are of two kinds that look alike: docs/cutting.md tells.
AUDIBLE = (
    *MAIN,
    *(one for one in SPOT if one.sound and not (one.late and one.name.endswith(".mkv"))),
)


@pytest.mark.parametrize("one", AUDIBLE, ids=lambda one: one.name)
def test_sound_begins_with_the_first_picture(studio: MediaCache, one: Film) -> None:
    said = [track.utterance for track in TRACKS[:3]]
    assert_sounds(shoot(studio, one), said, begins=one.late)


# Pixels


def assert_same_pixels(
    result: FaceCut, film_planes: Sequence[Sequence[Planes]], times: Sequence[Fraction]
) -> None:
    """Check clips without loss whose boxes are of their size and at even places, bit for bit."""
    for clip in result.clips:
        size = int(clip.boxes[0][2])
        (found,) = read_clips([clip.data], size=size)
        due = due_pictures(times, clip.utterance)
        assert len(found) == len(due) == len(clip.boxes)
        for planes, number, (x, y, _, _) in zip(found, due, clip.boxes.tolist(), strict=True):
            expected = [
                film_planes[number][0][y : y + size, x : x + size],
                *(
                    plane[y // 2 : (y + size) // 2, x // 2 : (x + size) // 2].reshape(-1, size)
                    for plane in film_planes[number][1:]
                ),
            ]
            np.testing.assert_array_equal(planes, np.concatenate(expected))


BUSY = film("busy.mp4", 30, 6, is_busy=True)


REFRESH = (("g", "20"), ("intra-refresh", "1"))


def even(frame: int) -> Box:
    return 4 * frame % 200, 2 * frame % 60, 112, 112


@pytest.mark.parametrize(
    "one",
    [
        BUSY,
        # Where decoding may begin, pictures are whole only later: thrift fails, and is given up.
        film("refresh.ts", 30, 6, is_busy=True, options=(*H264[:2], *REFRESH)),
        film("vp9.webm", 30, 6, codec="libvpx-vp9", options=VP9, is_busy=True),
    ],
    ids=lambda one: one.name,
)
def test_without_loss_clips_have_the_pixels_of_the_film(studio: MediaCache, one: Film) -> None:
    path = shoot(studio, one)
    some = [track(0, 9, even), track(33, 60, even), track(120, 140, even)]
    result = cut(path, some, video_crf=0)
    assert names(result) == (ids(some), [])
    assert_same_pixels(result, read_film(path, one.size), one.times)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_film_that_says_so_is_turned(studio: MediaCache, degrees: int, tmp_path: Path) -> None:
    one, path = BUSY, tmp_path / "turned.mp4"
    turn = ("-c", "copy", "-metadata:s:v", f"rotate={degrees}")
    run_ffmpeg("-i", str(shoot(studio, one)), *turn, str(path))
    size = one.size if degrees == 180 else (one.size[1], one.size[0])
    some = [track(10, 30, lambda frame: (2 * frame, 60 - 2 * frame, 112, 112))]
    result = cut(path, some, video_crf=0)
    assert names(result) == (ids(some), [])
    assert result.clips[0].boxes_fit
    assert_same_pixels(result, read_film(path, size), one.times)


def rgb(path: Path, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return pictures as FFmpeg's program shows them on a screen, shape (n, height, width, 3)."""
    raw = run_ffmpeg(
        *("-i", str(path), "-map", "0:v:0", "-vsync", "passthrough"),
        *("-pix_fmt", "rgb24", "-f", "rawvideo", "-"),
    )
    return np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], 3).astype(np.int64)


FINE = (("preset", "veryfast"), ("crf", "4"))
FORMATS = (
    film("420.mp4", 25, 2, options=FINE),
    film("full-range.mp4", 25, 2, options=FINE, pix_fmt="yuvj420p"),
    film("422.mp4", 25, 2, options=FINE, pix_fmt="yuv422p"),
    film("444.mp4", 25, 2, options=FINE, pix_fmt="yuv444p"),
    film("full-range-444.mp4", 25, 2, options=FINE, pix_fmt="yuvj444p"),
    film("ten-bits.mp4", 25, 2, options=FINE, pix_fmt="yuv420p10le"),
    film("grey.mkv", 25, 2, codec="ffv1", options=LOSSLESS, pix_fmt="gray"),
    film("odd.mkv", 25, 2, codec="ffv1", options=LOSSLESS, size=(321, 241)),
    film("odd-444.mp4", 25, 2, options=FINE, pix_fmt="yuv444p", size=(321, 241)),
    film("odd.webm", 25, 2, codec="libvpx-vp9", options=VP9, size=(321, 241)),
    film("jpeg.avi", 25, 2, codec="mjpeg", options=JPEG, pix_fmt="yuvj420p"),
)


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_colours_on_the_screen_are_those_of_the_film(
    studio: MediaCache, one: Film, tmp_path: Path
) -> None:
    path = shoot(studio, one)
    result = cut(path, [track(5, 30, (100, 40, 112, 112))], video_crf=2)
    (tmp_path / "clip.mp4").write_bytes(result.clips[0].data)
    found = rgb(tmp_path / "clip.mp4", (112, 112))
    expected = rgb(path, one.size)[5:31, 40:152, 100:212]
    away = np.abs(found - expected)
    # Chroma is halved and put between pixels on the way; a wrong range would be 16 off and more.
    assert away.mean() <= 2
    assert away.max() <= 8


# Boxes and pictures of other sizes


@pytest.mark.parametrize("size", [32, 112, 224])
def test_clips_have_the_size_that_is_asked_for(studio: MediaCache, size: int) -> None:
    one = MAIN[1]
    result = cut(shoot(studio, one), TRACKS[:1], video_size=size)
    assert_shows(result, one, size=size)


@pytest.mark.parametrize("box", [(100, 90, 3, 3), (200, 30, 1, 7), (50, 120, 12, 8)], ids=str)
def test_tiny_boxes_are_scaled_up(studio: MediaCache, box: Box) -> None:
    one = MAIN[0]
    result = cut(shoot(studio, one), [track(3, 9, box)], video_crf=2)
    assert_shows(result, one)


def test_boxes_of_a_given_picture_size_are_scaled_from_it(studio: MediaCache) -> None:
    one = MAIN[0]
    path = shoot(studio, one)
    some = [
        track(0, 20, lambda frame: (400 + 4 * frame, 160, 320, 240), frame_size=(1280, 720)),
        track(30, 40, (50, 40, 40, 80), frame_size=(160, 180)),
    ]
    result = cut(path, some, video_shape="stretched")
    quarter = Fraction(1, 4)
    scales = [(quarter, quarter), (Fraction(2), Fraction(1))]
    assert_shows(result, one, square=False, scales=scales)
    # What is stored are the release's pixels.
    assert result.clips[0].boxes[1].tolist() == [404, 160, 320, 240]


@pytest.mark.parametrize("lines", [1080, 720, 360])
def test_without_a_size_boxes_are_of_720_lines_or_of_fewer(studio: MediaCache, lines: int) -> None:
    one = film("lines.mp4", 25, 2, size=(180, lines))
    result = cut(shoot(studio, one), [track(5, 20, (20, 100, 80, 160))], video_shape="stretched")
    scale = Fraction(max(lines, 720), 720)
    assert_shows(result, one, square=False, scales=[(scale, scale)])


def test_a_film_that_changes_its_size_midway_is_followed(
    studio: MediaCache, tmp_path: Path
) -> None:
    sizes = ((320, 180), (160, 90))
    parts = [film("part.ts", 25, 4, size=size, options=H264[:3]) for size in sizes]
    path, plan = tmp_path / "both.ts", tmp_path / "plan.txt"
    plan.write_text("".join(f"file '{shoot(studio, part)}'\n" for part in parts))
    run_ffmpeg("-f", "concat", "-safe", "0", "-i", str(plan), "-c", "copy", str(path))
    some = [
        track(*ends, (100, 40, 80, 80), frame_size=(320, 180))
        for ends in ((20, 60), (80, 119), (130, 170))
    ]
    result = cut(path, some, video_crf=8)
    assert names(result) == (ids(some), [])
    for clip, planes in zip(
        result.clips, read_clips([one.data for one in result.clips], size=112), strict=True
    ):
        said = clip.utterance
        # Numbers begin again with the second part, and windows shrink with it.
        for frame, one in zip(range(said.first_frame, said.last_frame + 1), planes, strict=True):
            assert numbers_in(one[None], near=[frame % 100]) == [frame % 100]
            size = sizes[frame // 100]
            expected = np.array([100, 40, 180, 120]) * size[0] / 320
            ((*found,),) = edges_in(one[None], size)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2)


# Boxes that reach outside


def test_what_a_box_has_outside_the_picture_is_black(studio: MediaCache) -> None:
    one = MAIN[0]
    path = shoot(studio, one)
    corners = {
        (0, 9): (-56, -28),
        (10, 19): (320 - 28, 180 - 84),
        (20, 29): (-40, 180 - 12),
        (30, 39): (100, -100),
    }
    some = [track(*ends, (*at, 112, 112)) for ends, at in corners.items()]
    result = cut(path, some, video_crf=0)
    assert names(result) == (ids(some), [])
    shown = read_film(path, one.size)
    for clip, (x, y) in zip(result.clips, corners.values(), strict=True):
        (found,) = read_clips([clip.data], size=112)
        for planes, number in zip(found, due_pictures(one.times, clip.utterance), strict=True):
            for place, plane in enumerate(shown[number]):
                half = 1 if place == 0 else 2
                size = 112 // half
                wide = np.full((3 * size + plane.shape[0], 3 * size + plane.shape[1]), 128)
                wide[:] = 16 if place == 0 else 128
                wide[size : size + plane.shape[0], size : size + plane.shape[1]] = plane
                left, top = x // half + size, y // half + size
                expected = wide[top : top + size, left : left + size]
                start = (0, 112, 140)[place]
                cells = planes[start : start + size // half].reshape(size, size)
                np.testing.assert_array_equal(cells, expected)


def test_a_box_wholly_outside_costs_its_utterance_alone(studio: MediaCache) -> None:
    def leaving(frame: int) -> Box:
        return (100, 40, 80, 80) if frame < 57 else (320, 40, 80, 90)

    some = [TRACKS[0], track(50, 70, leaving), track(50, 70, moving, name="beside"), TRACKS[3]]
    result = cut(shoot(studio, MAIN[0]), some)
    assert names(result) == (ids([some[0], some[2], some[3]]), ids(some[1:2]))
    assert result.missing[0].reason == (
        "has a box outside the picture at frame 57 (x 320, y 40, 80 x 90; "
        "the picture has 320 x 180 pixels)"
    )
    assert_shows(result, MAIN[0])


def test_a_box_with_one_column_in_the_picture_is_cut(studio: MediaCache) -> None:
    some = [track(0, 5, (319, 40, 80, 90)), track(10, 15, (100, -79, 80, 80))]
    assert names(cut(shoot(studio, MAIN[0]), some)) == (ids(some), [])


def test_boxes_that_do_not_fit_are_marked_in_all_rows_of_a_video(studio: MediaCache) -> None:
    path = shoot(studio, MAIN[0])
    beyond = track(50, 70, (270, 40, 101, 80))  # its centre is half a pixel outside
    within = track(50, 70, (270, 40, 99, 80))
    outside = track(80, 90, (400, 40, 80, 80))
    for odd, expected in ((within, True), (beyond, False), (outside, False)):
        for some in ([TRACKS[0], odd, TRACKS[3]], [odd, TRACKS[0], TRACKS[3]]):
            result = cut(path, some, video_size=32, video_margin=0.5)
            assert {clip.boxes_fit for clip in result.clips} == {expected}
            assert len(result.clips) == (2 if odd is outside else 3)


def test_boxes_without_area_cost_their_utterance_alone(studio: MediaCache) -> None:
    some = [
        track(0, 20, lambda frame: (100, 40, 80, 80 * (frame < 17))),
        TRACKS[1],
        track(90, 99, (100, 40, -20, 30)),
    ]
    result = cut(shoot(studio, MAIN[0]), some)
    assert names(result) == (ids(some[1:2]), ids([some[0], some[2]]))
    assert [one.reason for one in result.missing] == [
        "has a box without area at frame 17 (80 x 0 pixels)",
        "has a box without area at frame 90 (-20 x 30 pixels)",
    ]


def test_gaps_of_up_to_25_frames_are_filled_on_a_line(studio: MediaCache) -> None:
    one = MAIN[0]

    def sliding(frame: int) -> Box:
        return 40 + 2 * frame, 30 + frame, 40 + frame, 50

    some = [
        track(0, 60, sliding, rows=[0, 1, 20, 46, 60]),
        track(70, 97, sliding, rows=[70, 97]),
    ]
    result = cut(shoot(studio, one), some)
    assert names(result) == (ids(some[:1]), ids(some[1:]))
    assert result.clips[0].boxes.tolist() == [list(sliding(frame)) for frame in range(61)]
    assert_shows(result, one)
    assert result.missing[0].reason == (
        "has no box for 26 frames after frame 70; at most 25 are filled in"
    )


def test_two_faces_of_one_moment_are_two_clips(studio: MediaCache) -> None:
    one = MAIN[1]
    left, right = track(50, 80, (20, 40, 80, 80), name="l"), track(50, 80, (200, 90, 60, 60))
    result = cut(shoot(studio, one), [right, left, track(80, 80, (100, 100, 50, 50))])
    assert [clip.boxes[0][0] for clip in result.clips] == [200, 20, 100]
    assert_shows(result, one)


VAST = """
import pathlib, resource, sys
import numpy as np
from film import read_clips, track
from voxblink2_lib.config import ClipOptions
from voxblink2_lib.faces import crop_faces
boxes = {"corner": (-16000, -16000, 32767, 32767), "far": (-32768, -32768, 32767, 32767)}
tracks = [track(0, 5, box, name=name) for name, box in boxes.items()]
options = ClipOptions(video_margin=2.0)
crop_faces(pathlib.Path(sys.argv[1]), [track(0, 5)], options=options)
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**28
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
cut = crop_faces(pathlib.Path(sys.argv[1]), tracks, options=options)
(clip,) = read_clips([one.data for one in cut.clips], size=112)
assert len(clip) == 6 and np.all(clip[:, :112] <= 17) and not cut.clips[0].boxes_fit
assert [one.utterance_id for one in cut.missing] == ["far"]
"""


def run_python(program: str, *arguments: object) -> str:
    """Run a program in a process of its own, which finds the library and what tests share."""
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


def test_a_vast_box_takes_no_more_memory_than_another(studio: MediaCache) -> None:
    # A picture of its size would take a gigabyte; a quarter is allowed.
    run_python(VAST, shoot(studio, MAIN[0]))


# Pictures that are not there


def test_pictures_may_end_one_frame_early(studio: MediaCache) -> None:
    # 200 pictures of 40 ms end with frame 199.
    one = MAIN[0]
    some = [track(180, last, moving) for last in (199, 200, 201)] + [track(900, 950)]
    result = cut(shoot(studio, one), some)
    assert names(result) == (ids(some[:2]), ids(some[2:]))
    assert_numbers(result, one.times)
    assert [found.reason for found in result.missing] == [
        "ends at 8.08 s, the pictures end at 8.00 s",
        "ends at 38.04 s, the pictures end at 8.00 s",
    ]


def copy_without(source: Path, target: Path, numbers: range) -> None:
    """Copy a film of key pictures alone without some of them."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.size and number not in numbers:
                packet.stream = stream
                new.mux(packet)


@pytest.mark.parametrize("name", ["keys.mp4", "keys.mkv"])
def test_a_hole_is_filled_with_what_is_at_most_half_a_second_away(
    studio: MediaCache, name: str, tmp_path: Path
) -> None:
    one = film(name, 25, 5, options=(*H264[:2], ("g", "1")))
    path = tmp_path / name
    # From picture 49 to 74: 12 frames at most to the nearer of the two.
    copy_without(shoot(studio, one), path, range(50, 74))
    result = cut(path, [track(40, 62, moving), track(55, 90, moving), track(61, 61, moving)])
    assert result.missing == ()
    times = [time for number, time in enumerate(one.times) if not 50 <= number < 74]
    every = read_clips([clip.data for clip in result.clips], size=112)
    for clip, planes in zip(result.clips, every, strict=True):
        due = [n if n < 50 else n + 24 for n in due_pictures(times, clip.utterance)]
        assert numbers_in(planes, near=due) == due


def test_a_longer_hole_costs_the_utterances_in_it(studio: MediaCache, tmp_path: Path) -> None:
    one = film("keys.mp4", 25, 5, options=(*H264[:2], ("g", "1")))
    path = tmp_path / "hole.mp4"
    # From picture 49 to 91: 21 frames to both from number 70.
    copy_without(shoot(studio, one), path, range(50, 91))
    before, edge = track(20, 49, moving), track(40, 61, moving)
    inside, across, after = track(62, 70, moving), track(45, 120, moving), track(91, 120, moving)
    result = cut(path, [before, edge, inside, across, after])
    assert names(result) == (ids([before, edge, after]), ids([inside, across]))
    assert [found.reason for found in result.missing] == [
        "needs a picture at 2.80 s, the nearest one is 0.84 s away",
        "needs a picture at 2.80 s, the nearest one is 0.84 s away",
    ]


SHORT = (
    film("short.mkv", 25, is_busy=True, size=(160, 96)),
    film("short.ts", 25, is_busy=True, size=(160, 96)),
    film("short.mp4", 25, is_busy=True, size=(160, 96)),
    film("vp9.webm", 25, codec="libvpx-vp9", options=VP9, is_busy=True, size=(160, 96)),
    film("vp9.mp4", 25, codec="libvpx-vp9", options=VP9, is_busy=True, size=(160, 96)),
)


@pytest.mark.parametrize("one", SHORT, ids=lambda one: one.name)
def test_the_beginning_of_a_file_cut_short_is_used(
    studio: MediaCache, one: Film, tmp_path: Path
) -> None:
    whole, path = tmp_path / f"whole-{one.name}", tmp_path / one.name
    index_first = ("-movflags", "+faststart") if one.name.endswith("mp4") else ()
    run_ffmpeg("-i", str(shoot(studio, one)), "-c", "copy", *index_first, str(whole))
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    some = [track(frame, frame, (20, 10, 64, 64)) for frame in range(60, 140)]
    expected = [clip.data for clip in cut(whole, some, video_size=64, video_crf=0).clips]
    result = cut(path, some, video_size=64, video_crf=0)
    done, missing = names(result)
    assert done + missing == ids(some)
    assert 20 <= len(done) <= 60
    # One frame after the end the last picture still counts; none is of half a packet.
    found = [clip.data for clip in result.clips]
    assert found in (expected[: len(found)], [*expected[: len(found) - 1], found[-2]])
    end = r"(ends at \d.\d\d s, the pictures end at \d.\d\d s|.*, which is damaged)"
    assert all(re.fullmatch(end, one.reason) for one in result.missing)


def cover(studio: MediaCache, folder: Path) -> Path:
    picture, path = folder / "cover.png", folder / "cover.m4a"
    run_ffmpeg("-f", "lavfi", "-i", "color=red:size=16x16", "-frames:v", "1", str(picture))
    both = ("-i", str(studio.make(M4A)), "-i", str(picture), "-map", "0:a", "-map", "1:v")
    run_ffmpeg(*both, "-c", "copy", "-disposition:v", "attached_pic", str(path))
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the media file is empty"),
        (b"Sign in to confirm your age\n" * 40, "cannot be read: Invalid data found"),
        ("sound", "the media file has no pictures"),
        ("cover", "the media file has no pictures"),
    ],
    ids=["empty", "text", "sound", "cover"],
)
def test_what_has_no_pictures_is_named_so(
    studio: MediaCache, content: bytes | str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "media"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path = studio.make(M4A) if content == "sound" else cover(studio, tmp_path)
    with pytest.raises(MediaError, match=message):
        cut(path, TRACKS)


def test_nothing_asked_for_is_nothing_cut(studio: MediaCache) -> None:
    assert cut(shoot(studio, MAIN[0]), []) == FaceCut((), ())


# Damage


GROUP = 25
X264 = f"scenecut=0:b-adapt=0:keyint={GROUP}:min-keyint={GROUP}:bframes=2:b-pyramid=none"
X264_OPTIONS = (("preset", "veryfast"), ("crf", "25"), ("x264-params", X264))
FRAGILE = film("fragile.mp4", 25, 6, is_busy=True, size=(160, 96), options=X264_OPTIONS)
# Four in each group of 25 pictures.
PIECES = tuple(
    track(GROUP * group + first, GROUP * group + last, (20, 10, 64, 64))
    for group in range(6)
    for first, last in ((0, 5), (6, 11), (12, 18), (19, 24))
)


def cut_pieces(path: Path) -> tuple[dict[Utterance, bytes], dict[str, str]]:
    """Return the clips, without loss, and the reasons of those missing."""
    result = cut(path, PIECES, video_size=64, video_crf=0)
    assert len(result.clips) + len(result.missing) == len(PIECES)
    clips = {clip.utterance: clip.data for clip in result.clips}
    return clips, {one.utterance_id: one.reason for one in result.missing}


cut_whole = functools.cache(cut_pieces)


@pytest.mark.parametrize("skip", [0.0, 0.5], ids=["lost", "concealed"])
@pytest.mark.parametrize("packet", [75, 76, 81, 83, 94])
def test_damage_costs_what_depends_on_it_and_nothing_else(
    studio: MediaCache, packet: int, skip: float, tmp_path: Path
) -> None:
    source, path = shoot(studio, FRAGILE), tmp_path / "damaged.mp4"
    whole, nothing = cut_whole(source)
    assert not nothing
    packets = packets_of_film(source)
    shown = sorted(one.pts for one in packets)
    damaged = {shown.index(one.pts) for one in packets[packet:100]}
    spoil_noticeably(source, path, packet=packet, skip=skip)
    clips, missing = cut_pieces(path)
    lost = {piece.utterance for piece in PIECES if damaged.intersection(piece.frames.tolist())}
    assert clips == {said: data for said, data in whole.items() if said not in lost}
    assert missing.keys() == {said.utterance_id for said in lost}
    for said in lost:
        first = min(damaged.intersection(range(said.first_frame, said.last_frame + 1)))
        reason = missing[said.utterance_id]
        assert reason == f"needs the picture at {first / 25:.2f} s, which is damaged"


def test_only_what_is_amiss_is_decoded_twice(
    studio: MediaCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[bool] = []

    class Counted(video_decoder.VideoFrameDecoder):
        def __init__(self, *some: Any, skip_unneeded: bool) -> None:
            passes.append(skip_unneeded)
            super().__init__(*some, skip_unneeded=skip_unneeded)

    monkeypatch.setattr(faces, "VideoFrameDecoder", Counted)
    source, path = shoot(studio, FRAGILE), tmp_path / "damaged.mp4"
    outside = track(0, 5, (400, 40, 80, 80), name="outside")
    cut(source, [*PIECES, outside])
    assert passes == [True]
    spoil(source, path, packet=83)
    cut(path, PIECES)
    assert passes == [True, True, False]
    cut(path, PIECES[:12])
    assert passes == [True, True, False, True]


@pytest.mark.parametrize("seed", range(8))
def test_no_wrong_picture_is_returned_when_the_decoder_notices(
    studio: MediaCache, seed: int, tmp_path: Path
) -> None:
    source, path = shoot(studio, FRAGILE), tmp_path / "damaged.mp4"
    whole, _ = cut_whole(source)
    place = 50 + 7 * seed % 25
    spoil(source, path, packet=place, skip=(seed % 4) / 5, seed=seed)
    clips, missing = cut_pieces(path)
    wrong = {said.utterance_id for said, data in clips.items() if data != whole[said]}
    if notices(path):
        assert wrong == set()
        assert missing
    # Damage that passes for a picture spreads as well, and no farther than its group.
    assert {int(name[:5]) // GROUP for name in wrong | missing.keys()} <= {2}


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libvpx-vp9", (*VP9[:-1], ("g", "25"))),
        ("mpeg4", (("b", "600k"), ("g", "25"))),
    ],
)
def test_other_decoders_do_not_hide_a_lost_picture(
    studio: MediaCache, codec: str, options: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    one = replace(FRAGILE, name=f"{codec}.mp4", codec=codec, options=options)
    source, path = shoot(studio, one), tmp_path / one.name
    whole, _ = cut_pieces(source)
    assert [packet.is_key for packet in packets_of_film(source)[::GROUP]] == [True] * 6
    spoil(source, path, packet=83)
    clips, missing = cut_pieces(path)
    lost = [piece.utterance for piece in PIECES[13:16]]
    assert clips == {said: data for said, data in whole.items() if said not in lost}
    assert missing == {
        said.utterance_id: f"needs the picture at {max(83, said.first_frame) / 25:.2f} s, "
        "which is damaged"
        for said in lost
    }


def test_stamps_that_do_not_tell_the_order_of_pictures_are_noticed(studio: MediaCache) -> None:
    # AVI has no room for the times of B pictures; FFmpeg numbers them as they are stored.
    result = cut(shoot(studio, film("h264.avi", 25)), TRACKS[:3])
    assert names(result) == ([], ids(TRACKS[:3]))
    assert {one.reason for one in result.missing} == {
        "has pictures that the decoder gives in another order than that of their times"
    }


FLIP = """
import collections, io, json, pathlib, random, sys
import av
from film import track
from truth import damaged
from voxblink2_lib.config import ClipOptions
from voxblink2_lib.errors import MediaError
from voxblink2_lib.faces import crop_faces
source, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
data = source.read_bytes()
tracks = [track(3, 20, (20, 10, 64, 64)), track(30, 60, (90, 10, 64, 64))]
ends = collections.Counter()
for seed in range(15):
    chance = random.Random(seed)
    count = chance.choice((1, 3, 10, 100))
    # The index breaks in more ways than the pictures: every second file is hit there alone.
    reach = 4000 if seed % 2 else len(data)
    places = [chance.randrange(reach) for _ in range(count)]
    path = work / f"{seed}{source.suffix}"
    path.write_bytes(damaged(data, places, [chance.randrange(256) for _ in range(count)]))
    try:
        cut = crop_faces(path, tracks, options=ClipOptions(video_size=32))
        assert len(cut.clips) + len(cut.missing) == len(tracks)
        assert all(len(one.reason) > 10 for one in cut.missing)
        for one in cut.clips:
            with av.open(io.BytesIO(one.data)) as container:
                assert sum(1 for _ in container.decode(video=0)) == len(one.boxes)
        ends["cut" if cut.clips else "missing"] += 1
    except MediaError as error:
        assert len(str(error)) > 10
        ends["MediaError"] += 1
    except BaseException as error:
        ends[f"seed {seed}: {error!r}"] += 1
print(json.dumps(ends))
"""


@pytest.mark.parametrize(
    "one",
    [FRAGILE, replace(FRAGILE, name="flip.mkv"), replace(FRAGILE, name="flip.ts")],
    ids=lambda one: one.name,
)
def test_flipped_bytes_end_in_clips_or_reasons_or_a_media_error(
    studio: MediaCache, one: Film, tmp_path: Path
) -> None:
    # In a process of its own: a crash in a C library would take pytest with it.
    ends = json.loads(run_python(FLIP, shoot(studio, one), tmp_path))
    assert set(ends) <= {"cut", "missing", "MediaError"}, ends
    assert sum(ends.values()) == 15


# The same at every run


def digests(result: FaceCut) -> list[str]:
    return [hashlib.sha256(clip.data).hexdigest() for clip in result.clips]


DIGESTS = """
import hashlib, json, pathlib, sys
from test_faces import TRACKS, cut
clips = cut(pathlib.Path(sys.argv[1]), TRACKS[:3]).clips
print(json.dumps([hashlib.sha256(clip.data).hexdigest() for clip in clips]))
"""


def test_a_second_run_and_another_process_give_the_same_bytes(studio: MediaCache) -> None:
    path = shoot(studio, BUSY)
    expected = digests(cut(path, TRACKS[:3]))
    assert len(set(expected)) == 3
    assert digests(cut(path, TRACKS[:3])) == expected
    assert json.loads(run_python(DIGESTS, path)) == expected


def test_busy_threads_change_nothing(studio: MediaCache) -> None:
    path = shoot(studio, BUSY)
    expected = digests(cut(path, TRACKS[:3]))
    stop = threading.Event()

    def toil() -> None:
        while not stop.is_set():
            cut(path, TRACKS[:1])

    toilers = [threading.Thread(target=toil) for _ in range(2)]
    for one in toilers:
        one.start()
    try:
        assert digests(cut(path, TRACKS[:3])) == expected
    finally:
        stop.set()
        for one in toilers:
            one.join()


def test_a_clip_does_not_depend_on_what_else_is_cut(studio: MediaCache) -> None:
    path = shoot(studio, BUSY)
    expected = digests(cut(path, TRACKS[:3]))
    assert [digests(cut(path, [one])) for one in TRACKS[:3]] == [[digest] for digest in expected]
    assert digests(cut(path, TRACKS[2::-1])) == expected[::-1]
    crowd = [
        *TRACKS,
        *(track(frame, frame + 40, moving, name=f"n{frame}") for frame in range(0, 90, 6)),
    ]
    assert digests(cut(path, crowd))[:3] == expected
