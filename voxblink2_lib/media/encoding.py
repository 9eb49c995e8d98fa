"""Samples to the bytes of a clip: FLAC, WAV or Opus."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from voxblink2_lib.media.ogg import with_ogg_serial
from voxblink2_lib.records import SAMPLE_RATE_HZ, AudioFormat

_SOUNDFILE_FORMATS = {"flac": ("FLAC", "PCM_16"), "wav": ("WAV", "PCM_16"), "opus": ("OGG", "OPUS")}
Samples = npt.NDArray[np.float32]


def encode(samples: Samples, *, audio_format: AudioFormat) -> bytes:
    """Encode 16 kHz mono samples in [-1, 1) as 16-bit audio; the same samples, the same bytes.

    Args:
        samples: shape (n,). Values outside the range are clipped.
        audio_format: ``"flac"`` or ``"wav"`` keep the 16 bits exactly, ``"opus"`` does not.
    """
    import soundfile

    scaled = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    container, subtype = _SOUNDFILE_FORMATS[audio_format]
    buffer = io.BytesIO()
    soundfile.write(buffer, scaled, SAMPLE_RATE_HZ, format=container, subtype=subtype)
    data = buffer.getvalue()
    return with_ogg_serial(data, serial=0) if audio_format == "opus" else data
