"""Synthetic videos whose every frame identifies itself, so that any crop of them can be read.

    Y   uniform over frame n: its index
    U   rises from the left to the right edge: where a window begins and ends across
    V   rises from the top to the bottom edge: where a window begins and ends down

PyAV encodes. What a crop must contain, and what it does contain, is in ``video_oracle``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from support.synthetic_audio import MediaCache, MediaSpec, utterance
from voxblink2_lib.records import FaceTrack

Planes = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
Matrix = tuple[int, int, int, int]

# All that map the grid of pixels to itself: no turn, one, two and three, plain and mirrored.
MATRICES: tuple[Matrix, ...] = (
    *((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0)),
    *((-1, 0, 0, 1), (0, 1, 1, 0), (1, 0, 0, -1), (0, -1, -1, 0)),
)

# U and V rise from RAMP_LOW by RAMP from edge to edge.
RAMP_LOW, RAMP = 16, 224

_AUDIO_SECONDS = 10
_DARKEST, _LEVELS = 16, 219
# Of all steps, this one separates nearby indices best: the luma of two indices that differ by 20
# or less differs by 7 or more.
_STEP = 83
_FULL_RANGE = 2

# B-frames as references, GOPs of two seconds.
H264 = (("preset", "veryfast"), ("crf", "12"), ("g", "50"), ("bf", "3"), ("b-pyramid", "normal"))
VP9 = (("deadline", "realtime"), ("cpu-used", "8"), ("crf", "20"), ("b", "0"), ("g", "50"))
LOSSLESS = (("level", "3"),)

# 13 to 43 ms each, and now and then a fifth of a second more.
UNSTEADY = tuple(
    Fraction(sum(13 + (29 * n * n) % 31 + 200 * (n % 40 == 39) for n in range(count)), 1000)
    for count in range(250)
)


# -- Specifications --------------------------------------------------------------------------------


def steady(rate: Fraction | int, seconds: Fraction | int) -> tuple[Fraction, ...]:
    """Return the times of frames at a constant rate."""
    return tuple(index / Fraction(rate) for index in range(int(seconds * rate)))


@dataclass(frozen=True)
class VideoSpec:
    """How to make a video.

    Attributes:
        name: file name; its extension is the container.
        times: display time of each frame, from the first one on.
        tick: of the encoder's clock; each time is a multiple of it.
        codec: encoder of the video.
        options: the encoder's.
        pix_fmt: pixel format.
        size: width and height.
        audio: encoder of the audio, which is ``truth``; empty for none.
        late: the first frame's time on the container's clock; the audio is not shifted.
        is_busy: frames do not identify themselves; they slide, so that each depends on others.
    """

    name: str
    times: tuple[Fraction, ...] = steady(25, 8)
    tick: Fraction = Fraction(1, 25)
    codec: str = "libx264"
    options: tuple[tuple[str, str], ...] = H264
    pix_fmt: str = "yuv420p"
    size: tuple[int, int] = (320, 180)
    audio: str = ""
    late: Fraction = Fraction(0)
    is_busy: bool = False


def video_spec(
    name: str, rate: Fraction | int, seconds: Fraction | int = 8, **more: Any
) -> VideoSpec:
    """Return how to make a video of a constant rate."""
    return VideoSpec(name, steady(rate, seconds), 1 / Fraction(rate), **more)


def x264_options(gop: int, bframes: int, *more: str) -> tuple[tuple[str, str], ...]:
    """Return options of x264; ``more`` are in its own syntax."""
    own = ":".join((f"keyint={gop}", f"min-keyint={gop}", f"bframes={bframes}", *more))
    return (("preset", "veryfast"), ("crf", "25"), ("x264-params", f"scenecut=0:b-adapt=0:{own}"))


# Each frame depends on others, and differs little from the one before.
BUSY: dict[str, Any] = {"is_busy": True, "size": (160, 96), "seconds": 4}
OPEN_GOPS = video_spec(
    "open.mp4", 25, options=x264_options(12, 3, "open-gop=1", "b-pyramid=normal"), **BUSY
)
CLOSED_GOPS = video_spec("closed.mp4", 25, options=x264_options(10, 2, "b-pyramid=none"), **BUSY)
# The source of videos with hidden frames.
PLAIN = video_spec("plain.avi", 30, 5, codec="ffv1", options=LOSSLESS, is_busy=True, size=(160, 96))


# -- Files -----------------------------------------------------------------------------------------


def render(media_cache: MediaCache, spec: VideoSpec) -> Path:
    """Return the path of a video, which is made if it does not exist."""
    audio = media_cache.make(MediaSpec("video.wav", duration_seconds=_AUDIO_SECONDS))

    def encode(path: Path) -> None:
        with _scheduling_kept():
            _encode(spec, path, audio)

    return media_cache.keep(spec.name, spec, encode)


@contextlib.contextmanager
def _scheduling_kept() -> Iterator[None]:
    """Keep how this thread gets a core.

    libsvtav1 makes a thread of root that encodes a real-time one, and so all threads and processes
    that it starts from then on: one of them that polls keeps what it waits for from its core.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def _encode(spec: VideoSpec, path: Path, audio: Path) -> None:
    packets: list[Any] = []
    with av.open(str(path), "w") as container:
        video_stream: Any = container.add_stream(
            spec.codec, rate=1 / spec.tick, options=dict(spec.options)
        )
        context = video_stream.codec_context
        context.width, context.height = spec.size
        context.pix_fmt = spec.pix_fmt
        context.time_base = spec.tick
        context.thread_count = 1
        audio_stream: Any = container.add_stream(spec.audio, rate=48_000) if spec.audio else None
        for index, time in enumerate(spec.times):
            frame = video_frame(spec, index)
            frame.pts = int((time + spec.late) / spec.tick)
            frame.time_base = spec.tick
            packets += video_stream.encode(frame)
        packets += video_stream.encode(None)
        if audio_stream is not None:
            with av.open(str(audio)) as source:
                for samples in source.decode(audio=0):
                    packets += audio_stream.encode(samples)
            packets += audio_stream.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)


