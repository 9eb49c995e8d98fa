"""A cut shows its window to the pixel, and a clip is a plain MP4 file, the same at every run."""

from __future__ import annotations

import io
import json
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.synthetic_audio import MediaCache
from support.synthetic_video import (
    Film,
    Planes,
    film,
    picture,
    read_clips,
    run_ffmpeg,
    shoot,
    stored_planes,
)
from torchcodec import decoders

from voxblink2_lib.media.face_encoder import (
    FaceVideo,
    Window,
    cut_window,
    is_full_range,
    quarter_turns,
    shown_size,
)

MANY = settings(max_examples=60, deadline=None, database=None, derandomize=True)
Plane = npt.NDArray[np.uint8]

WOVEN = Film("woven.mp4", is_busy=True, size=(160, 96))
ODD = replace(WOVEN, size=(161, 97))


# Windows


def filtered(plane: Plane, window: Window, size: int) -> npt.NDArray[np.float64]:
    """Return what a triangle filter as wide as the step makes of a window: a plane of floats.

    NaN stands where a pixel of the cut reaches outside the plane.
    """
    left, top, right, bottom = window
    across = weights(left, right, plane.shape[1], size)
    down = weights(top, bottom, plane.shape[0], size)
    return np.asarray(down @ plane.astype(np.float64) @ across.T)


def weights(start: float, end: float, length: int, size: int) -> npt.NDArray[np.float64]:
    step = (end - start) / size
    table = np.full((size, length), np.nan)
    for place in range(size):
        if start + place * step < -1e-9 or start + (place + 1) * step > length + 1e-9:
            continue
        middle = start + (place + 0.5) * step
        away = np.abs(np.arange(length) + 0.5 - middle) / max(step, 1.0)
        table[place] = np.maximum(0, 1 - away)
        table[place] /= table[place].sum()
    return table


