"""From decoded frames to 16 kHz mono: which channels count how much, and the change of rate.

Up to two channels, and channels without a place, count alike: mono is their mean. More channels
count as ITU-R BS.775 mixes them to stereo, of which mono is the mean; the weights are divided by
their sum, so full scale in every channel stays full scale. Levels are those of the source.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soxr

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.encoding import Samples
from voxblink2_lib.records import SAMPLE_RATE_HZ

# soxr's setting: flat within 0.5 dB up to 7.5 kHz, aliases below -100 dB.
QUALITY = "HQ"

# Samples of a channel that are mixed and resampled at once. They stay in the processor's cache,
# and memory does not grow with the length of the video.
_BLOCK = 1 << 14

# Mean of left and right in BS.775: L + C / sqrt(2) + Ls / sqrt(2), and the same on the right. A
# single channel behind counts in both. LFE does not count.
_HALF_POWER = 0.5**0.5
_WEIGHTS = {
    **dict.fromkeys(("FL", "FR", "FLC", "FRC", "DL", "DR", "BC"), 0.5),
    "FC": _HALF_POWER,
    **dict.fromkeys(("BL", "BR", "SL", "SR"), 0.5 * _HALF_POWER),
    **dict.fromkeys(("LFE", "LFE2"), 0.0),
}

# Channels cancel each other if their mix is more than 20 dB below the louder one.
_CANCELLED = 0.01


class _Encoding(NamedTuple):
    """How FFmpeg stores a sample: its type, what silence is, and what full scale is."""

    dtype: str
    zero: int = 0
    full_scale: float = 1.0


_ENCODINGS = {
    "u8": _Encoding("u1", 128, 2.0**7),
    "s16": _Encoding("i2", 0, 2.0**15),
    "s32": _Encoding("i4", 0, 2.0**31),
    "s64": _Encoding("i8", 0, 2.0**63),
    "flt": _Encoding("f4"),
    "dbl": _Encoding("f8"),
}


def channel_weights(names: tuple[str, ...]) -> tuple[float, ...]:
    """Return how much each channel counts in mono; the sum is 1.

    Args:
        names: FFmpeg's names of the channels, in order; unknown ones where it states none.

    >>> channel_weights(("FL", "FR"))
    (0.5, 0.5)
    """
    weights = [_WEIGHTS.get(name) for name in names]
    known = [weight for weight in weights if weight is not None]
    if len(names) <= 2 or len(known) < len(names) or not any(known):
        return (1 / len(names),) * len(names)
    return tuple(weight / sum(known) for weight in known)


class Levels:
    """Energies of the channels and of their mix, which tell whether channels cancel each other.

    Attributes:
        channels: the energy of each channel that counts, and 0 for others.
        mix: the energy of the mix.
    """

    def __init__(self) -> None:
        self.channels: npt.NDArray[np.float64] = np.zeros(0)
        self.mix = 0.0

    def add(self, channels: npt.NDArray[np.float64], mix: float) -> None:
        """Add the energies of a block."""
        if len(channels) > len(self.channels):
            self.channels = np.pad(self.channels, (0, len(channels) - len(self.channels)))
        self.channels[: len(channels)] += channels
        self.mix += mix

    def cancelled_channel(self) -> int | None:
        """Return the loudest channel if the mix is more than 20 dB below it; else ``None``."""
        if len(self.channels) < 2 or self.mix >= _CANCELLED * self.channels.max():
            return None
        return int(np.argmax(self.channels))


class Mixer:
    """Mixes and resamples consecutive frames of one format.

    Args:
        frame: the first ``av.AudioFrame``, which is not added.
        levels: where energies are added.
        channel: take this channel alone, counted from 0.

    Raises:
        MediaError: samples of an unknown type.
    """

    def __init__(self, frame: Any, levels: Levels, *, channel: int | None = None) -> None:
        self._is_planar = frame.format.is_planar
        encoding = _ENCODINGS.get(frame.format.packed.name)
        if encoding is None:
            raise MediaError(f"the media file's samples have the unknown type {frame.format.name}")
        self._encoding = encoding
        names = tuple(each.name for each in frame.layout.channels)
        weights = np.array(channel_weights(names), np.float32)
        if channel is not None:
            weights = np.zeros(len(names), np.float32)
            weights[min(channel, len(names) - 1)] = 1
        self._counting = np.flatnonzero(weights)
        # Equal weights are applied after the resampling, to a third of the samples.
        first = weights[self._counting[0]]
        self._weights = None if np.all(weights[self._counting] == first) else weights
        gain = float(first) if self._weights is None else 1.0
        self._gain = np.float32(gain / encoding.full_scale)
        self._levels = levels
        self._block = np.empty((len(names), _BLOCK), np.float32)
        self._filled = 0
        self._resampler = None
        if frame.sample_rate != SAMPLE_RATE_HZ:
            self._resampler = soxr.ResampleStream(
                frame.sample_rate, SAMPLE_RATE_HZ, 1, dtype="float32", quality=QUALITY
            )
        self._resampled: list[Samples] = []

    def add(self, frame: Any) -> None:
        """Add a frame of the same format."""
        count, start = frame.samples, self._filled
        if start + count > self._block.shape[1]:
            self._flush()
            start = 0
            if count > self._block.shape[1]:
                self._block = np.empty((len(self._block), count), np.float32)
        stop = start + count
        dtype = self._encoding.dtype
        if self._is_planar:
            for row, plane in zip(self._block, frame.planes, strict=True):
                row[start:stop] = np.frombuffer(plane, dtype, count)
        else:
            channels = len(self._block)
            samples = np.frombuffer(frame.planes[0], dtype, count * channels)
            self._block[:, start:stop] = samples.reshape(count, channels).T
        self._filled = stop

    def finish(self) -> Samples:
        """Return everything that was added, at 16 kHz. Shape: [samples]."""
        self._flush(is_last=True)
        return np.concatenate(self._resampled)

    def _flush(self, *, is_last: bool = False) -> None:
        mixed = self._mix(self._block[:, : self._filled])
        self._filled = 0
        if self._resampler is not None:
            mixed = self._resampler.resample_chunk(mixed, last=is_last)
        mixed *= self._gain
        self._resampled.append(mixed)

    def _mix(self, block: Samples) -> Samples:
        if self._encoding.zero:
            block -= self._encoding.zero
        mixed = self._weighted(block)
        energy = float(np.dot(mixed, mixed))
        if not np.isfinite(energy):
            # One such number would spread over all that the resampler makes of a block.
            np.nan_to_num(block, copy=False, nan=0, posinf=0, neginf=0)
            mixed = self._weighted(block)
            energy = float(np.dot(mixed, mixed))
        if len(self._counting) > 1:
            self._add_levels(block, energy)
        return mixed

    def _weighted(self, block: Samples) -> Samples:
        first, *others = self._counting
        if self._weights is None:
            mixed = block[first].copy() if not others else block[first] + block[others[0]]
            for channel in others[1:]:
                mixed += block[channel]
        else:
            mixed = self._weights[first] * block[first]
            for channel in others:
                mixed += self._weights[channel] * block[channel]
        return np.asarray(mixed, np.float32)

    def _add_levels(self, block: Samples, energy: float) -> None:
        energies = np.zeros(len(block))
        for channel in self._counting:
            energies[channel] = np.dot(block[channel], block[channel])
        scale = 1 / self._encoding.full_scale**2
        mix_gain = float(self._gain) ** 2
        self._levels.add(energies * scale, energy * mix_gain)
