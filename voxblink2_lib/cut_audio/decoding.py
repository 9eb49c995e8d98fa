"""Decode one cut utterance, a whole audio file, to 16 kHz mono with 16 bits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.archive.wav import WavHeader, read_wav_header
from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.audio_decoder import decode_audio
from voxblink2_lib.media.damage import named_if_damaged
from voxblink2_lib.media.encoding import as_pcm
from voxblink2_lib.records import SAMPLE_RATE_HZ

_PCM, _BITS = 1, 16
# What a program writes that does not know the length.
_UNKNOWN_LENGTHS = {0, 0xFFFF_FFFF, 0x7FFF_FFFF}
# A clip's samples are counted in 32 bits; decoded, this is as much as a worker may take.
_LONGEST_SECONDS = 3600.0


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
    return decoded


def _decode(data: bytes | memoryview, extension: str) -> DecodedFile:
    if not data:
        raise MediaError("the file is empty")
    if data[:4] == b"RIFF":
        header = _header(data)
        if header[:4] == (_PCM, 1, SAMPLE_RATE_HZ, _BITS):
            return DecodedFile(np.frombuffer(data, "<i2", header.frames, header.start), "")
        return _converted(data, f"wav, {_text(header)}")
    lossless, change = _lossless(data, extension)
    return DecodedFile(lossless, "") if lossless is not None else _converted(data, change)


def _header(data: bytes | memoryview) -> WavHeader:
    try:
        header = read_wav_header(data)
    except ValueError as error:
        raise MediaError(str(error)) from error
    is_known = header.declared_bytes not in _UNKNOWN_LENGTHS
    if is_known and header.declared_bytes > header.size_bytes:
        raise MediaError(
            f"a WAV file that ends early: it has {header.size_bytes:,} bytes of samples, its "
            f"header declares {header.declared_bytes:,}"
        )
    return header


def _text(header: WavHeader) -> str:
    kind = " float" if header.encoding == 3 else ""
    return f"{header.rate_hz:,} Hz, {header.channels} x {header.bits} bit{kind}"


def _lossless(data: bytes | memoryview, extension: str) -> tuple[npt.NDArray[np.int16] | None, str]:
    """Return the samples that need no conversion, or none; and what is to be converted."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            about = f"{extension}, {file.samplerate:,} Hz, {file.channels} x {file.subtype}"
            if (file.samplerate, file.channels, file.subtype) != (SAMPLE_RATE_HZ, 1, "PCM_16"):
                return None, about
            most = round(_LONGEST_SECONDS * SAMPLE_RATE_HZ)
            return _read(file, min(file.frames, most)), ""
    except (soundfile.SoundFileError, ValueError):
        return None, extension  # FFmpeg reads more formats, and its message names the problem.


def _read(file: Any, frames: int) -> npt.NDArray[np.int16]:
    """Read in blocks: a damaged header may claim any length."""
    blocks = [np.zeros(0, np.int16)]
    while frames and len(block := file.read(min(frames, 1 << 20), "int16")):
        blocks.append(block)
        frames -= len(block)
    return np.concatenate(blocks)


def _converted(data: bytes | memoryview, change: str) -> DecodedFile:
    with named_if_damaged(Path("the file")):
        audio = decode_audio(bytes(data), end_seconds=_LONGEST_SECONDS)
    return DecodedFile(as_pcm(audio.samples), change)