def render_with_hidden(media_cache: MediaCache, spec: VideoSpec, *, clock: str) -> Path:
    """Return the path of a VP8 video with packets of frames that are never displayed.

    Args:
        media_cache: stores it.
        spec: the video, lossless.
        clock: tick of the encoder's clock, in seconds. With a fine one, like that of libvpx's own
            encoder, hidden frames have timestamps of their own.
    """
    source = render(media_cache, spec)

    def encode(path: Path) -> None:
        speed = ("-deadline", "good", "-cpu-used", "4", "-enc_time_base", clock)
        hidden = ("-auto-alt-ref", "1", "-lag-in-frames", "16", "-arnr-maxframes", "5")
        common = ("-c:v", "libvpx", *speed, *hidden, "-b:v", "150k", "-g", "40")
        log = ("-passlogfile", str(path.with_suffix("")))
        run_ffmpeg("-i", str(source), *common, "-pass", "1", *log, "-f", "null", "-")
        run_ffmpeg("-i", str(source), *common, "-pass", "2", *log, str(path))

    return media_cache.keep("hidden.webm", (spec, clock), encode)


def write_with_matrix(source: Path, target: Path, matrix: Matrix) -> None:
    """Copy an MP4 file whose first track is video, with another display matrix in its header.

    Args:
        source: the file.
        target: the copy.
        matrix: a, b, c and d: a pixel at (p, q) is displayed at (a p + c q, b p + d q).
    """
    data = bytearray(source.read_bytes())
    # ISO/IEC 14496-12, 8.3.2: the matrix is 40 bytes after the header of the box, row by row.
    at = data.index(b"tkhd") + 44
    a, b, c, d = (number * 0x10000 for number in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    target.write_bytes(data)


def run_ffmpeg(*arguments: str) -> bytes:
    """Run FFmpeg's program, quietly unless it fails; return what it writes to its output."""
    command = ["ffmpeg", "-nostdin", "-y", "-v", "error", *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


# -- Frames ----------------------------------------------------------------------------------------


def luma_of(index: int) -> int:
    """Return the luma that identifies a frame."""
    return _DARKEST + _STEP * index % _LEVELS


def video_frame(spec: VideoSpec, index: int) -> av.VideoFrame:
    """Return a frame of a video, before encoding."""
    frame = av.VideoFrame(*spec.size, spec.pix_fmt)
    if spec.pix_fmt.startswith("yuvj"):
        frame.color_range = _FULL_RANGE  # as decoders set it
    is_deep = "10" in spec.pix_fmt
    for number, plane in enumerate(frame.planes):
        if spec.is_busy:
            values = _busy(plane, index + 7 * number)
        else:
            values = _identifying(plane, number, index)
        samples = (values << 2).astype("<u2") if is_deep else values.astype(np.uint8)
        rows = samples.view(np.uint8).reshape(plane.height, -1)
        whole = np.zeros((plane.height, plane.line_size), np.uint8)
        whole[:, : rows.shape[1]] = rows
        plane.update(whole.tobytes())
    return frame


def stored_planes(frame: av.VideoFrame) -> list[Planes]:
    """Return the planes of a frame with 8 bits, without the padding of their rows."""
    return [
        np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)[
            :, : plane.width
        ]
        for plane in frame.planes
    ]


def _identifying(plane: Any, number: int, index: int) -> npt.NDArray[np.int64]:
    shape = (plane.height, plane.width)
    if number == 0:
        return np.full(shape, luma_of(index), np.int64)
    along = np.arange(shape[2 - number]) + 0.5
    ramp = np.rint(RAMP_LOW + RAMP * along / shape[2 - number]).astype(np.int64)
    return np.broadcast_to(ramp if number == 1 else ramp[:, None], shape).copy()


def _busy(plane: Any, index: int) -> npt.NDArray[np.int64]:
    """Return a random texture that slides, with a patch of it that slides otherwise."""
    texture = _slid(plane, -index, -2 * index).copy()
    texture[30:70, 40:90] = _slid(plane, 2 * index, -5 * index)[30:70, 40:90]
    return texture


def _slid(plane: Any, down: int, right: int) -> npt.NDArray[np.int64]:
    top, left = down % 320, right % 480
    return _texture(plane.width)[top : top + plane.height, left : left + plane.width]


@functools.cache
def _texture(seed: int) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (40, 60)).repeat(8, axis=0).repeat(8, axis=1)
    return np.tile(coarse + rng.integers(-12, 12, coarse.shape), (2, 2))


