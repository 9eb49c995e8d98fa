"""Encode samples as FLAC, WAV or Opus."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from voxblink2_lib.media.ogg import with_ogg_serial
from voxblink2_lib.records import SAMPLE_RATE_HZ, AudioFormat

Samples = npt.NDArray[np.float32]

# Container and subtype, as libsndfile names them.
_SOUNDFILE_FORMATS = {"flac": ("FLAC", "PCM_16"), "wav": ("WAV", "PCM_16"), "opus": ("OGG", "OPUS")}


def count_clipped(samples: Samples) -> int:
    """Return how many samples exceed full scale at 16 bits.

    >>> count_clipped(np.array([0.5, 1.5, -1.0, -1.1], np.float32))
    2
    """
    if not len(samples) or (samples.max() < 1 and samples.min() >= -1):
        return 0
    scaled = np.rint(samples * 32768.0)
    return int(np.count_nonzero((scaled > 32768) | (scaled < -32768)))


def encode(samples: Samples, *, audio_format: AudioFormat) -> bytes:
    """Encode 16 kHz mono samples as 16-bit audio; equal samples give equal bytes.

    Args:
        samples: in [-1, 1), shape (n,). Values outside the range are clipped.
        audio_format: ``"flac"`` and ``"wav"`` are lossless at 16 bits, ``"opus"`` is lossy.
    """
    return encode_pcm(as_pcm(samples), audio_format=audio_format)


def as_pcm(samples: Samples) -> npt.NDArray[np.int16]:
    """Return samples as 16-bit numbers, rounded; what exceeds full scale is clipped.

    Args:
        samples: in [-1, 1), shape (n,).

    >>> as_pcm(np.array([0.5, -2.0], np.float32)).tolist()
    [16384, -32768]
    """
    scaled = samples * np.float32(32768)
    np.clip(np.rint(scaled, out=scaled), -32768, 32767, out=scaled)
    return scaled.astype(np.int16)


def encode_pcm(samples: npt.NDArray[np.int16], *, audio_format: AudioFormat) -> bytes:
    """Encode 16 kHz mono samples of 16 bits, as :func:`encode` does.

    Args:
        samples: shape (n,).
        audio_format: see :func:`encode`.
    """
    import soundfile

    container, subtype = _SOUNDFILE_FORMATS[audio_format]
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE_HZ, format=container, subtype=subtype)
    data = buffer.getvalue()
    return with_ogg_serial(data, serial=0) if audio_format == "opus" else data
