"""Films whose every picture names itself, so that whatever is cut out of them can be read.

    Y   the same all over picture n: its number
    U   rises from the left to the right edge: where a window begins and ends across
    V   rises from the top to the bottom edge: where a window begins and ends down

When each picture is shown, which one is due at a time, and which window a box asks for are worked
out here from exact fractions, by no part of the library. PyAV encodes; FFmpeg's program reads.
"""

from __future__ import annotations

import functools
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from support.synthetic_audio import MediaCache, MediaSpec, utterance
from voxblink2_lib.records import FaceTrack, Utterance

Planes = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
Edges = tuple[float, float, float, float]

_SOUND_SECONDS = 10
_DARKEST, _LEVELS = 16, 219
# Of all steps this one keeps numbers that are near each other the farthest apart: of those that
# differ by 20 or less, the brightness differs by 7 or more.
_STEP = 83
_FAR_NUMBERS = 20
_SAME_LUMA = 3
_RAMP_LOW, _RAMP = 16, 224
_FULL_RANGE = 2

# B pictures that others depend on, groups of two seconds.
H264 = (("preset", "veryfast"), ("crf", "12"), ("g", "50"), ("bf", "3"), ("b-pyramid", "normal"))
VP9 = (("deadline", "realtime"), ("cpu-used", "8"), ("crf", "20"), ("b", "0"), ("g", "50"))


# 13 to 43 ms each, and now and then a fifth of a second more.
UNSTEADY = tuple(
    Fraction(sum(13 + (29 * n * n) % 31 + 200 * (n % 40 == 39) for n in range(count)), 1000)
    for count in range(250)
)


def steady(rate: Fraction | int, seconds: Fraction | int) -> tuple[Fraction, ...]:
    """Return the times of pictures that come at a constant rate."""
    return tuple(number / Fraction(rate) for number in range(int(seconds * rate)))


@dataclass(frozen=True)
class Film:
    """How to make a film.

    Attributes:
        name: file name; its ending is the container.
        times: when each picture is shown, from the first on.
        tick: of the encoder's clock; each time is a whole number of them.
        codec: encoder of the pictures.
        options: the encoder's.
        pix_fmt: of the pictures.
        size: width and height.
        sound: encoder of the sound, which says truth.py's truth; empty for none.
        late: the first picture's time on the container's clock; its sound is not moved.
        is_busy: pictures do not name themselves; they slide, so that each depends on others.
    """

    name: str
    times: tuple[Fraction, ...] = steady(25, 8)
    tick: Fraction = Fraction(1, 25)
    codec: str = "libx264"
    options: tuple[tuple[str, str], ...] = H264
    pix_fmt: str = "yuv420p"
    size: tuple[int, int] = (320, 180)
    sound: str = ""
    late: Fraction = Fraction(0)
    is_busy: bool = False


def film(name: str, rate: Fraction | int, seconds: Fraction | int = 8, **more: Any) -> Film:
    """Return a film of a constant rate."""
    return Film(name, steady(rate, seconds), 1 / Fraction(rate), **more)


def shoot(studio: MediaCache, one: Film) -> Path:
    """Return the path of a film, made now if it is not there."""
    sound = studio.make(MediaSpec("film.wav", duration_seconds=_SOUND_SECONDS))
    return studio.keep(one.name, one, lambda path: _encode(one, path, sound))


def _encode(one: Film, path: Path, sound: Path) -> None:
    packets: list[Any] = []
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream(
            one.codec, rate=1 / one.tick, options=dict(one.options)
        )
        context = pictures.codec_context
        context.width, context.height = one.size
        context.pix_fmt = one.pix_fmt
        context.time_base = one.tick
        context.thread_count = 1
        voice: Any = container.add_stream(one.sound, rate=48_000) if one.sound else None
        for number, time in enumerate(one.times):
            frame = picture(one, number)
            frame.pts = int((time + one.late) / one.tick)
            frame.time_base = one.tick
            packets += pictures.encode(frame)
        packets += pictures.encode(None)
        if voice is not None:
            with av.open(str(sound)) as source:
                for samples in source.decode(audio=0):
                    packets += voice.encode(samples)
            packets += voice.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)


def shoot_with_hidden(studio: MediaCache, one: Film, *, clock: str) -> Path:
    """Return the path of a VP8 film in which some packets hold pictures that are never shown.

    Args:
        studio: keeps it.
        one: the film, without loss.
        clock: tick of the encoder's clock, in seconds. With a fine one, as libvpx's own encoder
            has it, what is not shown has time stamps of its own.
    """
    source = shoot(studio, one)

    def encode(path: Path) -> None:
        speed = ("-deadline", "good", "-cpu-used", "4", "-enc_time_base", clock)
        hidden = ("-auto-alt-ref", "1", "-lag-in-frames", "16", "-arnr-maxframes", "5")
        common = ("-c:v", "libvpx", *speed, *hidden, "-b:v", "150k", "-g", "40")
        log = ("-passlogfile", str(path.with_suffix("")))
        run_ffmpeg("-i", str(source), *common, "-pass", "1", *log, "-f", "null", "-")
        run_ffmpeg("-i", str(source), *common, "-pass", "2", *log, str(path))

    return studio.keep("hidden.webm", (one, clock), encode)