# -- Packets and damage ----------------------------------------------------------------------------


class Packet(NamedTuple):
    """A video packet of a file.

    Attributes:
        pts: its timestamp.
        position: of its first byte in the file.
        size: in bytes.
        is_key: whether decoding can begin with it.
    """

    pts: int
    position: int
    size: int
    is_key: bool


def packets_of_video(path: Path) -> list[Packet]:
    """Return the packets of the first video stream, in decoding order."""
    with av.open(str(path)) as container:
        return [
            Packet(packet.pts or 0, packet.pos or 0, packet.size, packet.is_keyframe)
            for packet in container.demux(video=0)
            if packet.size
        ]


def corrupt(path: Path, target: Path, *, packet: int, skip: float = 0.0, seed: int = 0) -> None:
    """Copy a video with noise in place of a packet, or of all but its first part.

    Args:
        path: the video, in a container that stores packets in one piece.
        target: the copy.
        packet: index of the packet, in decoding order.
        skip: fraction of the packet that is left intact.
        seed: of the noise.
    """
    _, position, size, _ = packets_of_video(path)[packet]
    data = bytearray(path.read_bytes())
    start = position + int(skip * size)
    data[start : position + size] = random.Random(seed).randbytes(position + size - start)
    target.write_bytes(data)


def is_noticed(path: Path) -> bool:
    """Return whether a plain decoder reports damage."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                if any(frame.is_corrupt for frame in packet.decode()):
                    return True
            except av.error.FFmpegError:
                return True
    return False


def corrupt_noticeably(source: Path, target: Path, *, packet: int, skip: float) -> None:
    """Corrupt a packet with the first noise that a decoder notices; some decodes without error."""
    for seed in range(30):
        corrupt(source, target, packet=packet, skip=skip, seed=seed)
        if is_noticed(target):
            return
    raise AssertionError(f"no noise in packet {packet} is noticed")


# -- Face tracks -----------------------------------------------------------------------------------


def track(
    first: int,
    last: int,
    box: Box | Callable[[int], Box] = (100, 40, 80, 80),
    *,
    rows: Sequence[int] | None = None,
    frame_size: tuple[int, int] | None = None,
    name: str = "",
) -> FaceTrack:
    """Return a track with a box for each frame of an utterance, or for some of them."""
    frames = range(first, last + 1) if rows is None else rows
    boxes = [box(frame) if callable(box) else box for frame in frames]
    return FaceTrack(
        utterance(first, last, name),
        np.array(frames, np.int32),
        np.array(boxes, np.int16).reshape(-1, 4),
        frame_size,
    )
