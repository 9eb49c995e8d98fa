"""Changes of media files that no option of an encoder makes, each from one file to another."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

# What a patched file depends on besides its source.
CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
# Damage is here, between the utterances of ``self_naming``.
HOLE_SECONDS = (9.0, 9.1)
_FLIPS_SECONDS = (5.4, 9.6)


# -- Packets ---------------------------------------------------------------------------------------


def remux(source: Path, target: Path) -> None:
    """Copy all packets with PyAV's FFmpeg, whose version the file then names."""
    _copy(source, target, drop=None)


def leave_a_hole(source: Path, target: Path) -> None:
    """Copy all packets but 0.1 s of the audio."""
    _copy(source, target, drop=HOLE_SECONDS)


def _copy(source: Path, target: Path, *, drop: tuple[float, float] | None) -> None:
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copies: dict[int, Any] = {}
        for stream in old.streams:
            copies[stream.index] = new.add_stream_from_template(stream)
            copies[stream.index].disposition = stream.disposition
        for packet in old.demux():
            if packet.dts is None:
                continue
            seconds = float((packet.pts or 0) * (packet.time_base or 0))
            if packet.stream.type == "audio" and drop and drop[0] <= seconds < drop[1]:
                continue
            packet.stream = copies[packet.stream.index]
            new.mux(packet)


def encode_amr(source: Path, target: Path) -> None:
    """Encode the audio of a file as AMR, which only PyAV's FFmpeg does."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream("libopencore_amrnb", rate=8000, layout="mono")
        stream.codec_context.bit_rate = 12_200
        for frame in old.decode(audio=0):
            new.mux(stream.encode(frame))
        new.mux(stream.encode(None))


# -- Bytes -----------------------------------------------------------------------------------------


def truncate(source: Path, target: Path) -> None:
    """Keep 70 % of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: len(data) * 7 // 10])


def flip_bits(source: Path, target: Path) -> None:
    """Flip bits of an audio packet between the second and the third utterance, and of one more."""
    data = bytearray(source.read_bytes())
    for position in _positions(source):
        for offset in range(0, 56, 7):
            data[position + offset] ^= 0x55
    target.write_bytes(data)


def _positions(path: Path) -> Iterator[int]:
    """Yield where to damage the payload of a packet, at each of the two times."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        due = list(_FLIPS_SECONDS)
        for packet in container.demux(stream):
            if packet.pts is None or packet.pos is None or packet.pos < 0:
                continue
            if due and float(packet.pts * packet.time_base) - start >= due[0]:
                due.pop(0)
                # Behind the headers of MPEG-TS, PES and ADTS, in front of the next ones.
                yield packet.pos + min(64, packet.size // 3)


def drop_edit_list(source: Path, target: Path) -> None:
    """Let readers of an MP4 skip its edit lists."""
    data = source.read_bytes()
    assert b"edts" in data
    target.write_bytes(data.replace(b"edts", b"free"))


def riff_sizes_of_zero(source: Path, target: Path) -> None:
    """Write sizes as a recorder does that never got to know them."""
    _set_riff_sizes(source, target, 0)


def riff_sizes_of_minus_one(source: Path, target: Path) -> None:
    """Write sizes as FFmpeg does into a pipe."""
    _set_riff_sizes(source, target, 0xFFFFFFFF)


def _set_riff_sizes(source: Path, target: Path, size: int) -> None:
    data = bytearray(source.read_bytes())
    assert data[:4] == b"RIFF"
    chunk = data.index(b"data", 12)
    for position in (4, chunk + 4):
        data[position : position + 4] = struct.pack("<I", size)
    target.write_bytes(data)
