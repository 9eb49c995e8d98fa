"""Export of a speaker model to ONNX, from waveform to embedding."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any, Literal

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
    SpeakerFeatureExtractor,
    window_and_filters,
)
from voxblink2_lib.models.kaldi_frames import (
    INT16_SCALE,
    LEAST_ENERGY,
    kaldi_waves,
    kaldi_window_and_filters,
)
from voxblink2_lib.models.kaldi_frames import (
    WINDOW_SAMPLES as KALDI_WINDOW_SAMPLES,
)
from voxblink2_lib.models.onnx_description import (
    OnnxDescription,
    description_path,
    read_description,
    write_description,
)
from voxblink2_lib.models.padded_waveforms import mean_over_valid, prepared, valid_places
from voxblink2_lib.published_results import RELEASE_KEY
from voxblink2_lib.records import SAMPLE_RATE_HZ

Samples = Literal["float32", "int16"]

# Relative distance of embeddings; fast runtimes add in another order.
_TOLERANCE = 1e-3


class VoxBlink2FrontEnd(nn.Module):
    """The front end of the released models.

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

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-mel frames, shape (batch, frames, bands), and the number of valid ones."""
        power = _power(prepared(waveforms, lengths, self._normalization)[:, None], self.waves)
        return (power @ self.filters + LOG_OFFSET).log(), 1 + lengths // HOP_SAMPLES


class KaldiFrontEnd(nn.Module):
    """The front end of Kaldi: a convolution, as the other."""

    waves: Tensor
    filters: Tensor

    def __init__(self, window: str, bands: int) -> None:
        super().__init__()
        self.register_buffer("waves", kaldi_waves(window, bands)[:, None])
        self.register_buffer("filters", kaldi_window_and_filters(window, bands)[1])

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-mel frames, shape (batch, frames, bands), and the number of valid ones."""
        # The mean of each frame is subtracted anyway; without that of all, less is rounded.
        x = INT16_SCALE * (waveforms - mean_over_valid(waveforms, valid_places(waveforms, lengths)))
        power = _power(x[:, None], self.waves)
        frames = 1 + (lengths - KALDI_WINDOW_SAMPLES) // HOP_SAMPLES
        return (power @ self.filters).clamp(min=LEAST_ENERGY).log(), frames


def _power(x: Tensor, waves: Tensor) -> Tensor:
    """Return the power spectrum, shape (batch, frames, bins), of samples (batch, 1, samples)."""
    real, imaginary = functional.conv1d(x, waves, stride=HOP_SAMPLES).chunk(2, dim=1)
    return (real.square() + imaginary.square()).transpose(1, 2)


