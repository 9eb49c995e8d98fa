"""Log-mel frames of waveforms, as the models expect them: by one of two recipes.

Of the released models: normalization of the waveform, pre-emphasis, mel power spectrogram (windows
of 400 samples every 160, 512-point transform, 80 HTK bands), logarithm. Of WeSpeaker's: that of
Kaldi, see ``models.kaldi_frames``. In both, the mean over time is subtracted.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models.batches import BatchOptions, batch_of, check_options
from voxblink2_lib.models.kaldi_frames import KALDI_MIN_SAMPLES, WINDOWS, Window, kaldi_log_mel
from voxblink2_lib.models.standalone import is_of_library, place_in_map, write_modules
from voxblink2_lib.records import SAMPLE_RATE_HZ

FrontEnd = Literal["voxblink2", "kaldi"]
FRONT_ENDS: tuple[str, ...] = get_args(FrontEnd)
Normalization = Literal["std", "max"]
NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)

WINDOW_SAMPLES, HOP_SAMPLES, FFT_SAMPLES = 400, 160, 512

# The deepest network halves time three times and computes a variance over the rest.
MIN_SAMPLES = SAMPLE_RATE_HZ // 10
PRE_EMPHASIS = 0.97
MAX_OFFSET = 1e-4
LOG_OFFSET = 1e-6
_INT16_RANGE = 32768.0
_TYPES = {np.dtype(np.float32), np.dtype(np.int16)}

Waveform = npt.NDArray[np.floating[Any]] | npt.NDArray[np.int16] | Tensor | Sequence[float]


class SpeakerFeatureExtractor(SequenceFeatureExtractor):
    """Computes log-mel frames of waveforms, padded to the same length.

    Args:
        front_end: the recipe, as in training: ``"voxblink2"`` or ``"kaldi"``.
        normalization: of the waveform, for ``"voxblink2"``: ``"std"`` (zero mean, unit variance;
            the default) or ``"max"`` (by its peak).
        window_type: for ``"kaldi"``: ``"hamming"`` (the default) or ``"povey"``.
        num_mel_bins: number of bands.
        feature_size: equals ``num_mel_bins``; ``transformers`` saves both.
        sampling_rate: 16,000.
        padding_value: of features at padding.
        kwargs: further options of ``SequenceFeatureExtractor``.

    Raises:
        ModelError: an option is unknown, or belongs to the other recipe.

    Example:
        >>> extractor = SpeakerFeatureExtractor()
        >>> waves = [np.sin(np.arange(n), dtype=np.float32) for n in (16_000, 8_000)]
        >>> batch = extractor(waves, sampling_rate=16_000)
        >>> batch["input_features"].shape, batch["attention_mask"].sum(dim=1).tolist()
        (torch.Size([2, 101, 80]), [101, 51])
    """

    model_input_names = ["input_features", "attention_mask"]  # noqa: RUF012  # transformers' way

    def __init__(
        self,
        *,
        front_end: FrontEnd = "voxblink2",
        normalization: Normalization | None = None,
        window_type: Window | None = None,
        num_mel_bins: int = 80,
        feature_size: int = 80,
        sampling_rate: int = SAMPLE_RATE_HZ,
        padding_value: float = 0.0,
        **kwargs: Any,
    ) -> None:
        del feature_size  # equals num_mel_bins; transformers saves both
        if front_end not in FRONT_ENDS:
            raise ModelError(
                f"front_end {front_end!r} is unknown. Available: {', '.join(FRONT_ENDS)}."
            )
        is_kaldi = front_end == "kaldi"
        if sampling_rate != SAMPLE_RATE_HZ:
            raise ModelError(f"sampling_rate must be {SAMPLE_RATE_HZ}, got {sampling_rate}.")
        self.front_end = front_end
        self.normalization = _option(
            "normalization", normalization, NORMALIZATIONS, front_end, applies=not is_kaldi
        )
        # Of the name "window", transformers saves nothing.
        self.window_type = _option("window_type", window_type, WINDOWS, front_end, applies=is_kaldi)
        self.num_mel_bins = num_mel_bins
        super().__init__(num_mel_bins, sampling_rate, padding_value, **kwargs)

    @property
    def min_samples(self) -> int:
        """Number of samples that a waveform must have."""
        return KALDI_MIN_SAMPLES if self.front_end == "kaldi" else MIN_SAMPLES

    def save_pretrained(  # type: ignore[override]  # no positional options
        self, save_directory: str | Path, **options: Any
    ) -> list[str]:
        """Save the options, and the modules that load them without this library.

        Args:
            save_directory: the folder.
            options: of ``FeatureExtractionMixin.save_pretrained``.
        """
        if is_of_library(type(self)):
            self.auto_map = {"AutoFeatureExtractor": place_in_map(type(self))}
            write_modules(save_directory, [type(self)])
        return [*super().save_pretrained(save_directory, **options)]

    def __call__(
        self,
        waveforms: Waveform | Sequence[Waveform],
        *,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        truncation: bool = False,
        max_length: int | None = None,
        return_attention_mask: bool = True,
        return_tensors: str | None = "pt",
        names: Sequence[str] | None = None,
    ) -> BatchFeature:
        """Return ``input_features``, shape (n, frames, bands), and ``attention_mask``.

        Args:
            waveforms: one waveform, shape (samples,), or several; numbers in [-1, 1], or int16.
            sampling_rate: sampling rate of the waveforms; only 16,000 is accepted.
            padding: ``True`` or ``"longest"``: to the longest; ``"max_length"``: to that;
                ``False`` or ``"do_not_pad"``: not.
            truncation: cut waveforms at ``max_length``.
            max_length: in samples.
            return_attention_mask: with the mask of valid frames.
            return_tensors: ``"pt"`` or ``"np"``, or ``None`` for a list of arrays.
            names: names of the waveforms, for messages.

        Raises:
            ModelError: a waveform has another rate, several channels, fewer than ``min_samples``,
                non-finite values, or is silent: the message names it; or arguments do not go
                together.
        """
        wanted = BatchOptions(
            padding, truncation, max_length, return_attention_mask, return_tensors
        )
        check_options(wanted, min_samples=self.min_samples)
        if sampling_rate not in {None, SAMPLE_RATE_HZ}:
            raise ModelError(
                f"The waveforms have {sampling_rate} samples per second; resample them to "
                f"{SAMPLE_RATE_HZ}."
            )
        listed = _as_list(waveforms)
        names = [f"waveform {index}" for index in range(len(listed))] if names is None else names
        if not listed or len(names) != len(listed):
            raise ModelError(
                f"There are {len(listed)} waveforms and {len(names)} names; expected are one or "
                "more, and as many of both."
            )
        checked = self._checked(listed, names)
        if truncation:  # what is left may be silent
            checked = self._checked([waveform[:max_length] for waveform in checked], names)
        max_frames = None if max_length is None else self.frame_count(max_length)
        return batch_of([*map(self._frames, checked)], wanted, max_frames=max_frames)

    def _checked(self, waveforms: Sequence[Any], names: Sequence[str]) -> list[Tensor]:
        return [
            checked_waveform(waveform, name, min_samples=self.min_samples)
            for waveform, name in zip(waveforms, names, strict=True)
        ]

    def frame_count(self, samples: int) -> int:
        """Return the number of frames of a waveform of some samples.

        Args:
            samples: its length at 16 kHz.
        """
        if self.window_type is not None:  # Kaldi's, which are whole
            return 1 + (samples - WINDOW_SAMPLES) // HOP_SAMPLES
        return 1 + samples // HOP_SAMPLES

    def _frames(self, waveform: Tensor) -> Tensor:
        if self.window_type is not None:
            frames = kaldi_log_mel(waveform, window=self.window_type, bands=self.num_mel_bins)
            return frames - frames.mean(dim=0)
        assert self.normalization is not None  # of its own recipe
        return log_mel(waveform, normalization=self.normalization, bands=self.num_mel_bins)


def _option(
    name: str, value: str | None, allowed: tuple[str, ...], front_end: str, *, applies: bool
) -> str | None:
    """Return an option of a recipe, by default the first one allowed; ``None`` for the other."""
    if not applies and value is not None:
        raise ModelError(
            f"{name}={value!r} does not go with front_end={front_end!r}. Leave it out."
        )
    if applies and value is not None and value not in allowed:
        raise ModelError(f"{name} {value!r} is unknown. Available: {', '.join(allowed)}.")
    return (value or allowed[0]) if applies else None


def _as_list(waveforms: Any) -> list[Any]:
    """Return a list of waveforms for a single one or several."""
    if isinstance(waveforms, np.ndarray | Tensor):
        return list(waveforms) if waveforms.ndim > 1 else [waveforms]
    listed = list(waveforms)
    return [listed] if not listed or np.ndim(listed[0]) == 0 else listed


def checked_waveform(waveform: Any, name: str, *, min_samples: int = MIN_SAMPLES) -> Tensor:
    """Return a waveform as a float32 tensor, shape (samples,).

    Args:
        waveform: numbers in [-1, 1], or int16.
        name: for messages.
        min_samples: number of samples that it must have.

    Raises:
        ModelError: see :class:`SpeakerFeatureExtractor`.
    """
    if not isinstance(waveform, Tensor):
        # A copy: arrays may be read-only, of the other byte order, or have negative strides.
        array = np.asarray(waveform)
        native = array.dtype.newbyteorder("=")
        dtype = np.dtype(np.float32) if native.kind == "f" else native
        with np.errstate(over="ignore"):  # overflow gives infinity, which is refused with its name
            waveform = torch.from_numpy(np.array(array, dtype)) if dtype in _TYPES else array
    x = waveform
    if not (isinstance(x, Tensor) and (x.is_floating_point() or x.dtype == torch.int16)):
        raise ModelError(f"{name} is {x.dtype}; expected are real numbers in [-1, 1], or int16.")
    if x.ndim != 1:
        raise ModelError(
            f"{name} has shape {tuple(x.shape)}, expected is (samples,): mix it down to mono."
        )
    if len(x) < min_samples:
        raise ModelError(
            f"{name} has {len(x)} samples; a model needs at least {min_samples} "
            f"({min_samples / SAMPLE_RATE_HZ:g} s)."
        )
    x = x.float() / _INT16_RANGE if x.dtype == torch.int16 else x.float()
    lowest, highest = map(float, x.aminmax())  # NaN if any sample is
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ModelError(f"{name} has a sample that is not finite (NaN or infinite).")
    if lowest == highest:
        raise ModelError(f"{name} is silent: all its samples are equal.")
    return x


def log_mel(waveform: Tensor, *, normalization: str, bands: int = 80) -> Tensor:
    """Return log-mel frames of a waveform, their mean over time subtracted.

    Args:
        waveform: float32, shape (samples,).
        normalization: ``"std"`` or ``"max"``.
        bands: number of mel bands.

    Returns:
        Shape (1 + samples // 160, bands), float32.
    """
    if normalization == "std":
        x = (waveform - waveform.mean()) / waveform.std()
    else:
        x = waveform / (waveform.abs().max() + MAX_OFFSET)
    x = torch.cat([x[:1], x[1:] - PRE_EMPHASIS * x[:-1]])
    window, filters = (constant.to(x.device) for constant in window_and_filters(bands))
    spectrum = torch.stft(
        x, FFT_SAMPLES, HOP_SAMPLES, WINDOW_SAMPLES, window, pad_mode="reflect", return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    mel = (power.T @ filters + LOG_OFFSET).log()
    return mel - mel.mean(dim=0)


@functools.lru_cache(maxsize=4)
def window_and_filters(bands: int) -> tuple[Tensor, Tensor]:
    """Return the window, shape (400,), and the mel filter bank, shape (257, bands)."""
    filters = mel_filter_bank(
        FFT_SAMPLES // 2 + 1, bands, 0.0, SAMPLE_RATE_HZ / 2, SAMPLE_RATE_HZ, mel_scale="htk"
    )
    return torch.hann_window(WINDOW_SAMPLES), torch.tensor(filters, dtype=torch.float32)
