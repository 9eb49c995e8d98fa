"""Speech as telephones and web sites encode it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import soundfile
import soxr

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training.augment import Waveform, of_length

# name -> rate, and format and subtype of libsndfile
_CODECS = {
    "mp3": (SAMPLE_RATE_HZ, "MP3", "MPEG_LAYER_III"),
    "vorbis": (SAMPLE_RATE_HZ, "OGG", "VORBIS"),
    "opus": (SAMPLE_RATE_HZ, "OGG", "OPUS"),
    "gsm": (8_000, "WAV", "GSM610"),
    "ulaw": (8_000, "WAV", "ULAW"),
}
CODECS = tuple(_CODECS)
_COMPRESSIBLE = {"mp3", "vorbis", "opus"}


class Codec:
    """Encodes and decodes, like telephones and web sites, at random quality where it applies.

    Args:
        names: of codecs: ``mp3``, ``vorbis`` and ``opus`` at 16 kHz, ``gsm`` and ``ulaw`` at 8.
    """

    def __init__(self, names: Sequence[str] = CODECS) -> None:
        unknown = [name for name in names if name not in _CODECS]
        if unknown or not names:
            raise TrainingError(
                f"The codecs {list(names)} are not all available. Available: {', '.join(CODECS)}."
            )
        self._names = tuple(names)

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return speech that was encoded and decoded."""
        name = self._names[generator.integers(len(self._names))]
        quality = generator.uniform(0.2, 0.9)
        rate, length = _CODECS[name][0], len(waveform)
        if rate != SAMPLE_RATE_HZ:
            # Filtered loud speech can exceed full scale, where libsndfile wraps around.
            waveform = np.clip(soxr.resample(waveform, SAMPLE_RATE_HZ, rate), -1, 1)
        decoded = _coded(waveform, name, quality)
        if rate != SAMPLE_RATE_HZ:
            decoded = soxr.resample(decoded, rate, SAMPLE_RATE_HZ)
        return of_length(decoded, length)


def _coded(waveform: Waveform, name: str, quality: float) -> Waveform:
    rate, form, subtype = _CODECS[name]
    file = io.BytesIO()
    level = {"compression_level": quality} if name in _COMPRESSIBLE else {}
    soundfile.write(file, waveform, rate, format=form, subtype=subtype, **level)
    file.seek(0)
    return np.asarray(soundfile.read(file, dtype="float32")[0])
