"""Decode one cut utterance, a whole audio file, to 16 kHz mono with 16 bits."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.archive.wav import WavHeader, read_wav_header
from voxblink2_lib.errors import MediaError, first_line
from voxblink2_lib.media.audio_decoder import decode_audio
from voxblink2_lib.media.damage import named_if_damaged
from voxblink2_lib.media.encoding import as_pcm
from voxblink2_lib.records import SAMPLE_RATE_HZ

_PCM, _EXTENSIBLE, _BITS = 1, 0xFFFE, 16
# Decoded, this is as much as a worker may take.
_LONGEST_SECONDS = 3600
# FLAC that was written to a pipe does not say its length, which takes 36 bits there.
_UNKNOWN_FRAMES = 1 << 36
_TOO_LONG = "a file of more than an hour, which is no utterance"


class DecodedFile(NamedTuple):
    """The samples of a file.

    Attributes:
        samples: 16 kHz mono. Shape: [samples].
        change: what was converted; empty if the samples are those of the file, bit for bit.
    """

    samples: npt.NDArray[np.int16]
    change: str


def decode_file(data: bytes | memoryview, extension: str) -> DecodedFile:
    """Decode a file.

    Args:
        data: its content.
        extension: of its name, in small letters, without the dot.

    Raises:
        MediaError: it cannot be decoded, or has no samples.
    """
    decoded = _decode(data, extension)
    if not len(decoded.samples):
        raise MediaError("the file has no samples")
    if len(decoded.samples) > _LONGEST_SECONDS * SAMPLE_RATE_HZ:
        raise MediaError(_TOO_LONG)
    return decoded


def _decode(data: bytes | memoryview, extension: str) -> DecodedFile:
    if not data:
        raise MediaError("the file is empty")
    if data[:4] == b"RIFF":
        return _decode_wav(data)
    lossless, change = _lossless(data, extension)
    return DecodedFile(lossless, "") if lossless is not None else _converted(data, change)


def _decode_wav(data: bytes | memoryview) -> DecodedFile:
    try:
        header = read_wav_header(data)
    except ValueError as error:
        with contextlib.suppress(MediaError):
            return _converted(data, "wav")  # FFmpeg reads more kinds, such as ADPCM
        raise MediaError(str(error)) from error
    if header.declared_bytes > header.size_bytes:
        raise MediaError(
            f"a WAV file that ends early: it has {header.size_bytes:,} bytes of samples, its "
            f"header declares {header.declared_bytes:,}"
        )
    if header[:4] == (_PCM, 1, SAMPLE_RATE_HZ, _BITS):
        return DecodedFile(np.frombuffer(data, "<i2", header.frames, header.start), "")
    lossless = None
    if header.encoding == _EXTENSIBLE:
        lossless, _ = _lossless(data, "wav")
    if lossless is not None:
        return DecodedFile(lossless, "")
    return _converted(data, f"wav, {_text(header)}")


def _text(header: WavHeader) -> str:
    kind = " float" if header.encoding == 3 else ""
    return f"{header.rate_hz:,} Hz, {header.channels} x {header.bits} bit{kind}"


def _lossless(data: bytes | memoryview, extension: str) -> tuple[npt.NDArray[np.int16] | None, str]:
    """Return the samples that need no conversion, or none; and what is to be converted."""
    import soundfile

    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.SoundFileError, ValueError):
        return None, extension  # FFmpeg reads more formats, and its message names the problem.
    with file:
        about = f"{extension}, {file.samplerate:,} Hz, {file.channels} x {file.subtype}"
        is_as_ours = (file.samplerate, file.channels, file.subtype) == (SAMPLE_RATE_HZ, 1, "PCM_16")
        if not is_as_ours or file.frames >= _UNKNOWN_FRAMES:  # libsndfile reads none of those
            return None, about
        try:
            return _read(file), ""
        except (soundfile.SoundFileError, ValueError) as error:
            # FFmpeg would leave out what is damaged, and say nothing.
            raise MediaError(f"the file is damaged: {first_line(error)}") from error


def _read(file: Any) -> npt.NDArray[np.int16]:
    """Read in blocks: a damaged header may claim any length."""
    declared = int(file.frames)
    blocks, rest = [np.zeros(0, np.int16)], min(declared, _LONGEST_SECONDS * SAMPLE_RATE_HZ + 1)
    while rest and len(block := file.read(min(rest, 1 << 20), "int16")):
        blocks.append(block)
        rest -= len(block)
    if rest:
        raise MediaError(f"a file that ends early: it declares {declared:,} samples")
    return np.concatenate(blocks)


def _converted(data: bytes | memoryview, change: str) -> DecodedFile:
    with named_if_damaged(Path("the file")):
        audio = decode_audio(bytes(data), end_seconds=_LONGEST_SECONDS + 1.0)
    return DecodedFile(as_pcm(audio.samples), change)
