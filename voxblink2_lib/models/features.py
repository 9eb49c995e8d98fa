"""Waveforms to log-mel frames, as the released models expect them.

In this order: normalisation of the waveform, pre-emphasis, mel power spectrogram (400 samples
every 160, 512-point transform, 80 HTK bands), logarithm, and the mean over time taken off.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from voxblink2_lib.errors import ModelError
from voxblink2_lib.records import SAMPLE_RATE_HZ

Normalization = Literal["std", "max"]
NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)

WINDOW_SAMPLES, HOP_SAMPLES, FFT_SAMPLES = 400, 160, 512

# The deepest network halves time three times and takes a variance over what is left.
MIN_SAMPLES = SAMPLE_RATE_HZ // 10
PRE_EMPHASIS = 0.97
MAX_OFFSET = 1e-4
LOG_OFFSET = 1e-6
_INT16_RANGE = 32768.0
_KINDS = {np.dtype(np.float32), np.dtype(np.int16)}

Waveform = npt.NDArray[np.floating[Any]] | npt.NDArray[np.int16] | Tensor | Sequence[float]


class SpeakerFeatureExtractor(SequenceFeatureExtractor):
    """Turns waveforms into log-mel frames, padded to one length.

    Args:
        normalization: of the waveform, as the model was trained: ``"std"`` (zero mean, unit
            variance) or ``"max"`` (by its peak).
        num_mel_bins: bands.

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
        normalization: Normalization = "std",
        num_mel_bins: int = 80,
        feature_size: int = 80,
        sampling_rate: int = SAMPLE_RATE_HZ,
        padding_value: float = 0.0,
        **kwargs: Any,
    ) -> None:
        del feature_size  # is num_mel_bins; transformers saves both
        if normalization not in NORMALIZATIONS:
            raise ModelError(
                f"normalization {normalization!r} is not known. "
                f"Available: {', '.join(NORMALIZATIONS)}."
            )
        if sampling_rate != SAMPLE_RATE_HZ:
            raise ModelError(f"sampling_rate must be {SAMPLE_RATE_HZ}, got {sampling_rate}.")
        self.normalization = normalization
        self.num_mel_bins = num_mel_bins
        super().__init__(num_mel_bins, sampling_rate, padding_value, **kwargs)

    def __call__(
        self,
        waveforms: Waveform | Sequence[Waveform],
        *,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = "pt",
        names: Sequence[str] | None = None,
    ) -> BatchFeature:
        """Return ``input_features``, shape (n, frames, bands), and ``attention_mask``.

        Args:
            waveforms: one waveform, shape (samples,), or several; numbers in [-1, 1], or int16.
            sampling_rate: of the waveforms; anything but 16,000 is refused.
            padding: ``True`` or ``"longest"``: there is no other way here, the argument is what
                code for any feature extractor passes.
            return_tensors: ``"pt"`` or ``"np"``.
            names: what to call the waveforms in messages.

        Raises:
            ModelError: a waveform has another rate, several channels, fewer than 1,600 samples,
                numbers that are not finite, or no sound at all. The message names it.
        """
        for name, value, allowed in (
            ("padding", padding, (True, "longest")),
            ("return_tensors", return_tensors, ("pt", "np")),
        ):
            if value not in allowed:
                said = " and ".join(map(repr, allowed))
                raise ModelError(f"{name} must be one of {said}, got {value!r}.")
        if sampling_rate not in {None, SAMPLE_RATE_HZ}:
            raise ModelError(
                f"The waveforms have {sampling_rate} samples a second; resample them to "
                f"{SAMPLE_RATE_HZ}."
            )
        several = _several(waveforms)
        names = [f"waveform {place}" for place in range(len(several))] if names is None else names
        if not several or len(names) != len(several):
            raise ModelError(
                f"There are {len(several)} waveforms and {len(names)} names; expected are one or "
                "more, and as many of both."
            )
        frames = [
            log_mel(
                checked_waveform(one, name),
                normalization=self.normalization,
                bands=self.num_mel_bins,
            )
            for one, name in zip(several, names, strict=True)
        ]
        lengths = torch.tensor([len(one) for one in frames])
        features = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
        mask = (torch.arange(features.shape[1])[None] < lengths[:, None]).long()
        both = {"input_features": features, "attention_mask": mask}
        if return_tensors == "np":
            return BatchFeature({name: one.numpy() for name, one in both.items()})
        return BatchFeature(both)


def _several(waveforms: Any) -> list[Any]:
    """Return a list of waveforms for one or several of them."""
    if isinstance(waveforms, np.ndarray | Tensor):
        return list(waveforms) if waveforms.ndim > 1 else [waveforms]
    listed = list(waveforms)
    return [listed] if not listed or np.ndim(listed[0]) == 0 else listed


def checked_waveform(waveform: Any, name: str) -> Tensor:
    """Return a waveform as float32 tensor, shape (samples,).

    Raises:
        ModelError: see :class:`SpeakerFeatureExtractor`.
    """
    if not isinstance(waveform, Tensor):
        # A copy of our own: arrays may be read-only, of the other byte order, or run backwards.
        array = np.asarray(waveform)
        native = array.dtype.newbyteorder("=")
        kind = np.dtype(np.float32) if native.kind == "f" else native
        with np.errstate(over="ignore"):  # too large becomes infinite, which is refused by name
            waveform = torch.from_numpy(np.array(array, kind)) if kind in _KINDS else array
    x = waveform
    if not (isinstance(x, Tensor) and (x.is_floating_point() or x.dtype == torch.int16)):
        raise ModelError(f"{name} holds {x.dtype}; expected are real numbers in [-1, 1], or int16.")
    if x.ndim != 1:
        raise ModelError(
            f"{name} has shape {tuple(x.shape)}, expected is (samples,): mix channels to one."
        )
    if len(x) < MIN_SAMPLES:
        raise ModelError(
            f"{name} has {len(x)} samples; a model needs at least {MIN_SAMPLES} (0.1 s)."
        )
    x = x.float() / _INT16_RANGE if x.dtype == torch.int16 else x.float()
    if not bool(torch.isfinite(x).all()):
        raise ModelError(f"{name} has a sample that is not finite (NaN or infinite).")
    if bool((x == x[0]).all()):
        raise ModelError(f"{name} is silent: all its samples are equal.")
    return x


def log_mel(waveform: Tensor, *, normalization: str, bands: int = 80) -> Tensor:
    """Return log-mel frames of a waveform, their mean over time taken off.

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
    window, filters = (one.to(x.device) for one in window_and_filters(bands))
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
