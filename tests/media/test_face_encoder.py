"""A crop shows its window to the pixel; a clip is a plain MP4 file, the same at every run."""

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
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_audio import MediaCache
from support.synthetic_video import (
    MATRICES,
    Matrix,
    Planes,
    VideoSpec,
    render,
    stored_planes,
    video_frame,
    video_spec,
    write_with_matrix,
)
from support.video_oracle import displayed_by, read_clips
from torchcodec import decoders

from voxblink2_lib.media.face_encoder import (
    FaceVideo,
    cut_window,
    is_full_range,
)
from voxblink2_lib.media.orientation import UPRIGHT, Orientation, Window, read_orientation

Plane = npt.NDArray[np.uint8]

TEXTURED = VideoSpec("textured.mp4", is_busy=True, size=(160, 96))
ODD = replace(TEXTURED, size=(161, 97))


# -- Windows ---------------------------------------------------------------------------------------


def filtered(plane: Plane, window: Window, size: int) -> npt.NDArray[np.float64]:
    """Return a window scaled by a triangle filter as wide as the step, as floats.

    Pixels of the crop that extend beyond the plane are NaN.
    """
    left, top, right, bottom = window
    across = weights(left, right, plane.shape[1], size)
    down = weights(top, bottom, plane.shape[0], size)
    return np.asarray(down @ plane.astype(np.float64) @ across.T)


def weights(start: float, end: float, length: int, size: int) -> npt.NDArray[np.float64]:
    step = (end - start) / size
    table = np.full((size, length), np.nan)
    for position in range(size):
        if start + position * step < -1e-9 or start + (position + 1) * step > length + 1e-9:
            continue
        middle = start + (position + 0.5) * step
        away = np.abs(np.arange(length) + 0.5 - middle) / max(step, 1.0)
        table[position] = np.maximum(0, 1 - away)
        table[position] /= table[position].sum()
    return table


