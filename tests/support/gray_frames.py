"""Synthetic videos whose frames encode their index as a gray, with the audio of ``truth``.

frame     0    1    2    3   ...  11   12   ...
gray     60   71   82   93   ... 181   61   ...
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

_DARKEST, _STEP, _GRAYS = 60, 11, 131
# Half a step would be the frame before or after.
_TOLERANCE = 5.0
BOX = (16, 8, 32, 32)


def gray_video(name: str = "video.mp4", *, noise: int = 0, seconds: float = 12) -> MediaSpec:
    """Return how to make a video of 64 x 48 pixels at 25 fps.

    Args:
        name: file name.
        noise: strength of noise in the frames, which makes the file large.
        seconds: duration.
    """
    gray = f"geq=lum='{_DARKEST}+mod({_STEP}*N,{_GRAYS})':cb=128:cr=128"
    filters = f"{gray},noise=alls={noise}:allf=t" if noise else gray
    video_options = (*H264, "-pix_fmt", "yuv420p", "-g", "25", "-crf", "10", "-vf", filters)
    return MediaSpec(
        name,
        44_100,
        1,
        "25",
        (*AAC, *video_options, *FASTSTART),
        duration_seconds=seconds,
        video_source="nullsrc=size=64x48",
    )


def faces(utterances: Iterable[Utterance]) -> tuple[FaceTrack, ...]:
    """Return tracks of a face that does not move."""
    tracks = []
    for utterance in utterances:
        frames = np.arange(utterance.first_frame, utterance.last_frame + 1, dtype=np.int32)
        boxes = np.tile(np.array(BOX, np.int16), (len(frames), 1))
        tracks.append(FaceTrack(utterance, frames, boxes))
    return tuple(tracks)


def grays_in(clip: bytes) -> list[float]:
    """Return the mean luma of each frame of an encoded clip."""
    with av.open(io.BytesIO(clip), "r") as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    return [float(planes[: len(planes) * 2 // 3].mean()) for planes in frames]


def wrong_frames(clip: bytes, *, utterance: Utterance) -> list[int]:
    """Return the frames of an utterance for which a clip has another video frame, or none."""
    frames = range(utterance.first_frame, utterance.last_frame + 1)
    gray_of = dict(zip(frames, grays_in(clip), strict=True))
    return [
        frame
        for frame, gray in gray_of.items()
        if abs(gray - (_DARKEST + _STEP * frame % _GRAYS)) > _TOLERANCE
    ]


def without_packets(
    source: Path,
    target: Path,
    *,
    kind: Literal["audio", "video"],
    from_seconds: float,
    to_seconds: float,
) -> Path:
    """Copy a video without the audio or video of an interval; the rest keeps its times."""
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


def corrupted(
    source: Path, target: Path, *, from_seconds: float = 0.0, to_seconds: float = float("inf")
) -> Path:
    """Copy a video with noise in place of an interval's frames; audio and index stay intact."""
    data = bytearray(source.read_bytes())
    noise = np.random.default_rng(0)
    with av.open(source) as container:
        for packet in container.demux(video=0):
            if packet.pos is None or packet.pts is None:
                continue
            if from_seconds <= float(packet.pts * packet.time_base) < to_seconds:
                data[packet.pos : packet.pos + packet.size] = noise.bytes(packet.size)
    target.write_bytes(data)
    return target


def rearranged(source: Path, target: Path, *, first: Literal["audio", "video"]) -> Path:
    """Copy an MP4 file so that all packets of one kind are stored before those of the other."""
    # Without a limit the muxer would wait for packets of the other kind, and interleave them.
    options = {"movflags": "faststart", "max_interleave_delta": "1"}
    with av.open(source) as old, av.open(target, "w", format="mp4", options=options) as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        packets = [packet for packet in old.demux() if packet.dts is not None]
        for packet in sorted(packets, key=lambda packet: packet.stream.type != first):
            packet.stream = copies[packet.stream.index]
            new.mux_one(packet)
    return target