def assert_cut(frame: av.VideoFrame, shown: Sequence[Plane], window: Window, *, size: int) -> None:
    """Check a cut against the planes of the picture as it is shown."""
    cut = cut_window(frame, window, size=size)
    assert cut.shape == (size * 3 // 2, size)
    assert cut.dtype == np.uint8
    black = 0 if is_full_range(frame) else 16
    for place, (found, plane) in enumerate(zip(parts(cut), shown, strict=True)):
        left, top, right, bottom = window if place == 0 else (edge / 2 for edge in window)
        expected = filtered(plane, (left, top, right, bottom), found.shape[0])
        outside = np.isnan(expected)
        np.testing.assert_array_equal(found[outside], black if place == 0 else 128)
        # Pillow rounds after each of the two directions.
        np.testing.assert_allclose(found[~outside], expected[~outside], rtol=0, atol=1.2)


def parts(cut: Planes) -> tuple[Plane, Plane, Plane]:
    """Return the planes of a cut."""
    size = cut.shape[1]
    u, v = cut[size:].reshape(2, size // 2, size // 2)
    return cut[:size], u, v


# Sixteenths of pixels, so that floating point holds them exactly.
corners = st.integers(-40 * 16, 190 * 16).map(lambda parts: parts / 16)
spans = st.integers(1 * 16, 250 * 16).map(lambda parts: parts / 16)


@MANY
@given(
    corner=st.tuples(corners, corners),
    span=st.tuples(spans, spans),
    size=st.sampled_from([32, 48, 112]),
    one=st.sampled_from([WOVEN, ODD]),
)
def test_a_cut_is_the_window_scaled_by_a_filter_that_averages(
    corner: tuple[float, float], span: tuple[float, float], size: int, one: Film
) -> None:
    frame = picture(one, 3)
    window = (*corner, corner[0] + span[0], corner[1] + span[1])
    assert_cut(frame, stored_planes(frame), window, size=size)


def test_a_window_as_large_as_the_cut_is_copied() -> None:
    frame = picture(WOVEN, 3)
    y, u, v = stored_planes(frame)
    found = parts(cut_window(frame, (40, 20, 104, 84), size=64))
    np.testing.assert_array_equal(found[0], y[20:84, 40:104])
    np.testing.assert_array_equal(found[1], u[10:42, 20:52])
    np.testing.assert_array_equal(found[2], v[10:42, 20:52])


@pytest.mark.parametrize(
    ("window", "rows", "columns"),
    [
        ((-24, -16, 40, 48), slice(16, 64), slice(24, 64)),
        ((120, 60, 184, 124), slice(0, 36), slice(0, 40)),
        ((-64, 10, 0, 74), slice(0, 0), slice(0, 0)),
        ((-16, -40, 240, 216), slice(10, 34), slice(4, 44)),
    ],
    ids=["left and above", "right and below", "beside", "all around"],
)
def test_what_lies_outside_is_black(window: Window, rows: slice, columns: slice) -> None:
    y, u, v = parts(cut_window(picture(WOVEN, 3), window, size=64))
    inside = np.zeros((64, 64), np.bool_)
    inside[rows, columns] = True
    np.testing.assert_array_equal(y == 16, ~inside)
    for plane in (u, v):
        assert np.all(plane[~inside[::2, ::2]] == 128)


def test_full_range_has_another_black() -> None:
    frame = picture(replace(WOVEN, pix_fmt="yuvj420p"), 3)
    y, _, _ = parts(cut_window(frame, (-32, 0, 32, 64), size=64))
    assert set(y[:, :32].ravel().tolist()) == {0}
    assert is_full_range(frame)
    assert not is_full_range(picture(WOVEN, 3))


@pytest.mark.parametrize("wide", [32767.0, 5.0 * 32767])
def test_a_vast_window_is_black_all_over(wide: float) -> None:
    frame = picture(WOVEN, 3)
    cut = cut_window(frame, (-wide / 2, -wide / 2, wide / 2, wide / 2), size=112)
    # One pixel of the cut is larger than the picture.
    assert [np.unique(plane).tolist() for plane in parts(cut)] == [[16], [128], [128]]


def test_a_window_of_one_pixel_fills_the_cut() -> None:
    frame = picture(WOVEN, 3)
    assert_cut(frame, stored_planes(frame), (50, 40, 51, 41), size=64)


def test_a_cut_leaves_the_picture_as_it_is() -> None:
    frame = picture(WOVEN, 3)
    before = stored_planes(frame)
    cut = cut_window(frame, (10, 10, 60, 60), size=64)
    cut[:] = 0
    for plane, copy in zip(stored_planes(frame), before, strict=True):
        np.testing.assert_array_equal(plane, copy)


# Rotation


TURNS = {0: 0, 90: 1, 180: 2, 270: 3}


def turned(studio: MediaCache, degrees: int, one: Film, folder: Path) -> Path:
    """Return a film that says it is to be turned."""
    path = folder / f"turned-{degrees}.mp4"
    turn = ("-c", "copy", "-metadata:s:v", f"rotate={degrees}")
    run_ffmpeg("-i", str(shoot(studio, one)), *turn, str(path))
    return path


def shown_planes(path: Path, size: tuple[int, int]) -> tuple[Plane, Plane, Plane]:
    """Return the first picture as FFmpeg's program shows it, turned by its own rules."""
    raw = run_ffmpeg("-i", str(path), "-frames:v", "1", "-f", "rawvideo", "-")
    flat = np.frombuffer(raw, np.uint8)
    width, height = size
    half = (height // 2, width // 2)
    y, rest = flat[: width * height], flat[width * height :]
    u, v = rest.reshape(2, *half)
    return y.reshape(height, width), u, v


@pytest.mark.parametrize("degrees", TURNS)
def test_windows_count_in_the_picture_as_it_is_shown(
    studio: MediaCache, degrees: int, tmp_path: Path
) -> None:
    one = film("upright.mp4", 25, 1, is_busy=True, size=(160, 96))
    path = turned(studio, degrees, one, tmp_path)
    size = (160, 96) if degrees in {0, 180} else (96, 160)
    shown = shown_planes(path, size)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert shown_size(frame) == size
    # FFmpeg's metadata count clockwise, PyAV counterclockwise.
    assert quarter_turns(frame) % 2 == TURNS[degrees] % 2
    # Exactly the same pixels: turned, not mirrored, at the right place.
    y, u, v = parts(cut_window(frame, (8, 14, 72, 78), size=64))
    np.testing.assert_array_equal(y, shown[0][14:78, 8:72])
    np.testing.assert_array_equal(u, shown[1][7:39, 4:36])
    np.testing.assert_array_equal(v, shown[2][7:39, 4:36])
    for window in ((-20.5, 3.0, 60.25, 50.0), (30.0, 40.0, 200.0, 90.5), (70.0, -9.0, 90.0, 140.0)):
        assert_cut(frame, shown, window, size=48)


# Other formats than 4:2:0 with 8 bits


@pytest.mark.parametrize(
    ("pix_fmt", "at_most"),
    [
        ("yuvj420p", 0),
        ("yuv422p", 2),
        ("yuv444p", 2),
        ("yuvj444p", 2),
        ("yuv420p10le", 1),
        ("yuv422p10le", 2),
    ],
)
def test_other_formats_become_420_with_8_bits_and_keep_their_range(
    pix_fmt: str, at_most: int
) -> None:
    # Their pictures name themselves: flat, with colours that rise evenly, whatever the format.
    one = Film("formats.mp4", pix_fmt=pix_fmt, size=(160, 96))
    plain = picture(replace(one, pix_fmt="yuv420p"), 5)
    window: Window = (20, 10, 100, 90)
    found = parts(cut_window(picture(one, 5), window, size=64))
    for cut, expected in zip(found, parts(cut_window(plain, window, size=64)), strict=True):
        np.testing.assert_allclose(cut.astype(int), expected.astype(int), rtol=0, atol=at_most)


# The encoder


def planes_of(numbers: Sequence[int], *, size: int = 64) -> list[Planes]:
    one = replace(WOVEN, size=(320, 180))
    window = (60.0, 30.0, 60.0 + min(size, 140), 30.0 + min(size, 140))
    return [cut_window(picture(one, number), window, size=size) for number in numbers]


def encoded(
    planes: Sequence[Planes], *, crf: int = 20, like: av.VideoFrame | None = None
) -> tuple[bytes, FaceVideo]:
    size = planes[0].shape[1]
    video = FaceVideo(like or picture(WOVEN, 0), size=size, crf=crf)
    for one in planes:
        video.add(one)
    return video.finish(), video


def decoded(data: bytes) -> Planes:
    """Return the pictures of a clip, as PyAV decodes them."""
    with av.open(io.BytesIO(data), "r") as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    return np.asarray(frames, np.uint8)


def probed(data: bytes, folder: Path, *entries: str) -> Any:
    """Return what FFmpeg's prober says of a clip."""
    path = folder / "clip.mp4"
    path.write_bytes(data)
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_entries", ":".join(entries)]
    done = subprocess.run([*command, str(path)], capture_output=True, check=True)
    assert done.stderr == b""
    return json.loads(done.stdout)


def test_pictures_without_loss_are_the_planes_that_were_added() -> None:
    planes = planes_of(range(12))
    data, video = encoded(planes, crf=0)
    assert video.frames == 12
    np.testing.assert_array_equal(decoded(data), np.stack(planes))


def test_a_higher_crf_is_smaller_and_worse() -> None:
    planes = planes_of(range(12))
    fine, coarse = (encoded(planes, crf=crf)[0] for crf in (10, 40))
    assert len(coarse) < len(fine) / 2
    errors = [np.abs(decoded(one).astype(int) - np.stack(planes)).mean() for one in (fine, coarse)]
    assert errors[0] < 4 < errors[1]


@pytest.mark.parametrize("count", [1, 2, 25, 60])
@pytest.mark.parametrize("size", [32, 112, 224])
def test_clips_have_25_pictures_a_second_and_begin_at_zero(
    count: int, size: int, tmp_path: Path
) -> None:
    data, _ = encoded(planes_of([number % 9 for number in range(count)], size=size))
    said = probed(
        data,
        tmp_path,
        "stream=codec_name,width,height,pix_fmt,r_frame_rate,avg_frame_rate,nb_frames,start_time,"
        "duration,has_b_frames",
        "format=format_name,nb_streams,start_time,duration",
        "packet=pts_time,duration_time,flags",
    )
    (stream,) = said["streams"]
    assert stream == {
        "codec_name": "h264",
        "width": size,
        "height": size,
        "pix_fmt": "yuv420p",
        "has_b_frames": 0,
        "r_frame_rate": "25/1",
        "avg_frame_rate": "25/1",
        "start_time": "0.000000",
        "duration": f"{count / 25:.6f}",
        "nb_frames": str(count),
    }
    assert said["format"]["duration"] == f"{count / 25:.6f}"
    assert float(said["format"]["start_time"]) == 0
    assert [float(one["pts_time"]) for one in said["packets"]] == pytest.approx(
        [number / 25 for number in range(count)]
    )
    # A reader of a part decodes a second at most.
    keys = [number for number, one in enumerate(said["packets"]) if one["flags"][0] == "K"]
    assert keys[0] == 0
    assert max(np.diff([*keys, count])) <= 25


@pytest.mark.parametrize("count", [1, 60])
def test_torchcodec_reads_clips(count: int) -> None:
    data, _ = encoded(planes_of([number % 9 for number in range(count)], size=112))
    reader: Any = decoders.VideoDecoder(data)  # type: ignore[attr-defined]  # not exported
    assert len(reader) == count
    assert reader.metadata.average_fps == 25
    assert (reader.metadata.width, reader.metadata.height) == (112, 112)
    frames = reader.get_frames_in_range(0, count)
    np.testing.assert_allclose(frames.pts_seconds, np.arange(count) / 25, rtol=0, atol=1e-6)
    np.testing.assert_allclose(frames.duration_seconds, 0.04, rtol=0, atol=1e-6)
    assert reader.metadata.end_stream_seconds == pytest.approx(count / 25)


def test_ffmpeg_decodes_clips_without_a_warning(tmp_path: Path) -> None:
    data, _ = encoded(planes_of(range(30)))
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    command = ["ffmpeg", "-nostdin", "-v", "warning", "-i", str(path), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = read_clips([data], size=64)
    np.testing.assert_array_equal(found, decoded(data))


def test_the_meaning_of_colours_is_that_of_the_source(tmp_path: Path) -> None:
    like = picture(WOVEN, 0)
    like.colorspace, like.color_primaries, like.color_trc = 1, 1, 1  # BT.709
    data, _ = encoded(planes_of(range(2)), like=like)
    fields = "color_range,color_space,color_transfer,color_primaries"
    (stream,) = probed(data, tmp_path, f"stream={fields}")["streams"]
    assert stream["color_space"] == stream["color_transfer"] == stream["color_primaries"] == "bt709"
    assert stream.get("color_range", "tv") == "tv"
    full = picture(replace(WOVEN, pix_fmt="yuvj420p"), 0)
    data, _ = encoded(planes_of(range(2)), like=full)
    (stream,) = probed(data, tmp_path, f"stream={fields}")["streams"]
    assert stream["color_range"] == "pc"


# The same bytes


def test_the_same_pictures_are_the_same_bytes() -> None:
    planes = planes_of(range(30))
    assert len({encoded(planes)[0] for _ in range(5)}) == 1


def test_bytes_do_not_depend_on_what_else_is_being_encoded() -> None:
    clips = [planes_of(range(start, start + 9)) for start in range(0, 90, 9)]
    alone = [encoded(planes)[0] for planes in clips]
    videos = [FaceVideo(picture(WOVEN, 0), size=64, crf=20) for _ in clips]
    for one in range(9):
        for video, planes in zip(videos, clips, strict=True):
            video.add(planes[one])
    assert [video.finish() for video in videos] == alone


def test_bytes_do_not_depend_on_what_lay_in_memory_before() -> None:
    # Parts of x264 for AVX-512 read memory that they never wrote; what lies there is chance.
    clips = [planes_of(range(start, start + 9), size=112) for start in range(0, 90, 9)]
    expected = [encoded(planes)[0] for planes in clips]
    sizes = (50, 100, 200, 400, 800, 1600, 3200, 20_000, 60_000, 200_000, 700_000)
    for filling in (255, 0, 127):
        litter = [np.full(sizes[n * n % 11], filling, np.uint8) for n in range(300)]
        kept = litter[::7]
        del litter
        assert [encoded(planes)[0] for planes in clips] == expected
        del kept


def test_bytes_do_not_depend_on_busy_threads() -> None:
    planes = planes_of(range(30), size=112)
    expected, _ = encoded(planes)
    stop = threading.Event()

    def toil() -> None:
        while not stop.is_set():
            encoded(planes[:9])

    toilers = [threading.Thread(target=toil) for _ in range(3)]
    for one in toilers:
        one.start()
    try:
        assert {encoded(planes)[0] for _ in range(10)} == {expected}
    finally:
        stop.set()
        for one in toilers:
            one.join()


def test_the_number_of_cores_does_not_matter() -> None:
    # x264 writes its settings into the stream; with several threads it decides otherwise. It has
    # a use for them in large pictures alone.
    data, _ = encoded(planes_of(range(3), size=1024))
    assert b" threads=1 " in data


@pytest.mark.parametrize("instructions", ["avx2", "sse4.2"])
def test_bytes_do_not_depend_on_the_processor(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x264 takes other paths on other processors; here it is told which ones there are."""
    planes = planes_of(range(30), size=112)
    expected, _ = encoded(planes)
    plain = av.open

    class Limited:
        def __init__(self, container: Any) -> None:
            self.container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self.container, name)

        def add_stream(self, codec: str, *, rate: int, options: dict[str, str]) -> Any:
            own = [options["x264-params"]] if "x264-params" in options else []
            options = {**options, "x264-params": ":".join([f"asm={instructions}", *own])}
            return self.container.add_stream(codec, rate=rate, options=options)

    monkeypatch.setattr(av, "open", lambda *some, **more: Limited(plain(*some, **more)))
    found, _ = encoded(planes)
    monkeypatch.undo()
    assert found == expected


def test_a_clip_leaves_no_trace_of_when_or_where_it_was_made(tmp_path: Path) -> None:
    data, _ = encoded(planes_of(range(3)))
    said = probed(data, tmp_path, "format_tags", "stream_tags")
    tags = {**said["format"].get("tags", {}), **said["streams"][0].get("tags", {})}
    assert not {"creation_time", "encoder"} & tags.keys()
