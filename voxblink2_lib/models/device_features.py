"""The front end as a module: log-mel frames of a batch of waveforms, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models.features import (
    FFT_SAMPLES,
    HOP_SAMPLES,
    LOG_OFFSET,
    WINDOW_SAMPLES,
    SpeakerFeatureExtractor,
    window_and_filters,
)
from voxblink2_lib.models.kaldi_frames import (
    LEAST_ENERGY,
    kaldi_power,
    kaldi_window_and_filters,
)
from voxblink2_lib.models.padded_waveforms import mean_over_valid, prepared, valid_places
from voxblink2_lib.models.precision import full_precision


class DeviceFeatures(nn.Module):
    """Computes what a feature extractor computes, where the waveforms are.

    The numbers are those of the extractor up to rounding: float32 whatever autocast is on. They
    have no gradient. Waveforms are not checked, since that would wait for the device: silence
    gives finite numbers that mean nothing. ``recipes.training.FeatureCollate`` checks them.

    Args:
        extractor: its options are used.

    Example:
        >>> features = DeviceFeatures(SpeakerFeatureExtractor())
        >>> noise = torch.randn(2, 32_000)
        >>> frames, mask = features(noise, torch.tensor([32_000, 16_000]))
        >>> frames.shape, mask.sum(dim=1).tolist()
        (torch.Size([2, 201, 80]), [201, 101])
    """

    window: Tensor
    filters: Tensor

    def __init__(self, extractor: SpeakerFeatureExtractor) -> None:
        super().__init__()
        self._normalization = extractor.normalization
        self._is_kaldi = extractor.window_type is not None
        self._min_samples = extractor.min_samples
        window, filters = (
            window_and_filters(extractor.num_mel_bins)
            if extractor.window_type is None
            else kaldi_window_and_filters(extractor.window_type, extractor.num_mel_bins)
        )
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    @torch.no_grad()
    def forward(
        self, waveforms: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return frames and the mask of valid ones.

        Args:
            waveforms: float32 in [-1, 1], shape (batch, samples); padding may be anything finite.
            lengths: number of valid samples of each, int64, shape (batch,); ``None`` if all are.

        Returns:
            Frames, float32, shape (batch, frames, bands), zero at padding; and 1 at valid frames,
            int64, shape (batch, frames), or ``None`` without lengths.

        Raises:
            ModelError: the shape is another, or there are too few samples.
        """
        if waveforms.ndim != 2 or waveforms.shape[1] < self._min_samples:
            raise ModelError(
                f"waveforms has the shape {tuple(waveforms.shape)}; expected is (batch, samples), "
                f"with {self._min_samples} samples or more."
            )
        with full_precision(waveforms):
            mel = self._kaldi(waveforms) if self._is_kaldi else self._voxblink2(waveforms, lengths)
            if lengths is None:
                return mel - mel.mean(dim=1, keepdim=True), None
            valid = valid_places(mel, self._frame_counts(lengths))
            centred = mel - mean_over_valid(mel, valid[:, :, None])
            return centred * valid[:, :, None], valid.long()

    def _frame_counts(self, lengths: Tensor) -> Tensor:
        return 1 + (lengths - WINDOW_SAMPLES * self._is_kaldi) // HOP_SAMPLES

    def _voxblink2(self, waveforms: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            lengths = torch.full_like(waveforms[:, 0], waveforms.shape[1], dtype=torch.long)
        x = prepared(waveforms, lengths, self._normalization)
        sizes = (FFT_SAMPLES, HOP_SAMPLES, WINDOW_SAMPLES)
        spectrum = torch.stft(x, *sizes, self.window, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return (self._mel(power.transpose(1, 2)) + LOG_OFFSET).log()

    def _kaldi(self, waveforms: Tensor) -> Tensor:
        return self._mel(kaldi_power(waveforms, self.window)).clamp(min=LEAST_ENERGY).log()

    def _mel(self, power: Tensor) -> Tensor:
        """Return the energies of bands: in float64 on GPUs, where float32 may mean TF32."""
        dtype = torch.float64 if power.is_cuda else torch.float32
        return (power.to(dtype) @ self.filters.to(dtype)).float()
