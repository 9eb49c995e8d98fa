"""Export of a speaker model to ONNX, from waveform to embedding."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxblink2_lib.errors import DependencyError, ModelError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.models.base import SpeakerModel
from voxblink2_lib.models.features import (
    FFT_SAMPLES,
    HOP_SAMPLES,
    LOG_OFFSET,
    MAX_OFFSET,
    PRE_EMPHASIS,
    SpeakerFeatureExtractor,
    window_and_filters,
)
from voxblink2_lib.models.kaldi import (
    INT16_SCALE,
    LEAST_ENERGY,
    kaldi_waves,
    kaldi_window_and_filters,
)
from voxblink2_lib.records import SAMPLE_RATE_HZ

# Relative distance of embeddings; fast runtimes add in another order.
_TOLERANCE = 1e-3


class VoxBlink2FrontEnd(nn.Module):
    """The front end of the released models, for waveforms of the same length.

    The transform is a convolution with windowed sines and cosines: ONNX runtimes have no fast
    transform of this length, but all have convolutions.
    """

    waves: Tensor
    filters: Tensor

    def __init__(self, normalization: str | None, bands: int) -> None:
        super().__init__()
        self._normalization = normalization
        window, filters = window_and_filters(bands)
        # As in torch.stft, a window shorter than the transform is centred.
        padding = FFT_SAMPLES - len(window)
        window = functional.pad(window, (padding // 2, padding - padding // 2))
        turns = torch.arange(FFT_SAMPLES, dtype=torch.float64) / FFT_SAMPLES
        angle = 2 * torch.pi * turns * torch.arange(FFT_SAMPLES // 2 + 1)[:, None]
        waves = torch.cat([angle.cos(), angle.sin()]) * window
        self.register_buffer("waves", waves[:, None].float())
        self.register_buffer("filters", filters)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return log-mel frames, shape (batch, frames, bands), of waveforms (batch, samples)."""
        if self._normalization == "std":
            variance, mean = torch.var_mean(waveforms, dim=1, keepdim=True, correction=1)
            x = (waveforms - mean) / variance.sqrt()
        else:
            x = waveforms / (waveforms.abs().amax(dim=1, keepdim=True) + MAX_OFFSET)
        x = torch.cat([x[:, :1], x[:, 1:] - PRE_EMPHASIS * x[:, :-1]], dim=1)
        half = FFT_SAMPLES // 2
        x = functional.pad(x[:, None], (half, half), mode="reflect")
        return (_power(x, self.waves) @ self.filters + LOG_OFFSET).log()


class KaldiFrontEnd(nn.Module):
    """The front end of Kaldi, for waveforms of the same length: a convolution, as the other."""

    waves: Tensor
    filters: Tensor

    def __init__(self, window: str, bands: int) -> None:
        super().__init__()
        self.register_buffer("waves", kaldi_waves(window, bands)[:, None])
        self.register_buffer("filters", kaldi_window_and_filters(window, bands)[1])

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return log-mel frames, shape (batch, frames, bands), of waveforms (batch, samples)."""
        # The mean of each frame is subtracted anyway; without that of all, less is rounded.
        x = INT16_SCALE * (waveforms - waveforms.mean(dim=1, keepdim=True))
        power = _power(x[:, None], self.waves)
        return (power @ self.filters).clamp(min=LEAST_ENERGY).log()


def _power(x: Tensor, waves: Tensor) -> Tensor:
    """Return the power spectrum, shape (batch, frames, bins), of samples (batch, 1, samples)."""
    real, imaginary = functional.conv1d(x, waves, stride=HOP_SAMPLES).chunk(2, dim=1)
    return (real.square() + imaginary.square()).transpose(1, 2)


class WaveformModel(nn.Module):
    """A model with its front end, for waveforms of the same length."""

    def __init__(self, model: SpeakerModel, extractor: SpeakerFeatureExtractor) -> None:
        super().__init__()
        bands = extractor.num_mel_bins
        self.model = model
        self.front_end = (
            VoxBlink2FrontEnd(extractor.normalization, bands)
            if extractor.window_type is None
            else KaldiFrontEnd(extractor.window_type, bands)
        )

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return embeddings, shape (batch, dimensions), of float32 waveforms (batch, samples)."""
        mel = self.front_end(waveforms)
        return self.model.embed((mel - mel.mean(dim=1, keepdim=True)).transpose(1, 2), None)


def export_onnx(
    model: SpeakerModel, extractor: SpeakerFeatureExtractor, target: str | Path
) -> Path:
    """Export a model as ONNX: input ``waveforms`` (batch, samples), output ``embeddings``.

    Batch and samples are free, from ``min_samples`` of the extractor on; all waveforms of a batch
    have the same length. The result is run with onnxruntime and compared with the model before it
    is written.

    Raises:
        DependencyError: one of the packages onnx, onnxscript and onnxruntime is missing.
        ModelError: the exported model gives other embeddings.
    """
    onnxruntime = _onnxruntime()
    target = Path(target)
    module = WaveformModel(copy.deepcopy(model), extractor).float().eval()
    example = torch.randn(2, SAMPLE_RATE_HZ, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        data = _exported(module, example, extractor.min_samples)
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        # Another batch and length than the example: both must be free.
        _check_equal(module, session, example.flatten()[None, : 3 * SAMPLE_RATE_HZ // 2])
    with atomic_write(target) as file:
        file.write(data)
    return target


def _exported(module: WaveformModel, example: Tensor, min_samples: int) -> bytes:
    """Return the ONNX file of a model."""
    free = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("samples", min=min_samples)},)
    with warnings.catch_warnings():
        # PyTorch's exporter calls deprecated parts of PyTorch.
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["waveforms"],
            output_names=["embeddings"],
            dynamic_shapes=free,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # what dynamo=True returns
    data: bytes = program.model_proto.SerializeToString()
    return data


def _check_equal(module: WaveformModel, session: Any, waveforms: Tensor) -> None:
    """Refuse an exported model that gives other embeddings than the model."""
    ours = module(waveforms)
    theirs = torch.from_numpy(session.run(None, {"waveforms": waveforms.numpy()})[0])
    distance = float((ours - theirs).norm() / ours.norm())
    if not distance <= _TOLERANCE:
        raise ModelError(
            f"The exported model gives other embeddings than the model: {distance:.2g} apart, "
            f"allowed is {_TOLERANCE:g}. Nothing was written."
        )


def _onnxruntime() -> Any:
    """Return the module onnxruntime, if all packages for the export are installed."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch.onnx needs
    except ImportError as error:
        raise DependencyError(
            "Export needs the packages onnx, onnxscript and onnxruntime: "
            "pip install 'voxblink2[onnx]'"
        ) from error
    return onnxruntime
