"""Crops of FLAC by frames are libsndfile's to the bit; damage and tricks are never played."""

from __future__ import annotations

import functools
import io
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from support import flac_encoder, shard_builder
from support.flac_encoder import Pcm
from support.shard_builder import Array

from voxblink2_lib.errors import ClipDamagedError
from voxblink2_lib.training import Corpus, Reader, flac_frames
from voxblink2_lib.training.flac_frames import decode_crop

SECONDS = 3
SAMPLES = 16_000 * SECONDS
# What lies beside a clip in a shard: other clips, with frames of the same numbers.
BESIDE = flac_encoder.stream(np.arange(3_000, dtype=np.int16), [500] * 6, is_variable=False).data


def crop(data: bytes, length: int, start: int, samples: int) -> Array | None:
    """Return a crop of a stream between others; ``None`` if it is left to libsndfile."""
    span = range(len(BESIDE), len(BESIDE) + len(data))
    into = np.full(samples, np.nan, np.float32)
    done = decode_crop(BESIDE + data + BESIDE, span, length=length, start=start, into=into)
    return into if done else None


def whole(data: bytes) -> Array:
    """Return all samples as libsndfile decodes them, from the beginning on."""
    return np.asarray(soundfile.read(io.BytesIO(data), dtype="float32")[0])


def talk(samples: int, seed: int = 3) -> Pcm:
    return (32_767 * shard_builder.talk(samples, seed)).astype(np.int16)


# -- Streams ---------------------------------------------------------------------------------------


def libflac(pcm: Pcm, level: int = 5) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, pcm, 16_000, format="FLAC", subtype="PCM_16", compression_level=level / 8)
    return file.getvalue()


def ffmpeg(pcm: Pcm, block: int) -> bytes:
    file, fifo = io.BytesIO(), av.AudioFifo()
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = 16_000
    fifo.write(frame)
    with av.open(file, "w", format="flac") as container:
        options = {"frame_size": str(block)}
        stream = container.add_stream("flac", 16_000, options=options, layout="mono")
        stream.codec_context.format = "s16"
        stream.codec_context.open()
        assert stream.codec_context.frame_size == block
        while (part := fifo.read(block, partial=True)) is not None:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()


def fixed(pcm: Pcm, block: int) -> bytes:
    blocks = flac_encoder.equal_blocks(len(pcm), block)
    return flac_encoder.stream(pcm, blocks, is_variable=False).data


def variable(pcm: Pcm, longest: int) -> bytes:
    random, blocks = np.random.default_rng(longest), list[int]()
    while (left := len(pcm) - sum(blocks)) > 0:
        blocks.append(min(left, int(random.integers(1, longest))))
    return flac_encoder.stream(pcm, blocks, is_variable=True, says_form=longest % 2 == 0).data


# Sizes of blocks: those with a code of their own, the least and the most, and odd ones.
BLOCKS = [
    *(16, 17, 192, 255, 256, 257, 512, 576, 1_024, 1_151, 1_152, 2_048, 2_304, 4_095, 4_096, 4_608),
    *(8_192, 16_384, 32_768, 40_001, 65_535),
]
KINDS: dict[str, tuple[Callable[[Pcm, int], bytes], list[int]]] = {
    "libFLAC, level": (libflac, list(range(9))),
    "FFmpeg, block": (ffmpeg, BLOCKS),
    "stored, block": (fixed, BLOCKS),
    "variable, up to": (variable, [64, 301, 1_000, 8_001, 65_535]),
}
STREAMS = [(kind, size) for kind, (_, sizes) in KINDS.items() for size in sizes]


def check_crops(data: bytes, pcm: Pcm, crops: int) -> None:
    expected, random = pcm / np.float32(32_768), np.random.default_rng(len(data))
    assert np.array_equal(whole(data), expected)
    for _ in range(crops):
        start = int(random.integers(len(pcm)))
        samples = int(random.integers(1, len(pcm) - start + 1))
        found = crop(data, len(pcm), start, samples)
        assert found is not None, (start, samples)
        assert np.array_equal(found, expected[start : start + samples]), (start, samples)