def assert_cut(
    frame: av.VideoFrame,
    displayed: Sequence[Plane],
    window: Window,
    *,
    size: int,
    orientation: Orientation = UPRIGHT,
) -> None:
    """Check a crop against the planes of the frame as it is displayed."""
    cut = cut_window(frame, window, size=size, orientation=orientation)
    assert cut.shape == (size * 3 // 2, size)
    assert cut.dtype == np.uint8
    black = 0 if is_full_range(frame) else 16
    for position, (cropped, plane) in enumerate(zip(parts(cut), displayed, strict=True)):
        left, top, right, bottom = window if position == 0 else (edge / 2 for edge in window)
        expected = filtered(plane, (left, top, right, bottom), cropped.shape[0])
        outside = np.isnan(expected)
        np.testing.assert_array_equal(cropped[outside], black if position == 0 else 128)
        # Pillow rounds after each of the two directions.
        np.testing.assert_allclose(cropped[~outside], expected[~outside], rtol=0, atol=1.2)


def parts(cut: Planes) -> tuple[Plane, Plane, Plane]:
    """Return the planes of a crop."""
    size = cut.shape[1]
    u, v = cut[size:].reshape(2, size // 2, size // 2)
    return cut[:size], u, v


# Sixteenths of pixels, so that floating point holds them exactly.
corners = st.integers(-40 * 16, 190 * 16).map(lambda parts: parts / 16)
spans = st.integers(1 * 16, 250 * 16).map(lambda parts: parts / 16)


@given(
    corner=st.tuples(corners, corners),
    span=st.tuples(spans, spans),
    size=st.sampled_from([32, 48, 112]),
    spec=st.sampled_from([TEXTURED, ODD]),
)
def test_a_crop_is_the_window_scaled_by_an_averaging_filter(
    corner: tuple[float, float], span: tuple[float, float], size: int, spec: VideoSpec
) -> None:
    frame = video_frame(spec, 3)
    window = (*corner, corner[0] + span[0], corner[1] + span[1])
    assert_cut(frame, stored_planes(frame), window, size=size)


def test_a_window_as_large_as_the_crop_is_copied() -> None:
    frame = video_frame(TEXTURED, 3)
    y, u, v = stored_planes(frame)
    cropped = parts(cut_window(frame, (40, 20, 104, 84), size=64))
    np.testing.assert_array_equal(cropped[0], y[20:84, 40:104])
    np.testing.assert_array_equal(cropped[1], u[10:42, 20:52])
    np.testing.assert_array_equal(cropped[2], v[10:42, 20:52])


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
def test_pixels_outside_are_black(window: Window, rows: slice, columns: slice) -> None:
    y, u, v = parts(cut_window(video_frame(TEXTURED, 3), window, size=64))
    inside = np.zeros((64, 64), np.bool_)
    inside[rows, columns] = True
    np.testing.assert_array_equal(y == 16, ~inside)
    for plane in (u, v):
        assert np.all(plane[~inside[::2, ::2]] == 128)


def test_full_range_has_another_black() -> None:
    frame = video_frame(replace(TEXTURED, pix_fmt="yuvj420p"), 3)
    y, _, _ = parts(cut_window(frame, (-32, 0, 32, 64), size=64))
    assert set(y[:, :32].ravel().tolist()) == {0}
    assert is_full_range(frame)
    assert not is_full_range(video_frame(TEXTURED, 3))


@pytest.mark.parametrize("wide", [32767.0, 5.0 * 32767])
def test_a_huge_window_is_entirely_black(wide: float) -> None:
    frame = video_frame(TEXTURED, 3)
    cut = cut_window(frame, (-wide / 2, -wide / 2, wide / 2, wide / 2), size=112)
    # One pixel of the crop is larger than the frame.
    assert [np.unique(plane).tolist() for plane in parts(cut)] == [[16], [128], [128]]


def test_a_window_of_one_pixel_fills_the_crop() -> None:
    frame = video_frame(TEXTURED, 3)
    assert_cut(frame, stored_planes(frame), (50, 40, 51, 41), size=64)


def test_cropping_does_not_change_the_frame() -> None:
    frame = video_frame(TEXTURED, 3)
    before = stored_planes(frame)
    cut = cut_window(frame, (10, 10, 60, 60), size=64)
    cut[:] = 0
    for plane, copy in zip(stored_planes(frame), before, strict=True):
        np.testing.assert_array_equal(plane, copy)


# -- Turned and mirrored ---------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_windows_are_in_pixels_of_the_displayed_frame(
    media_cache: MediaCache, matrix: Matrix, tmp_path: Path
) -> None:
    spec = video_spec("upright.mp4", 25, 1, is_busy=True, size=(160, 96))
    path = tmp_path / "turned.mp4"
    write_with_matrix(render(media_cache, spec), path, matrix)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    displayed = [displayed_by(matrix, plane) for plane in stored_planes(frame)]
    orientation = read_orientation(frame)
    assert orientation.display_size(160, 96) == displayed[0].shape[::-1]
    # Exactly the same pixels: turned, mirrored, at the right position.
    y, u, v = parts(cut_window(frame, (8, 14, 72, 78), size=64, orientation=orientation))
    np.testing.assert_array_equal(y, displayed[0][14:78, 8:72])
    np.testing.assert_array_equal(u, displayed[1][7:39, 4:36])
    np.testing.assert_array_equal(v, displayed[2][7:39, 4:36])
    for window in ((-20.5, 3.0, 60.25, 50.0), (30.0, 40.0, 200.0, 90.5), (70.0, -9.0, 90.0, 140.0)):
        assert_cut(frame, displayed, window, size=48, orientation=orientation)


# -- Formats other than 4:2:0 with 8 bits ----------------------------------------------------------


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
    # Frames that identify themselves: flat, with colours that rise evenly, whatever the format.
    spec = VideoSpec("formats.mp4", pix_fmt=pix_fmt, size=(160, 96))
    plain = video_frame(replace(spec, pix_fmt="yuv420p"), 5)
    window: Window = (20, 10, 100, 90)
    converted = parts(cut_window(video_frame(spec, 5), window, size=64))
    for cropped, expected in zip(converted, parts(cut_window(plain, window, size=64)), strict=True):
        np.testing.assert_allclose(cropped.astype(int), expected.astype(int), rtol=0, atol=at_most)


# -- The encoder -----------------------------------------------------------------------------------


def planes_of(numbers: Sequence[int], *, size: int = 64) -> list[Planes]:
    spec = replace(TEXTURED, size=(320, 180))
    window = (60.0, 30.0, 60.0 + min(size, 140), 30.0 + min(size, 140))
    return [cut_window(video_frame(spec, number), window, size=size) for number in numbers]


def encoded(
    planes: Sequence[Planes], *, crf: int = 20, like: av.VideoFrame | None = None
) -> tuple[bytes, FaceVideo]:
    size = planes[0].shape[1]
    video = FaceVideo(like or video_frame(TEXTURED, 0), size=size, crf=crf)
    for crop in planes:
        video.add(crop)
    return video.finish(), video


def decoded(data: bytes) -> Planes:
    """Return the frames of a clip, as PyAV decodes them."""
    with av.open(io.BytesIO(data), "r") as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    return np.asarray(frames, np.uint8)


def probe(data: bytes, folder: Path, *entries: str) -> Any:
    """Return what FFmpeg's prober reports about a clip."""
    path = folder / "clip.mp4"
    path.write_bytes(data)
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_entries", ":".join(entries)]
    done = subprocess.run([*command, str(path)], capture_output=True, check=True)
    assert done.stderr == b""
    return json.loads(done.stdout)


def test_lossless_frames_are_the_planes_that_were_added() -> None:
    planes = planes_of(range(12))
    data, video = encoded(planes, crf=0)
    assert video.frames == 12
    np.testing.assert_array_equal(decoded(data), np.stack(planes))


def test_a_higher_crf_is_smaller_and_worse() -> None:
    planes = planes_of(range(12))
    fine, coarse = (encoded(planes, crf=crf)[0] for crf in (10, 40))
    assert len(coarse) < len(fine) / 2
    errors = [
        np.abs(decoded(clip).astype(int) - np.stack(planes)).mean() for clip in (fine, coarse)
    ]
    assert errors[0] < 4 < errors[1]


@pytest.mark.parametrize("count", [1, 2, 25, 60])
@pytest.mark.parametrize("size", [32, 112, 224])
def test_clips_have_25_fps_and_begin_at_zero(count: int, size: int, tmp_path: Path) -> None:
    data, _ = encoded(planes_of([number % 9 for number in range(count)], size=size))
    probed = probe(
        data,
        tmp_path,
        "stream=codec_name,width,height,pix_fmt,r_frame_rate,avg_frame_rate,nb_frames,start_time,"
        "duration,has_b_frames",
        "format=format_name,nb_streams,start_time,duration",
        "packet=pts_time,duration_time,flags",
    )
    (stream,) = probed["streams"]
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
    assert probed["format"]["duration"] == f"{count / 25:.6f}"
    assert float(probed["format"]["start_time"]) == 0
    assert [float(packet["pts_time"]) for packet in probed["packets"]] == pytest.approx(
        [number / 25 for number in range(count)]
    )
    # A reader of a part decodes a second at most.
    keys = [n for n, packet in enumerate(probed["packets"]) if packet["flags"][0] == "K"]
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
    (frames,) = read_clips([data], size=64)
    np.testing.assert_array_equal(frames, decoded(data))


def test_colour_range_and_matrix_are_those_of_the_source(tmp_path: Path) -> None:
    like = video_frame(TEXTURED, 0)
    like.colorspace, like.color_primaries, like.color_trc = 1, 1, 1  # BT.709
    data, _ = encoded(planes_of(range(2)), like=like)
    fields = "color_range,color_space,color_transfer,color_primaries"
    (stream,) = probe(data, tmp_path, f"stream={fields}")["streams"]
    assert stream["color_space"] == stream["color_transfer"] == stream["color_primaries"] == "bt709"
    assert stream.get("color_range", "tv") == "tv"
    full = video_frame(replace(TEXTURED, pix_fmt="yuvj420p"), 0)
    data, _ = encoded(planes_of(range(2)), like=full)
    (stream,) = probe(data, tmp_path, f"stream={fields}")["streams"]
    assert stream["color_range"] == "pc"


# -- The same bytes --------------------------------------------------------------------------------


def test_equal_frames_give_equal_bytes() -> None:
    planes = planes_of(range(30))
    assert len({encoded(planes)[0] for _ in range(5)}) == 1


def test_bytes_do_not_depend_on_what_else_is_being_encoded() -> None:
    clips = [planes_of(range(start, start + 9)) for start in range(0, 90, 9)]
    alone = [encoded(planes)[0] for planes in clips]
    videos = [FaceVideo(video_frame(TEXTURED, 0), size=64, crf=20) for _ in clips]
    for index in range(9):
        for video, planes in zip(videos, clips, strict=True):
            video.add(planes[index])
    assert [video.finish() for video in videos] == alone


def test_bytes_do_not_depend_on_uninitialized_memory() -> None:
    # Code of x264 for AVX-512 reads uninitialized memory, whose content is random.
    clips = [planes_of(range(start, start + 9), size=112) for start in range(0, 90, 9)]
    expected = [encoded(planes)[0] for planes in clips]
    sizes = (50, 100, 200, 400, 800, 1600, 3200, 20_000, 60_000, 200_000, 700_000)
    for filling in (255, 0, 127):
        litter = [np.full(sizes[n * n % 11], filling, np.uint8) for n in range(300)]
        retained = litter[::7]
        del litter
        assert [encoded(planes)[0] for planes in clips] == expected
        del retained


def test_bytes_do_not_depend_on_busy_threads() -> None:
    planes = planes_of(range(30), size=112)
    expected, _ = encoded(planes)
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            encoded(planes[:9])

    threads = [threading.Thread(target=keep_busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert {encoded(planes)[0] for _ in range(10)} == {expected}
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_bytes_do_not_depend_on_the_number_of_cores() -> None:
    # x264 writes its settings into the stream; with several threads its decisions differ. It uses
    # them for large frames only.
    data, _ = encoded(planes_of(range(3), size=1024))
    assert b" threads=1 " in data


@pytest.mark.parametrize("instructions", ["avx2", "sse4.2"])
def test_bytes_do_not_depend_on_the_processor(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x264 runs other code on other processors; here its instruction sets are limited."""
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

    monkeypatch.setattr(
        av, "open", lambda *arguments, **keywords: Limited(plain(*arguments, **keywords))
    )
    limited, _ = encoded(planes)
    monkeypatch.undo()
    assert limited == expected


def test_a_clip_leaves_no_trace_of_when_or_where_it_was_made(tmp_path: Path) -> None:
    data, _ = encoded(planes_of(range(3)))
    probed = probe(data, tmp_path, "format_tags", "stream_tags")
    tags = {**probed["format"].get("tags", {}), **probed["streams"][0].get("tags", {})}
    assert not {"creation_time", "encoder"} & tags.keys()
