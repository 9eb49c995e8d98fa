"""The sound of a clip: its samples, how loud they are, and whether they are clipped."""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ClipDamagedError, first_line
from voxblink2_lib.media.ogg import has_whole_pages
from voxblink2_lib.records import SAMPLE_RATE_HZ

Samples = npt.NDArray[np.float32]

SILENT_PEAK_DB = -50.0
SHORT_SECONDS = 1.0
# Speech reaches full scale in one or two samples; a row of them was cut off.
CLIPPED_SAMPLES = 4
_FULL_SCALE = 1 - 2 / 32768
# A header may claim any number, for which room would be made.
_MOST_SAMPLES = 3600 * SAMPLE_RATE_HZ
_MEDIA_TYPES = {b"fLaC": "audio/flac", b"RIFF": "audio/wav", b"OggS": "audio/ogg"}


class Loudness(NamedTuple):
    """How loud a clip is.

    Attributes:
        seconds: its length.
        peak_db: its highest sample, in dB of full scale; minus infinity of digital silence.
        mean_db: its root mean square, likewise.
        clipped_run: how many samples in a row are at full scale, at most.
    """

    seconds: float
    peak_db: float
    mean_db: float
    clipped_run: int

    @property
    def is_silent(self) -> bool:
        """Whether nothing can be heard."""
        return self.peak_db < SILENT_PEAK_DB

    @property
    def is_clipped(self) -> bool:
        """Whether the wave is cut off at full scale."""
        return self.clipped_run >= CLIPPED_SAMPLES

    @property
    def is_short(self) -> bool:
        """Whether there is hardly a word in it."""
        return self.seconds < SHORT_SECONDS

    @property
    def text(self) -> str:
        """In words."""
        if math.isinf(self.peak_db):
            return f"{self.seconds:.2f} s, digital silence"
        parts = [
            f"{self.seconds:.2f} s",
            f"peak {self.peak_db:.1f} dB",
            f"RMS {self.mean_db:.1f} dB",
        ]
        if self.is_clipped:
            parts.append(f"clipped: {self.clipped_run} samples in a row at full scale")
        return ", ".join(parts)


def media_type(audio: bytes) -> str:
    """Return the media type of encoded audio.

    >>> media_type(b"fLaC...")
    'audio/flac'
    """
    return _MEDIA_TYPES.get(audio[:4], "application/octet-stream")


def decode(audio: bytes) -> Samples:
    """Return the samples of a clip at 16 kHz, shape (n,).

    Raises:
        ClipDamagedError: it cannot be decoded, or is not in the form of a clip.
    """
    import soundfile

    if audio[:4] == b"OggS" and not has_whole_pages(audio):
        raise ClipDamagedError("The clip cannot be decoded: a page of it has a wrong checksum.")
    try:
        with soundfile.SoundFile(io.BytesIO(audio)) as file:
            form = (file.samplerate, file.channels)
            count = file.frames
            samples = file.read(min(count, _MOST_SAMPLES), dtype="float32")
    except (soundfile.SoundFileError, MemoryError, ValueError) as error:
        raise ClipDamagedError(f"The clip cannot be decoded: {first_line(error)}") from error
    if form != (SAMPLE_RATE_HZ, 1):
        raise ClipDamagedError(
            f"The clip cannot be decoded: it has {form[0]} Hz and {form[1]} channels; expected "
            f"are {SAMPLE_RATE_HZ} Hz and one."
        )
    if len(samples) != count:
        raise ClipDamagedError(
            f"The clip cannot be decoded: it ends after {len(samples):,} of {count:,} samples."
        )
    return np.asarray(samples, np.float32)


def loudness(samples: Samples) -> Loudness:
    """Measure samples at 16 kHz, shape (n,).

    >>> loudness(np.zeros(16_000, np.float32)).is_silent
    True
    """
    seconds = len(samples) / SAMPLE_RATE_HZ
    if not len(samples):
        return Loudness(seconds, -math.inf, -math.inf, 0)
    peak = float(np.abs(samples).max())
    mean = math.sqrt(float(np.square(samples, dtype=np.float64).mean()))
    return Loudness(seconds, _decibels(peak), _decibels(mean), _longest_run(samples, peak))


def _decibels(value: float) -> float:
    return 20 * math.log10(value) if value else -math.inf


def _longest_run(samples: Samples, peak: float) -> int:
    """Return how many samples in a row are at full scale, of one sign."""
    if peak < _FULL_SCALE:
        return 0
    longest = 0
    for sign in (1, -1):
        is_full = np.concatenate([[False], sign * samples >= _FULL_SCALE, [False]])
        edges = np.flatnonzero(np.diff(is_full.astype(np.int8)))
        longest = max(longest, *(edges[1::2] - edges[::2]).tolist(), 0)
    return longest