@pytest.mark.parametrize(("kind", "size"), STREAMS)
def test_a_crop_is_libsndfiles(kind: str, size: int) -> None:
    encode, pcm = KINDS[kind][0], talk(SAMPLES)
    check_crops(encode(pcm, size), pcm, 15)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), STREAMS)
def test_ten_thousand_crops_are_libsndfiles(kind: str, size: int) -> None:
    encode, pcm = KINDS[kind][0], talk(6 * 16_000, seed=size)
    check_crops(encode(pcm, size), pcm, 10_000 // len(STREAMS) + 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["libFLAC", "FFmpeg"])
def test_crops_of_ten_minutes(kind: str) -> None:
    pcm = np.tile(talk(60 * 16_000), 10)
    check_crops(libflac(pcm) if kind == "libFLAC" else ffmpeg(pcm, 577), pcm, 40)


@pytest.mark.parametrize(
    "length", [1, 2, 15, 16, 17, 191, 192, 193, 4_095, 4_096, 4_097, 8_192, 12_289]
)
def test_short_streams_and_their_ends(length: int) -> None:
    pcm = talk(length)
    for data in (libflac(pcm), fixed(pcm, 192), variable(pcm, 300)):
        for start, samples in [(0, 1), (0, length), (length - 1, 1), (length // 2, length // 4)]:
            found = crop(data, length, start, samples)
            assert samples == 0 or found is not None
            expected = pcm[start : start + samples] / np.float32(32_768)
            assert found is None or np.array_equal(found, expected)


def test_a_header_whose_second_byte_is_where_the_search_has_been_is_found() -> None:
    stream = flac_encoder.stream(np.zeros(51, np.int16), [16, 34, 1], is_variable=True)
    assert crop(stream.data, 51, 0, 45) is not None


@st.composite
def sizes_of_blocks(draw: st.DrawFn, *, is_variable: bool) -> list[int]:
    blocks = draw(st.lists(st.integers(16, 300), min_size=1, max_size=40))
    last = draw(st.integers(1, 300))
    if is_variable:
        return [*blocks, last]
    return [blocks[0]] * len(blocks) + [min(last, blocks[0])]


@given(data=st.data(), is_variable=st.booleans(), says_form=st.booleans(), is_loud=st.booleans())
def test_any_blocks(data: st.DataObject, is_variable: bool, says_form: bool, is_loud: bool) -> None:
    blocks = data.draw(sizes_of_blocks(is_variable=is_variable))
    length = sum(blocks)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, length)] * 2)))
    pcm = talk(length) if is_loud else np.zeros(length, np.int16)
    stream = flac_encoder.stream(pcm, blocks, is_variable=is_variable, says_form=says_form)
    found = crop(stream.data, length, start, stop - start)
    assert (found is None) == (start == stop)
    assert found is None or np.array_equal(found, pcm[start:stop] / np.float32(32_768))


def test_samples_of_full_scale() -> None:
    pcm = np.tile(np.array([-32_768, 32_767, 0, -1, 1], np.int16), 900)
    for data in (libflac(pcm), fixed(pcm, 576)):
        found = crop(data, len(pcm), 700, 3_000)
        assert found is not None
        assert np.array_equal(found, whole(data)[700:3_700])
        assert (found.min(), found.max()) == (-1, 32_767 / 32_768)


