"""From decoded frames to 16 kHz mono: which channels count how much, and the change of rate.

Up to two channels, and channels without a place, count alike: mono is their mean. More channels
count as ITU-R BS.775 mixes them to stereo, of which mono is the mean; the weights are divided by
their sum, so full scale in every channel stays full scale. Levels are those of the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
_BLOCK = 1 << 15
_FLOAT = np.dtype(np.float32)

# Of which so many tell how loud a channel is.
_MEASURED = 1 << 12

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

    They are those of the beginning of each block, which is enough and costs nearly nothing.
    """

    def __init__(self) -> None:
        self._channels: dict[int, float] = {}
        self._mix = 0.0

    def add(self, channels: Mapping[int, float], mix: float) -> None:
        """Add the energies of the channels that count, by their numbers, and of their mix."""
        for number, energy in channels.items():
            self._channels[number] = self._channels.get(number, 0.0) + energy
        self._mix += mix

    def cancelled_channel(self) -> int | None:
        """Return the loudest channel if the mix is more than 20 dB below it; else ``None``."""
        if not self._channels:
            return None
        loudest = max(self._channels, key=self._channels.__getitem__)
        return loudest if self._mix < _CANCELLED * self._channels[loudest] else None


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
        import av

        encoding = _ENCODINGS.get(frame.format.packed.name)
        if encoding is None:
            raise MediaError(f"the media file's samples have the unknown type {frame.format.name}")
        self._encoding = encoding
        self._dtype = np.dtype(encoding.dtype)
        names = tuple(each.name for each in frame.layout.channels)
        weights = np.array(channel_weights(names), np.float32)
        if channel is not None:
            weights = np.zeros(len(names), np.float32)
            weights[min(channel, len(names) - 1)] = 1
        self._counting = np.flatnonzero(weights).tolist()
        # Equal weights are applied after the resampling, to a third of the samples.
        first = weights[self._counting[0]]
        is_equal = bool(np.all(weights[self._counting] == first))
        self._weights = None if is_equal else weights
        gain = float(first) if is_equal else 1.0
        self._gain = np.float32(gain / encoding.full_scale)
        self._zero = encoding.zero * float(weights.sum()) / gain
        self._channels = len(names)
        self._levels = levels
        self._fifo = av.AudioFifo()
        self._resampler = None
        if frame.sample_rate != SAMPLE_RATE_HZ:
            self._resampler = soxr.ResampleStream(
                frame.sample_rate, SAMPLE_RATE_HZ, 1, dtype="float32", quality=QUALITY
            )
        self._resampled: list[Samples] = []

    def add(self, frame: Any) -> None:
        """Add a frame of the same format; its time stamp is removed."""
        frame.pts = None  # otherwise the queue expects it to follow the one before exactly
        self._fifo.write(frame)
        if self._fifo.samples >= _BLOCK:
            self._flush()

    def finish(self) -> Samples:
        """Return everything that was added, at 16 kHz. Shape: [samples]."""
        self._flush(is_last=True)
        return np.concatenate(self._resampled)

    def _flush(self, *, is_last: bool = False) -> None:
        block = self._fifo.read()
        mixed = np.zeros(0, np.float32) if block is None else self._mix(self._channels_of(block))
        if self._resampler is not None:
            mixed = self._resampler.resample_chunk(mixed, last=is_last)
        mixed *= self._gain
        self._resampled.append(mixed)

    def _channels_of(self, block: Any) -> Sequence[npt.NDArray[Any]]:
        """Return views of a frame's channels, in the type that they are stored in."""
        if block.format.is_planar:
            return [np.frombuffer(plane, self._dtype, block.samples) for plane in block.planes]
        samples = np.frombuffer(block.planes[0], self._dtype, block.samples * self._channels)
        return list(samples.reshape(-1, self._channels).T)

    def _mix(self, channels: Sequence[npt.NDArray[Any]]) -> Samples:
        """Return the mix of channels before its gain."""
        mixed = self._weighted(channels)
        if not np.isfinite(mixed.sum()):
            # One number that is none would spread over all that the resampler makes of a block.
            channels = [
                np.nan_to_num(each.astype(_FLOAT), nan=0, posinf=0, neginf=0) for each in channels
            ]
            mixed = self._weighted(channels)
        if len(self._counting) > 1:
            self._measure(channels, mixed)
        return mixed

    def _weighted(self, channels: Sequence[npt.NDArray[Any]]) -> Samples:
        first, *others = self._counting
        weights = self._weights
        mixed = channels[first].astype(_FLOAT)
        if weights is not None:
            mixed *= weights[first]
        for channel in others:
            mixed += channels[channel] if weights is None else weights[channel] * channels[channel]
        if self._encoding.zero:
            mixed -= self._zero
        return mixed

    def _measure(self, channels: Sequence[npt.NDArray[Any]], mixed: Samples) -> None:
        unit = 1 / self._encoding.full_scale**2
        energies = {
            number: unit * _energy(channels[number], self._encoding.zero)
            for number in self._counting
        }
        self._levels.add(energies, float(self._gain) ** 2 * _energy(mixed, 0))


def _energy(samples: npt.NDArray[Any], zero: int) -> float:
    centred = samples[:_MEASURED].astype(_FLOAT) - np.float32(zero)
    return float(np.dot(centred, centred))
