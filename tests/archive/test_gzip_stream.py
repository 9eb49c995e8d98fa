"""Reading gzip streams whole, from any seek point, damaged and cut off."""

from __future__ import annotations

import gzip
import io
import random
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.property_settings import fewer_examples

from voxblink2_lib.archive import raw_deflate
from voxblink2_lib.archive.gzip_stream import GzipDamageError, GzipStream, SeekPoint
from voxblink2_lib.archive.raw_deflate import WINDOW_BYTES
from voxblink2_lib.errors import DependencyError

PROPERTY = fewer_examples(2)
# Long copies, noise and zeros: blocks of all three kinds of deflate.
CONTENT = b"".join(
    [
        random.Random(1).randbytes(200_000),
        b"speaker verification " * 9_000,
        bytes(150_000),
        random.Random(2).randbytes(70_000) * 2,
    ]
)


def read(packed: bytes, *, point: SeekPoint | None = None, step: int = 9_973) -> bytes:
    stream = GzipStream(io.BytesIO(packed), point=point)
    output = bytearray()
    while data := stream.read(step):
        output += data
    assert stream.tell() == len(output) + (point.offset if point else 0)
    stream.close()
    return bytes(output)


@PROPERTY
@given(
    sizes=st.lists(st.integers(0, 300_000), min_size=1, max_size=12), every=st.integers(1, 90_000)
)
def test_output_in_buffers_is_that_of_reads(sizes: list[int], every: int) -> None:
    found: list[SeekPoint] = []
    stream = GzipStream(
        io.BytesIO(gzip.compress(CONTENT)), on_point=found.append, point_bytes=every
    )
    at = 0
    for number, size in enumerate(sizes):
        if number % 2:
            data = stream.read(size)
        else:
            buffer = bytearray(size)
            data = bytes(memoryview(buffer)[: stream.readinto(memoryview(buffer))])
        assert data == CONTENT[at : at + size]
        at += len(data)
        assert stream.tell() == at
        # No point is ahead of what was read: whoever reads on from it gets what follows.
        assert all(point.offset <= at for point in found)
    stream.close()


def points(packed: bytes, *, every: int) -> list[SeekPoint]:
    found: list[SeekPoint] = []
    stream = GzipStream(io.BytesIO(packed), on_point=found.append, point_bytes=every)
    while stream.read(50_000):
        pass
    return found


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_the_output_is_that_of_gzip_from_the_start_and_from_every_point(level: int) -> None:
    packed = gzip.compress(CONTENT, level)
    assert read(packed) == CONTENT
    found = points(packed, every=20_000)
    assert len(found) >= 3
    for point in found:
        again = SeekPoint.from_dict(point.as_dict())
        assert again == point
        # The checksum at the end is that of all of the member: it is carried in the point.
        assert read(packed, point=again) == CONTENT[point.offset :]


def test_points_are_apart_by_at_least_the_interval() -> None:
    found = points(gzip.compress(CONTENT), every=100_000)
    gaps = [after.offset - before.offset for before, after in pairwise(found)]
    assert found[0].offset >= 100_000
    assert min(gaps) >= 100_000
    assert all(len(point.entrance.window) <= WINDOW_BYTES for point in found)


@PROPERTY
@given(
    pieces=st.lists(st.binary(max_size=3_000), max_size=4),
    name=st.binary(max_size=20).map(lambda text: text.replace(b"\0", b"")),
    zeros=st.integers(0, 600),
)
def test_members_one_after_another_with_any_header(
    pieces: list[bytes], name: bytes, zeros: int
) -> None:
    members = []
    for number, piece in enumerate(pieces):
        plain = gzip.compress(piece)
        flags = number % 4 and 8 | 16 | 4 | 2
        extra = b"\x03\x00abc" + name + b"\0" + b"comment\0" + b"12" if flags else b""
        members.append(plain[:3] + bytes([flags]) + plain[4:10] + extra + plain[10:])
    packed = b"".join(members)
    if packed:
        packed += bytes(zeros)
    assert read(packed or gzip.compress(b"")) == b"".join(pieces)


def test_every_cut_is_told() -> None:
    packed = gzip.compress(CONTENT[:5_000])
    for length in (*range(30), *range(30, len(packed), 311), len(packed) - 1):
        with pytest.raises(GzipDamageError, match=r"ends within a .* \(at byte [\d,]+ of"):
            read(packed[:length])


def test_every_flipped_bit_of_the_data_is_told() -> None:
    packed = gzip.compress(CONTENT[150_000:260_000])
    chooser = random.Random(3)
    for _ in range(200):
        damaged = bytearray(packed)
        # From byte 10 on: a header's time and system may be anything.
        damaged[chooser.randrange(10, len(packed))] ^= 1 << chooser.randrange(8)
        with pytest.raises(GzipDamageError):
            read(bytes(damaged))


def test_a_flip_in_the_trailer_names_both_sums() -> None:
    packed = bytearray(gzip.compress(b"voxblink2" * 100))
    crc = zlib.crc32(b"voxblink2" * 100)
    packed[-8] ^= 1
    with pytest.raises(
        GzipDamageError, match=f"is {crc ^ 1:08x}, that of its content is {crc:08x}"
    ):
        read(bytes(packed))
    packed[-8] ^= 1
    packed[-4] ^= 1
    with pytest.raises(GzipDamageError, match=r"is 901 .modulo 4 GiB., its content has 900 bytes"):
        read(bytes(packed))


def test_what_follows_a_member_must_be_one_or_zeros() -> None:
    packed = gzip.compress(b"a") + b"\0\0garbage that is long enough"
    with pytest.raises(GzipDamageError, match="no gzip header is where one must be"):
        read(packed)


def test_what_was_read_before_the_damage_comes_first() -> None:
    packed = gzip.compress(CONTENT, 1)
    stream = GzipStream(io.BytesIO(packed[: len(packed) // 2]))
    output = bytearray()
    with pytest.raises(GzipDamageError):  # noqa: PT012  # it is raised after some output
        while True:
            output += stream.read(1_000)
    stream.close()
    assert len(output) > 100_000
    assert CONTENT.startswith(bytes(output))


@pytest.mark.parametrize("cut", [1, 8, 5000])
def test_some_at_a_time_all_before_the_damage_is_read(cut: int) -> None:
    text = random.Random(3).randbytes(3_000_000)
    packed = gzip.compress(text, 1)
    stream = GzipStream(io.BytesIO(packed[:-cut]))
    output = bytearray()

    def read_to_the_end() -> None:
        while data := stream.read1(300_000):
            output.extend(data)

    with pytest.raises(GzipDamageError, match="the stream ends within a"):
        read_to_the_end()
    stream.close()
    assert len(text) - cut - 100 < len(output) <= len(text)
    assert text.startswith(output)


def test_a_machine_without_zlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda _: "libnone.so.9")
    raw_deflate._zlib.cache_clear()
    try:
        with pytest.raises(DependencyError, match="apt install zlib1g"):
            read(gzip.compress(b"a"))
    finally:
        raw_deflate._zlib.cache_clear()