def test_only_frames_of_the_crop_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    decode = flac_frames._decode

    def noted(data: bytes, *arguments: int) -> bool:
        handed.append(len(data))
        return decode(data, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(flac_frames, "_decode", noted)
    pcm = talk(100 * 576)
    stream = flac_encoder.stream(pcm, [576] * 100, is_variable=False)
    assert crop(stream.data, len(pcm), 576 * 40, 576 * 3) is not None
    assert crop(stream.data, len(pcm), 576 * 40 - 1, 576 * 3) is not None
    assert handed == [42 + stream.offsets[43] - stream.offsets[first] for first in (40, 39)]


# -- Damage ----------------------------------------------------------------------------------------


@functools.cache
def damageable(is_variable: bool) -> tuple[Pcm, flac_encoder.Encoded]:
    pcm = talk(12_000)
    blocks = [700, 300, 1_000] * 6 if is_variable else [600] * 20
    return pcm, flac_encoder.stream(pcm, blocks, is_variable=is_variable)


@given(
    is_variable=st.booleans(),
    place=st.floats(0, 1, exclude_max=True),
    flip=st.binary(min_size=1, max_size=3).filter(any),
    start=st.integers(0, 9_000),
)
def test_damage_is_told_and_never_played(
    is_variable: bool, place: float, flip: bytes, start: int
) -> None:
    pcm, stream = damageable(is_variable)
    damaged = bytearray(stream.data)
    first = min(int(place * len(damaged)), len(damaged) - len(flip))
    for index, bits in enumerate(flip, start=first):
        damaged[index] ^= bits
    found = crop(bytes(damaged), len(pcm), start, 3_000)
    if found is not None:
        assert np.array_equal(found, pcm[start : start + 3_000] / np.float32(32_768))
    hit = {index for index, bits in enumerate(flip, start=first) if bits}
    positions = stream.positions
    held = np.searchsorted(positions, [start, start + 2_999], side="right") - 1
    of_crop = range(stream.offsets[held[0]], stream.offsets[held[1] + 1])
    if not hit.isdisjoint(of_crop):  # up to three bytes: CRC-16 finds any two bits
        assert found is None


def test_damage_beside_a_crop_does_not_matter() -> None:
    pcm, stream = damageable(is_variable=False)
    for index in (2, 3, 17, 19):
        damaged = bytearray(stream.data)
        damaged[stream.offsets[index] + 100] ^= 0xFF
        found = crop(bytes(damaged), len(pcm), 5_000, 3_000)
        assert found is not None
        assert np.array_equal(found, pcm[5_000:8_000] / np.float32(32_768))


@pytest.mark.parametrize("is_variable", [False, True])
def test_a_stream_cut_anywhere(is_variable: bool) -> None:
    pcm, stream = damageable(is_variable)
    expected = pcm[5_000:8_000] / np.float32(32_768)
    end = stream.offsets[np.searchsorted(stream.positions, 8_000)]
    for kept in [*range(60), *range(60, end, 97), *range(end - 40, end)]:
        assert crop(stream.data[:kept], len(pcm), 5_000, 3_000) is None
    # Its frames are there, and a header after them is needed, or the end that the length says.
    found = crop(stream.data[: end + 20], len(pcm), 5_000, 3_000)
    assert found is not None
    assert np.array_equal(found, expected)


def test_a_damaged_frame_is_told_with_libsndfiles_words(tmp_path: Path) -> None:
    data = bytearray(libflac(talk(SAMPLES)))
    data[len(data) // 2] ^= 0x55
    clip = shard_builder.clip(1, frames=25 * SECONDS, data=bytes(data))
    shard_builder.seal(tmp_path / "0.arrow", [clip])
    reader = Reader(Corpus.open(tmp_path))
    words = r"Shard 0\.arrow row 0 \(id000001/abcdefghijk/00001\) (cannot be decoded|ends after)"
    with pytest.raises(ClipDamagedError, match=words):
        reader.read(0, start=SAMPLES // 2 - 8_000, samples=16_000)


# -- Samples that look like frames -----------------------------------------------------------------


def spelling(text: bytes, samples: int) -> Pcm:
    """Return samples of which the bytes, where they are stored as they are, begin with a text."""
    text += b"\x55" * (len(text) % 2)
    pcm = np.arange(samples, dtype=np.int16)
    pcm[: len(text) // 2] = np.frombuffer(text, ">i2")
    return pcm


@pytest.mark.parametrize("is_variable", [False, True])
@pytest.mark.parametrize("is_frame", [False, True])
@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
def test_a_frame_that_samples_spell_is_not_played(
    is_variable: bool, is_frame: bool, ahead: int
) -> None:
    """Its checksums are right and its number is one that is searched for, as its bytes are."""
    block, frames, holder = 600, 20, 8
    other = np.full(block, 77, np.int16)
    number = (holder + ahead) * (block if is_variable else 1)
    false = flac_encoder.frame(other, number, is_variable=is_variable)
    if not is_frame:
        false = flac_encoder.header(block, number, is_variable=is_variable)
    pcm = talk(block * frames)
    pcm[holder * block : (holder + 1) * block] = spelling(b"\0" * 600 + false, block)
    data = flac_encoder.stream(pcm, [block] * frames, is_variable=is_variable).data
    expected = pcm / np.float32(32_768)
    assert np.array_equal(whole(data), expected)
    played = 0
    for start in range(0, len(pcm) - 1_500, 50):
        found = crop(data, len(pcm), start, 1_500)
        played += found is not None
        assert found is None or np.array_equal(found, expected[start : start + 1_500]), start
    assert played > 100


def test_sync_codes_everywhere() -> None:
    pcm = np.tile(np.frombuffer(b"\xff\xf8\xff\xf9", ">i2").astype(np.int16), 3_000)
    pcm[::7] = 5
    for data in (fixed(pcm, 600), variable(pcm, 900)):
        check_crops(data, pcm, 20)


# -- What is left to libsndfile --------------------------------------------------------------------


def write(kind: str, subtype: str = "PCM_16", rate: int = 16_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    pcm = np.repeat(talk(SAMPLES)[:, None], channels, axis=1)
    soundfile.write(file, pcm, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        write("FLAC", "PCM_24"),
        write("FLAC", rate=44_100),
        write("FLAC", channels=2),
        write("WAV"),
        write("OGG", "OPUS"),
        b"ID3\x04\0\0\0\0\0\0" + write("FLAC"),
        b"",
        b"fLaC",
        b"fLaC\x80\0\0\x22" + bytes(34),
    ],
    ids=["24 bits", "44.1 kHz", "stereo", "WAV", "Opus", "ID3", "empty", "marker", "zeros"],
)
def test_other_streams_are_left_to_libsndfile(data: bytes) -> None:
    assert crop(data, SAMPLES, 100, 1_000) is None


def test_another_length_is_left_to_libsndfile() -> None:
    data = libflac(talk(SAMPLES))
    assert crop(data, SAMPLES - 1, 100, 1_000) is None
    assert crop(data, SAMPLES + 1, 100, 1_000) is None


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    clips = [write("FLAC"), write("FLAC", "PCM_24")]
    sound = [
        shard_builder.clip(number, frames=25 * SECONDS, data=data)
        for number, data in enumerate(clips)
    ]
    shard_builder.seal(tmp_path / "0.arrow", sound)
    return Reader(Corpus.open(tmp_path))


def test_24_bits_are_read(reader: Reader) -> None:
    expected = talk(SAMPLES)[7_000:9_000] / np.float32(32_768)
    assert np.array_equal(reader.read(1, start=7_000, samples=2_000).numpy(), expected)


def test_without_miniaudio_crops_are_the_same(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = range(0, SAMPLES - 4_000, 5_000)
    by_frames = [reader.read(0, start=start, samples=4_000).numpy() for start in starts]
    monkeypatch.setattr(flac_frames, "lib", None)
    assert crop(reader.encoded(0), SAMPLES, 0, 10) is None
    for start, expected in zip(starts, by_frames, strict=True):
        found = reader.read(0, start=start, samples=4_000).numpy()
        assert np.array_equal(found, expected)


def test_miniaudio_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(flac_frames.__file__)
    assert runpy.run_path(path)["lib"] is not None
    monkeypatch.setitem(sys.modules, "_miniaudio", None)
    assert runpy.run_path(path)["lib"] is None
