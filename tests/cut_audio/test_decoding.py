"""Samples come out bit for bit, or as soxr has them; what is damaged is told, never shortened."""

from __future__ import annotations

import contextlib
import io
import struct

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.cut_audio.decoding import decode_file
from voxblink2_lib.errors import MediaError

RATE_HZ = 16_000


def noise(count: int = 20_000, *, channels: int = 1) -> npt.NDArray[np.int16]:
    shape = (count, channels) if channels > 1 else count
    return np.random.default_rng(5).normal(0, 3000, shape).astype(np.int16)


def encoded(
    samples: npt.NDArray[np.generic], kind: str, subtype: str = "PCM_16", *, rate_hz: int = RATE_HZ
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=kind, subtype=subtype)
    return file.getvalue()


def chunk(name: bytes, data: bytes, *, declared: int | None = None) -> bytes:
    size_bytes = len(data) if declared is None else declared
    return name + struct.pack("<I", size_bytes) + data + b"\0" * (len(data) % 2)


def riff(*chunks: bytes, declared: int | None = None) -> bytes:
    data = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(data) if declared is None else declared) + data


def form(*, encoding: int = 1, channels: int = 1, rate_hz: int = RATE_HZ, bits: int = 16) -> bytes:
    step = channels * bits // 8
    values = (encoding, channels, rate_hz, rate_hz * step & 0xFFFF_FFFF, step & 0xFFFF, bits)
    return chunk(b"fmt ", struct.pack("<HHIIHH", *values))


# -- Bit for bit -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU"])
def test_what_has_our_format_is_bit_for_bit_what_it_was(kind: str) -> None:
    decoded = decode_file(encoded(noise(), kind), kind.lower())
    assert np.array_equal(decoded.samples, noise())
    assert decoded.change == ""


@given(st.binary(max_size=99).map(lambda data: data + data[: len(data) % 2]), st.booleans())
def test_any_samples_of_a_wav_come_out(data: bytes, has_others: bool) -> None:
    others = [chunk(b"LIST", b"odd"), chunk(b"fact", bytes(4))] if has_others else []
    file = riff(*others, form(), *others, chunk(b"data", data), *others)
    if data:
        assert decode_file(file, "wav").samples.tobytes() == data
    else:
        with pytest.raises(MediaError, match="the file has no samples"):
            decode_file(file, "wav")


@pytest.mark.parametrize(
    ("declared_riff", "declared_data"),
    [(0, 0), (0xFFFF_FFFF, 0xFFFF_FFFF), (0x7FFF_F024, 0x7FFF_F000), (0xFFFF_FFFF, 0)],
)
def test_a_wav_of_a_pipe_has_all_samples_up_to_its_end(
    declared_riff: int, declared_data: int
) -> None:
    data = chunk(b"data", noise().tobytes(), declared=declared_data)
    decoded = decode_file(riff(form(), data, declared=declared_riff), "wav")
    assert np.array_equal(decoded.samples, noise())


def test_half_a_sample_at_the_end_is_left_out() -> None:
    file = riff(form(), chunk(b"data", noise().tobytes() + b"x"))
    assert np.array_equal(decode_file(file, "wav").samples, noise())