def luma_of(number: int) -> int:
    """Return the brightness that a picture is named by."""
    return _DARKEST + _STEP * number % _LEVELS


def picture(one: Film, number: int) -> av.VideoFrame:
    """Return a picture of a film, before encoding."""
    frame = av.VideoFrame(*one.size, one.pix_fmt)
    if one.pix_fmt.startswith("yuvj"):
        frame.color_range = _FULL_RANGE  # as decoders say it
    deep = "10" in one.pix_fmt
    for place, plane in enumerate(frame.planes):
        values = _busy(plane, number + 7 * place) if one.is_busy else _named(plane, place, number)
        samples = (values << 2).astype("<u2") if deep else values.astype(np.uint8)
        rows = samples.view(np.uint8).reshape(plane.height, -1)
        whole = np.zeros((plane.height, plane.line_size), np.uint8)
        whole[:, : rows.shape[1]] = rows
        plane.update(whole.tobytes())
    return frame


def stored_planes(frame: av.VideoFrame) -> list[Planes]:
    """Return the planes of a picture with 8 bits, without what pads their rows."""
    return [
        np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)[
            :, : plane.width
        ]
        for plane in frame.planes
    ]


def _named(plane: Any, place: int, number: int) -> npt.NDArray[np.int64]:
    shape = (plane.height, plane.width)
    if place == 0:
        return np.full(shape, luma_of(number), np.int64)
    along = np.arange(shape[2 - place]) + 0.5
    ramp = np.rint(_RAMP_LOW + _RAMP * along / shape[2 - place]).astype(np.int64)
    return np.broadcast_to(ramp if place == 1 else ramp[:, None], shape).copy()


def _busy(plane: Any, number: int) -> npt.NDArray[np.int64]:
    """Return a cloth of random weave that slides by, and a patch of it that slides otherwise."""
    cloth = _slid(plane, -number, -2 * number).copy()
    cloth[30:70, 40:90] = _slid(plane, 2 * number, -5 * number)[30:70, 40:90]
    return cloth


def _slid(plane: Any, down: int, right: int) -> npt.NDArray[np.int64]:
    top, left = down % 320, right % 480
    return _cloth(plane.width)[top : top + plane.height, left : left + plane.width]


@functools.cache
def _cloth(seed: int) -> npt.NDArray[np.int64]:
    chance = np.random.default_rng(seed)
    coarse = chance.integers(30, 220, (40, 60)).repeat(8, axis=0).repeat(8, axis=1)
    return np.tile(coarse + chance.integers(-12, 12, coarse.shape), (2, 2))


class Packet(NamedTuple):
    """A packet of pictures in a file.

    Attributes:
        pts: its time stamp.
        place: of its first byte in the file.
        size: in bytes.
        is_key: whether decoding can begin with it.
    """

    pts: int
    place: int
    size: int
    is_key: bool


def packets_of_film(path: Path) -> list[Packet]:
    """Return the packets of the first stream of pictures, in the order of decoding."""
    with av.open(str(path)) as container:
        return [
            Packet(packet.pts or 0, packet.pos or 0, packet.size, packet.is_keyframe)
            for packet in container.demux(video=0)
            if packet.size
        ]


def spoil(path: Path, target: Path, *, packet: int, skip: float = 0.0, seed: int = 0) -> None:
    """Copy a film with noise in place of a packet, or of all but its first part.

    Args:
        path: the film, in a container that keeps packets in one piece.
        target: the copy.
        packet: number of the packet, in the order of decoding.
        skip: part of the packet that stays.
        seed: of the noise.
    """
    _, place, size, _ = packets_of_film(path)[packet]
    data = bytearray(path.read_bytes())
    start = place + int(skip * size)
    data[start : place + size] = random.Random(seed).randbytes(place + size - start)
    target.write_bytes(data)


def notices(path: Path) -> bool:
    """Say whether a plain decoder tells that something is amiss."""
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


def spoil_noticeably(source: Path, target: Path, *, packet: int, skip: float) -> None:
    """Spoil a packet with the first noise that a decoder notices; some passes for pictures."""
    for seed in range(30):
        spoil(source, target, packet=packet, skip=skip, seed=seed)
        if notices(target):
            return
    raise AssertionError(f"no noise in packet {packet} is noticed")


# What must come out


