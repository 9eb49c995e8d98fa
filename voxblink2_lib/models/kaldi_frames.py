"""Log-mel frames as Kaldi computes them, without dither: the front end of WeSpeaker's models.

Whole frames of 25 ms every 10 ms, of samples at the scale of int16 (other projects have others). Of
each frame: its mean is subtracted, pre-emphasis (the first sample against itself), window, power
spectrum of 512 points, triangular bands evenly spaced in mels from 20 Hz to 8000 Hz, logarithm of
at least an epsilon.
"""

from __future__ import annotations

import functools
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from voxblink2_lib.records import SAMPLE_RATE_HZ

Window = Literal["hamming", "povey"]
WINDOWS: tuple[str, ...] = get_args(Window)

WINDOW_SAMPLES, HOP_SAMPLES, FFT_SAMPLES = 400, 160, 512
# Nine frames: the deepest network halves time three times and computes a variance over the rest.
KALDI_MIN_SAMPLES = WINDOW_SAMPLES + 8 * HOP_SAMPLES
INT16_SCALE = 32768.0
LEAST_ENERGY = torch.finfo(torch.float32).eps

_PRE_EMPHASIS = 0.97
_LOWEST_HZ = 20.0
_POVEY_POWER = 0.85


def kaldi_log_mel(
    waveform: Tensor, *, window: str, bands: int = 80, scale: float = INT16_SCALE
) -> Tensor:
    """Return log energies of mel bands.

    Args:
        waveform: float32 in [-1, 1], shape (samples,), of at least 400 samples.
        window: ``"hamming"``, as in WeSpeaker, or ``"povey"``, Kaldi's own.
        bands: number of mel bands.
        scale: of the samples that a model was trained on: it shifts all log energies alike, but
            for those at the least energy.

    Returns:
        Shape (1 + (samples - 400) // 160, bands), float32; their mean is not subtracted.
    """
    weights, filters = (x.to(waveform.device) for x in kaldi_window_and_filters(window, bands))
    power = kaldi_power(waveform, weights, scale=scale)
    energies: Tensor = (power @ filters).clamp(min=LEAST_ENERGY).log()
    return energies


def kaldi_power(waveforms: Tensor, weights: Tensor, *, scale: float = INT16_SCALE) -> Tensor:
    """Return the power spectrum of each frame.

    Args:
        waveforms: float32 in [-1, 1], shape (..., samples).
        weights: the window, shape (400,).
        scale: of the samples that a model was trained on.

    Returns:
        Shape (..., frames, 257).
    """
    frames = (scale * waveforms).unfold(-1, WINDOW_SAMPLES, HOP_SAMPLES)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    spectrum = torch.fft.rfft((frames - _PRE_EMPHASIS * before) * weights, n=FFT_SAMPLES)
    power: Tensor = spectrum.real.square() + spectrum.imag.square()
    return power


@functools.lru_cache(maxsize=4)
def kaldi_window_and_filters(window: str, bands: int) -> tuple[Tensor, Tensor]:
    """Return the window, shape (400,), and the mel filter bank, shape (257, bands)."""
    weights = (
        torch.hamming_window(WINDOW_SAMPLES, periodic=False)
        if window == "hamming"
        else torch.hann_window(WINDOW_SAMPLES, periodic=False).pow(_POVEY_POWER)
    )
    filters = mel_filter_bank(
        FFT_SAMPLES // 2 + 1,
        bands,
        _LOWEST_HZ,
        SAMPLE_RATE_HZ / 2,
        SAMPLE_RATE_HZ,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return weights, torch.tensor(filters, dtype=torch.float32)


def kaldi_waves(window: str, bands: int) -> Tensor:
    """Return the transform of a frame as one matrix, shape (514, 400), in float32.

    All steps up to the spectrum are linear. Its rows are the cosines, then the sines.
    """
    weights, _ = kaldi_window_and_filters(window, bands)
    identity = torch.eye(WINDOW_SAMPLES, dtype=torch.float64)
    frames = identity - identity.mean(dim=1, keepdim=True)  # one frame for each sample
    before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    windowed = (frames - _PRE_EMPHASIS * before) * weights.double()
    spectrum = torch.fft.rfft(windowed, n=FFT_SAMPLES)
    return torch.cat([spectrum.real, spectrum.imag], dim=1).T.float()
