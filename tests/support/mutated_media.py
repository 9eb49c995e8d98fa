"""Small media of all containers and codecs that users have, and seeded damage to them.

Damage is what files suffer (flipped bits, lost, doubled and swapped blocks, a cut) and what an
attacker writes (fields of 0, -1 and the greatest value). Half of it is aimed at the first bytes and
at the last ones, where containers store what they claim about the rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from support.synthetic_audio import (
    AAC,
    FASTSTART,
    FRAGMENTS,
    H264,
    OPUS,
    VP9,
    MediaCache,
    MediaSpec,
)

SECONDS = 2.0
_HEAD_BYTES = 2048
_MAX_BLOCK_BYTES = 2048
_MAX_CHANGES = 4


def _film(name: str, *options: str, rate_hz: int = 44_100) -> MediaSpec:
    return MediaSpec(name, rate_hz, 1, "25", ("-g", "10", *options), duration_seconds=SECONDS)


def _sound(name: str, *options: str, rate_hz: int = 44_100, channels: int = 1) -> MediaSpec:
    return MediaSpec(name, rate_hz, channels, "", options, duration_seconds=SECONDS)


_MPEG4 = ("-c:v", "mpeg4", "-b:v", "100k")
SPECS = (
    _film("faststart.mp4", *AAC, *H264, *FASTSTART),
    _film("index_last.mp4", *AAC, *H264),
    _film("fragments.mp4", *AAC, *H264, *FRAGMENTS),
    _film("av1.mp4", *OPUS, "-c:v", "libaom-av1", "-cpu-used", "8", "-crf", "50", rate_hz=48_000),
    _film("mjpeg.mov", "-c:a", "pcm_s16le", "-c:v", "mjpeg", "-q:v", "20", "-pix_fmt", "yuvj420p"),
    _film("hevc.mkv", "-c:a", "ac3", "-c:v", "libx265", "-preset", "ultrafast"),
    _film("vp9.webm", *OPUS, *VP9, "-b:v", "60k", rate_hz=48_000),
    _film("vp8.webm", "-c:a", "libvorbis", "-c:v", "libvpx", "-b:v", "60k"),
    _film("h264.ts", *AAC, *H264),
    _film("h264.flv", *AAC, *H264),
    _film("mpeg2.mpg", "-c:a", "mp2", "-c:v", "mpeg2video", "-b:v", "100k"),
    _film("mpeg4.avi", "-c:a", "libmp3lame", *_MPEG4),
    _film("wmv2.wmv", "-c:a", "wmav2", "-c:v", "wmv2", "-b:v", "100k"),
    _film("mpeg4.3gp", *AAC, *_MPEG4),
    _film("theora.ogv", "-c:a", "libvorbis", "-c:v", "libtheora", "-b:v", "60k"),
    _sound("sound.m4a", *AAC),
    _sound("fragments.m4a", *AAC, *FRAGMENTS, channels=2),
    _sound("alac.m4a", "-c:a", "alac"),
    _sound("sound.webm", *OPUS, rate_hz=48_000),
    _sound("sound.opus", *OPUS, rate_hz=48_000),
    _sound("sound.ogg", "-c:a", "libvorbis"),
    _sound("sound.mp3", "-c:a", "libmp3lame"),
    _sound("sound.aac", *AAC),
    _sound("sound.ac3", "-c:a", "ac3", channels=2),
    _sound("sound.flac", channels=2),
    _sound("16k.wav", rate_hz=16_000),
    _sound("adpcm.wav", "-c:a", "adpcm_ms", channels=2),
)


def mutated(media_cache: MediaCache, seed: int) -> tuple[str, bytes]:
    """Return the name and the damaged content of one file; the same for a seed each time."""
    spec = SPECS[seed % len(SPECS)]
    data = bytearray(media_cache.make(spec).read_bytes())
    rng = random.Random(seed)
    for _ in range(rng.randint(1, _MAX_CHANGES)):
        rng.choice(_CHANGES)(data, rng)
    return spec.name, bytes(data)


def _position(data: bytearray, rng: random.Random) -> int:
    most = max(1, len(data))
    place = rng.random()
    if place < 0.4:
        most = min(most, _HEAD_BYTES)
    position = rng.randrange(most)
    return len(data) - 1 - position if 0.4 <= place < 0.5 and position < _HEAD_BYTES else position


def _block(data: bytearray, rng: random.Random) -> slice:
    start = _position(data, rng)
    return slice(start, start + rng.randint(1, _MAX_BLOCK_BYTES))


def _flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 8, 64))):
        if data:
            data[_position(data, rng)] ^= 1 << rng.randrange(8)


def _set_field(data: bytearray, rng: random.Random) -> None:
    """Set a field of 1 to 8 bytes to 0, -1, the least or the greatest value, big or little end."""
    size = rng.choice((1, 2, 4, 4, 8))
    start = _position(data, rng) // size * size if rng.random() < 0.5 else _position(data, rng)
    greatest = b"\x7f" + b"\xff" * (size - 1)
    least = b"\x80" + bytes(size - 1)
    value = rng.choice((bytes(size), b"\xff" * size, greatest, least, greatest[::-1], least[::-1]))
    data[start : start + size] = value


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randint(len(data) // 4, len(data)) :]


def _lose(data: bytearray, rng: random.Random) -> None:
    del data[_block(data, rng)]


def _double(data: bytearray, rng: random.Random) -> None:
    block = _block(data, rng)
    data[block.start : block.start] = data[block]


def _swap(data: bytearray, rng: random.Random) -> None:
    size = rng.randint(1, _MAX_BLOCK_BYTES)
    one, other = _position(data, rng), _position(data, rng)
    first, second = data[one : one + size], data[other : other + size]
    data[one : one + len(second)] = second
    data[other : other + len(first)] = first


def _insert(data: bytearray, rng: random.Random) -> None:
    start = _position(data, rng)
    data[start:start] = rng.randbytes(rng.randint(1, 64))


_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip_bits,
    _set_field,
    _set_field,
    _cut,
    _lose,
    _double,
    _swap,
    _insert,
)


def write_mutated(media_cache: MediaCache, seed: int, folder: Path, stem: str) -> Path:
    """Write a damaged file under a name with its own extension; return its path."""
    name, data = mutated(media_cache, seed)
    path = folder / f"{stem}{Path(name).suffix}"
    path.write_bytes(data)
    return path