def nearest(times: Sequence[Fraction], frame: int) -> int:
    """Return the number of the picture due at a frame, 25 a second; of two, the earlier."""
    due = Fraction(frame, 25)
    return min(range(len(times)), key=lambda number: (abs(times[number] - due), number))


def due_pictures(times: Sequence[Fraction], said: Utterance) -> list[int]:
    """Return the numbers of the pictures that the clip of an utterance must show."""
    return [nearest(times, frame) for frame in range(said.first_frame, said.last_frame + 1)]


def asked_edges(
    box: Iterable[int],
    *,
    scale: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1)),
    margin: Fraction = Fraction(0),
    square: bool = False,
) -> tuple[Fraction, ...]:
    """Return left, top, right and bottom of the window that a box asks for."""
    x, y, width, height = (Fraction(int(one)) for one in box)
    across, down = scale[0] * (x + width / 2), scale[1] * (y + height / 2)
    wide, high = scale[0] * width * (1 + 2 * margin), scale[1] * height * (1 + 2 * margin)
    if square:
        wide = high = max(wide, high)
    return across - wide / 2, down - high / 2, across + wide / 2, down + high / 2


# Tracks


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


# What came out


def read_clips(clips: Sequence[bytes], *, size: int) -> list[Planes]:
    """Return the pictures of clips, as FFmpeg's program decodes them.

    Returns:
        Planes Y, U and V below each other, for each clip of shape (n, size * 3 // 2, size).
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs: list[str] = []
        outputs: list[str] = []
        for place, clip in enumerate(clips):
            (folder / f"{place}.mp4").write_bytes(clip)
            inputs += ["-i", str(folder / f"{place}.mp4")]
            outputs += ["-map", f"{place}:v", *_RAW, str(folder / f"{place}.yuv")]
        run_ffmpeg(*inputs, *outputs)
        return [
            np.fromfile(folder / f"{place}.yuv", np.uint8).reshape(-1, size * 3 // 2, size)
            for place in range(len(clips))
        ]


# Without a pixel format nothing is converted: full range stays full range.
_RAW = ("-vsync", "passthrough", "-f", "rawvideo")


def read_film(path: Path, size: tuple[int, int]) -> list[list[Planes]]:
    """Return the planes of all pictures of a film, as FFmpeg's program shows them.

    Args:
        path: a film of the format yuv420p.
        size: width and height, even, of the pictures as they are shown.
    """
    raw = run_ffmpeg("-i", str(path), "-map", "0:v:0", *_RAW, "-")
    width, height = size
    planes = np.frombuffer(raw, np.uint8).reshape(-1, width * height * 3 // 2)
    luma, quarter = width * height, width * height // 4
    return [
        [
            one[:luma].reshape(height, width),
            one[luma : luma + quarter].reshape(height // 2, -1),
            one[luma + quarter :].reshape(height // 2, -1),
        ]
        for one in planes
    ]


def run_ffmpeg(*arguments: str) -> bytes:
    """Run FFmpeg's program, quietly unless it fails; return what it writes to its output."""
    command = ["ffmpeg", "-nostdin", "-y", "-v", "error", *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def numbers_in(clip: Planes, *, near: Sequence[int]) -> list[int]:
    """Return which picture of its film each picture of a clip is, or -1 for none.

    Args:
        clip: from :func:`read_clips`.
        near: a number for each; only those at most 20 from it are thought of.
    """
    size = clip.shape[2]
    assert len(clip) == len(near)
    return [
        _number(float(np.median(one[:size])), guess) for one, guess in zip(clip, near, strict=True)
    ]


def _number(luma: float, guess: int) -> int:
    near = range(max(0, guess - _FAR_NUMBERS), guess + _FAR_NUMBERS + 1)
    best = min(near, key=lambda number: abs(luma_of(number) - luma))
    return best if abs(luma_of(best) - luma) <= _SAME_LUMA else -1


def edges_in(clip: Planes, size: tuple[int, int]) -> Iterator[Edges]:
    """Yield left, top, right and bottom of the window that each picture of a clip shows.

    Args:
        clip: from :func:`read_clips`.
        size: width and height of the film.
    """
    count = clip.shape[2] // 2
    for one in clip:
        u, v = one[2 * count :].reshape(2, count, count).astype(np.float64)
        left, right = _ends(u.mean(axis=0), size[0])
        top, bottom = _ends(v.mean(axis=1), size[1])
        yield left, top, right, bottom


def _ends(ramp: npt.NDArray[np.float64], length: int) -> tuple[float, float]:
    slope, start = np.polyfit(np.arange(len(ramp)) + 0.5, ramp, 1)
    at = (np.array([start, start + slope * len(ramp)]) - _RAMP_LOW) * length / _RAMP
    return float(at[0]), float(at[1])
