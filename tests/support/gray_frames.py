"""Films whose pictures tell their number by their grey, with the sound of `truth` beside them.

picture   0    1    2    3   ...  18   19   ...
grey     60   67   74   81   ... 186   62   ...
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import av
import numpy as np

from support.synthetic_audio import AAC, FASTSTART, H264, MediaSpec
from voxblink2_lib.records import FaceTrack, Utterance

_DARKEST, _STEP, _GREYS = 60, 11, 131
# Half a step would be the picture before or after.
_TOLERANCE = 5.0
BOX = (16, 8, 32, 32)


def film(name: str = "film.mp4", *, noise: int = 0, seconds: float = 12) -> MediaSpec:
    """Return how to make a film of 64 x 48 pixels at 25 pictures a second.

    Args:
        name: file name.
        noise: strength of noise in the pictures, which makes the file large.
        seconds: how long it is.
    """
    grey = f"geq=lum='{_DARKEST}+mod({_STEP}*N,{_GREYS})':cb=128:cr=128"
    filters = f"{grey},noise=alls={noise}:allf=t" if noise else grey
    pictures = (*H264, "-pix_fmt", "yuv420p", "-g", "25", "-crf", "10", "-vf", filters)
    return MediaSpec(
        name,
        44_100,
        1,
        "25",
        (*AAC, *pictures, *FASTSTART),
        duration_seconds=seconds,
        picture="nullsrc=size=64x48",
    )


def faces(utterances: Iterable[Utterance]) -> tuple[FaceTrack, ...]:
    """Return tracks of a face that does not move."""
    tracks = []
    for one in utterances:
        frames = np.arange(one.first_frame, one.last_frame + 1, dtype=np.int32)
        tracks.append(FaceTrack(one, frames, np.tile(np.array(BOX, np.int16), (len(frames), 1))))
    return tuple(tracks)


def greys_in(clip: bytes) -> list[float]:
    """Return the mean luma of each picture of an encoded clip."""
    with av.open(io.BytesIO(clip), "r") as container:
        pictures = [frame.to_ndarray() for frame in container.decode(video=0)]
    return [float(planes[: len(planes) * 2 // 3].mean()) for planes in pictures]


def wrong_pictures(clip: bytes, *, utterance: Utterance) -> list[int]:
    """Return the frames of an utterance for which a clip shows another picture, or none."""
    frames = range(utterance.first_frame, utterance.last_frame + 1)
    shown = dict(zip(frames, greys_in(clip), strict=True))
    return [
        frame
        for frame, grey in shown.items()
        if abs(grey - (_DARKEST + _STEP * frame % _GREYS)) > _TOLERANCE
    ]


def without_packets(
    source: Path,
    target: Path,
    *,
    kind: Literal["audio", "video"],
    from_seconds: float,
    to_seconds: float,
) -> Path:
    """Copy a film without the sound or the pictures of a stretch; the others keep their times."""
    with av.open(source) as old, av.open(target, "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is None:
                continue
            seconds = float((packet.pts or 0) * (packet.time_base or 0))
            if packet.stream.type != kind or not from_seconds <= seconds < to_seconds:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return target


def spoiled(
    source: Path, target: Path, *, from_seconds: float = 0.0, to_seconds: float = float("inf")
) -> Path:
    """Copy a film with noise in place of the pictures of a stretch; sound and index stay good."""
    data = bytearray(source.read_bytes())
    noise = np.random.default_rng(0)
    with av.open(source) as film:
        for packet in film.demux(video=0):
            if packet.pos is None or packet.pts is None:
                continue
            if from_seconds <= float(packet.pts * packet.time_base) < to_seconds:
                data[packet.pos : packet.pos + packet.size] = noise.bytes(packet.size)
    target.write_bytes(data)
    return target


def rearranged(source: Path, target: Path, *, first: Literal["audio", "video"]) -> Path:
    """Copy an MP4 so that all packets of one kind lie before those of the other."""
    # Without a limit the muxer would wait for packets of the other kind, and put them in order.
    options = {"movflags": "faststart", "max_interleave_delta": "1"}
    with av.open(source) as old, av.open(target, "w", format="mp4", options=options) as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        packets = [packet for packet in old.demux() if packet.dts is not None]
        for packet in sorted(packets, key=lambda packet: packet.stream.type != first):
            packet.stream = copies[packet.stream.index]
            new.mux_one(packet)
    return target