def test_flac_of_a_pipe_which_does_not_say_its_length() -> None:
    data = bytearray(encoded(noise(), "FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert np.array_equal(decode_file(bytes(data), "flac").samples, noise())


# -- Conversions -----------------------------------------------------------------------------------

OTHERS = [
    ("WAV", "PCM_16", 8_000, 1, "wav, 8,000 Hz, 1 x 16 bit"),
    ("WAV", "PCM_16", 44_100, 2, "wav, 44,100 Hz, 2 x 16 bit"),
    ("WAV", "PCM_16", 48_000, 1, "wav, 48,000 Hz, 1 x 16 bit"),
    ("WAV", "PCM_16", 16_000, 2, "wav, 16,000 Hz, 2 x 16 bit"),
    ("WAV", "PCM_U8", 16_000, 1, "wav, 16,000 Hz, 1 x 8 bit"),
    ("WAV", "PCM_24", 22_050, 1, "wav, 22,050 Hz, 1 x 24 bit"),
    ("WAV", "PCM_32", 48_000, 2, "wav, 48,000 Hz, 2 x 32 bit"),
    ("WAV", "FLOAT", 16_000, 1, "wav, 16,000 Hz, 1 x 32 bit float"),
    ("WAV", "DOUBLE", 44_100, 1, "wav, 44,100 Hz, 1 x 64 bit float"),
    ("FLAC", "PCM_24", 48_000, 2, "flac, 48,000 Hz, 2 x PCM_24"),
    ("FLAC", "PCM_16", 22_050, 1, "flac, 22,050 Hz, 1 x PCM_16"),
]


@pytest.mark.parametrize(("kind", "subtype", "rate_hz", "channels", "change"), OTHERS)
def test_other_formats_are_soxrs_answer_of_the_mean_of_the_channels(
    kind: str, subtype: str, rate_hz: int, channels: int, change: str
) -> None:
    data = encoded(noise(channels=channels), kind, subtype, rate_hz=rate_hz)
    stored, _ = soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)
    expected = soxr.resample(stored.mean(axis=1), rate_hz, RATE_HZ, quality="HQ") * 32768
    decoded = decode_file(data, kind.lower())
    assert decoded.change == change
    assert len(decoded.samples) == len(expected)
    assert np.abs(decoded.samples - np.clip(expected, -32768, 32767)).max() <= 1.0


def aac(samples: npt.NDArray[np.int16]) -> bytes:
    """Return an M4A, made by FFmpeg."""
    file = io.BytesIO()
    with av.open(file, "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono", bit_rate=96_000)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def test_m4a_is_heard_as_it_was_and_in_its_place() -> None:
    times = np.arange(2 * RATE_HZ) / RATE_HZ
    tone = 8000 * np.sin(2 * np.pi * (200 + 400 * times) * times)
    decoded = decode_file(aac(tone.astype(np.int16)), "m4a")
    assert decoded.change.startswith("m4a")
    heard = decoded.samples[: len(tone)].astype(float)
    inner = slice(2000, len(heard) - 2000)
    error = heard[inner] - tone[: len(heard)][inner]
    assert np.sqrt(np.mean(error**2)) < 0.02 * np.sqrt(np.mean(tone**2))


def test_kinds_of_wav_that_need_ffmpeg() -> None:
    decoded = decode_file(encoded(noise(), "WAV", "IMA_ADPCM"), "wav")
    assert decoded.change == "wav"
    assert len(decoded.samples) >= len(noise())
    assert decode_file(encoded(noise(), "WAV", "ULAW"), "wav").change == (
        "wav, 16,000 Hz, 1 x 8 bit"
    )


# -- Damage ----------------------------------------------------------------------------------------

WAV, FLAC = encoded(noise(), "WAV"), encoded(noise(), "FLAC")


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "extension", "problem"),
    [
        (b"", "wav", "the file is empty"),
        (b"no audio, but a text\n" * 99, "wav", "cannot be read: Invalid data"),
        (WAV[:44], "wav", "ends early: it has 0 bytes of samples, its header declares 40,000"),
        (WAV[:-2], "wav", "ends early: it has 39,998 bytes of samples, its header declares 40,000"),
        (WAV[:30], "wav", "a WAV file without samples"),
        (riff(form(), chunk(b"data", b"")), "wav", "the file has no samples"),
        (riff(form(), chunk(b"data", b"x")), "wav", "the file has no samples"),
        (riff(chunk(b"data", b"xx")), "wav", "samples come before their format"),
        (riff(form(channels=0), chunk(b"data", b"xx")), "wav", "with 0 channels"),
        (riff(form(rate_hz=0), chunk(b"data", b"xx")), "wav", ", 0 Hz"),
        (riff(form(channels=65_535), chunk(b"data", bytes(99))), "wav", "has no decodable audio"),
        (riff(form(rate_hz=4_294_967_295), chunk(b"data", bytes(99))), "wav", "cannot be|no "),
        (riff(form(encoding=999), chunk(b"data", bytes(99))), "wav", "has an unknown codec"),
        (FLAC[: len(FLAC) // 2], "flac", "the file is damaged|ends early"),
        (flipped(FLAC, len(FLAC) // 2), "flac", "the file is damaged"),
        (FLAC[:40], "flac", "cannot be read"),
        (aac(noise())[:400], "m4a", "cannot be read"),
    ],
)
def test_damage_is_told(data: bytes, extension: str, problem: str) -> None:
    with pytest.raises(MediaError, match=problem):
        decode_file(data, extension)


def test_more_than_an_hour_is_no_utterance_and_is_not_shortened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voxblink2_lib.cut_audio.decoding._LONGEST_SECONDS", 2)
    for rate_hz, kind in [(RATE_HZ, "WAV"), (RATE_HZ, "FLAC"), (8_000, "FLAC")]:
        silence = np.zeros(2 * rate_hz, np.int16)
        data = encoded(silence, kind, rate_hz=rate_hz)
        assert len(decode_file(data, kind.lower()).samples) == 2 * RATE_HZ
        data = encoded(np.append(silence, silence[:9]), kind, rate_hz=rate_hz)
        with pytest.raises(MediaError, match="more than an hour"):
            decode_file(data, kind.lower())


@given(st.binary(max_size=300), st.sampled_from(["wav", "flac", "m4a", "mp3", "ogg"]))
def test_no_bytes_raise_anything_else(data: bytes, extension: str) -> None:
    for begin in (b"", b"RIFF\0\0\0\0WAVEfmt ", b"fLaC", b"OggS", b"\0\0\0\x20ftypM4A "):
        with contextlib.suppress(MediaError):
            decode_file(begin + data, extension)