class WaveformModel(nn.Module):
    """A model with its front end."""

    def __init__(self, model: SpeakerModel, extractor: SpeakerFeatureExtractor) -> None:
        super().__init__()
        bands = extractor.num_mel_bins
        self.model = model
        self.front_end = (
            VoxBlink2FrontEnd(extractor.normalization, bands)
            if extractor.window_type is None
            else KaldiFrontEnd(extractor.window_type, bands)
        )

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return embeddings, shape (batch, dimensions).

        Args:
            waveforms: float32 in [-1, 1], or int16, shape (batch, samples); padding may be
                anything finite.
            lengths: number of valid samples of each, int64, shape (batch,).
        """
        if waveforms.dtype == torch.int16:
            waveforms = waveforms.float() / INT16_SCALE
        mel, frames = self.front_end(waveforms, lengths)
        mask = valid_places(mel, frames)
        features = (mel - mean_over_valid(mel, mask[:, :, None])) * mask[:, :, None]
        return self.model.embed(features.transpose(1, 2), mask)


def export_onnx(
    model: SpeakerModel,
    extractor: SpeakerFeatureExtractor,
    target: str | Path,
    *,
    samples: Samples = "float32",
) -> Path:
    """Export a model as ONNX: from ``waveforms`` and their ``lengths`` to ``embeddings``.

    Batch and samples are free, from ``min_samples`` of the extractor on. Shorter waveforms of a
    batch are padded, and their lengths tell by how much. The result is run with onnxruntime and
    compared with the model before it is written. Silence, which the feature extractor refuses,
    gives finite numbers that mean nothing. Beside the file is written what its input is, by which
    the command ``embed`` runs it: ``model.json`` beside ``model.onnx``.

    Args:
        model: the network.
        extractor: its feature extractor.
        target: the file to write, which ends in ``.onnx``.
        samples: type of ``waveforms``: ``"float32"`` in [-1, 1], or ``"int16"``.

    Raises:
        DependencyError: one of the packages onnx, onnxscript and onnxruntime is missing.
        ModelError: the exported model gives other embeddings, or the file must not be written.
    """
    onnxruntime = _onnxruntime()
    target = _checked_target(Path(target))
    module = WaveformModel(copy.deepcopy(model), extractor).float().eval()
    noise = torch.randn(6, SAMPLE_RATE_HZ // 2, generator=torch.Generator().manual_seed(1)) / 10
    if samples == "int16":
        noise = (INT16_SCALE * noise).to(torch.int16)
    with torch.no_grad():
        lengths = torch.tensor([SAMPLE_RATE_HZ, SAMPLE_RATE_HZ // 2])
        data = _exported(module, (noise[:4].reshape(2, -1), lengths), extractor.min_samples)
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        # Another batch and other lengths than the example: all must be free.
        lengths = torch.tensor([SAMPLE_RATE_HZ // 4, SAMPLE_RATE_HZ // 3, SAMPLE_RATE_HZ // 2])
        _check_equal(module, session, noise[:3], lengths)
    with atomic_write(target) as file:
        file.write(data)
    write_description(target, _description(model, extractor, samples))
    return target


def _checked_target(target: Path) -> Path:
    """Refuse a file that is not called ONNX, or beside which another JSON file would be lost."""
    if target.suffix != ".onnx":
        raise ModelError(f"{target} must end in .onnx.")
    place = description_path(target)
    if place.exists():
        try:
            read_description(target)
        except ModelError as error:
            raise ModelError(
                f"{place} would be overwritten by the description of {target.name}, but it is "
                "none. Name another file."
            ) from error
    return target


def _description(
    model: SpeakerModel, extractor: SpeakerFeatureExtractor, samples: Samples
) -> OnnxDescription:
    return OnnxDescription(
        input="waveform",
        sample_scale=int(INT16_SCALE) if samples == "int16" else 1,
        min_samples=extractor.min_samples,
        input_name="waveforms",
        lengths_name="lengths",
        output_name="embeddings",
        release=getattr(model.config, RELEASE_KEY, {}),
    )


def describe_onnx(path: Path) -> str:
    """Return a description of an exported file, for a model card."""
    import onnx

    file = onnx.load(path)
    kinds = onnx.TensorProto.DataType
    inputs = " and ".join(
        f"`{value.name}` ({kinds.Name(value.type.tensor_type.elem_type).lower()})"
        for value in file.graph.input
    )
    opset = file.opset_import[0].version
    megabytes = path.stat().st_size / 1e6
    return f"`{path.name}`: opset {opset}, {megabytes:,.1f} MB; inputs {inputs}"


def _exported(module: WaveformModel, example: tuple[Tensor, Tensor], min_samples: int) -> bytes:
    """Return the ONNX file of a model."""
    batch = torch.export.Dim("batch")
    free = ({0: batch, 1: torch.export.Dim("samples", min=min_samples)}, {0: batch})
    with warnings.catch_warnings():
        # PyTorch's exporter calls deprecated parts of PyTorch.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "# The axis name")  # both inputs have one batch
        program = torch.onnx.export(
            module,
            example,
            input_names=["waveforms", "lengths"],
            output_names=["embeddings"],
            dynamic_shapes=free,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # what dynamo=True returns
    data: bytes = program.model_proto.SerializeToString()
    return data


def _check_equal(module: WaveformModel, session: Any, waveforms: Tensor, lengths: Tensor) -> None:
    """Refuse an exported model that gives other embeddings than the model."""
    ours = module(waveforms, lengths)
    inputs = {"waveforms": waveforms.numpy(), "lengths": lengths.numpy()}
    theirs = torch.from_numpy(session.run(None, inputs)[0])
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
