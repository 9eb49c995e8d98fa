"""Embed waveforms with a speaker model and its feature extractor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

from voxblink2_lib.embedding.model_location import NAME_A_MODEL
from voxblink2_lib.errors import ModelError, first_line
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.models import SpeakerModel
from voxblink2_lib.models.features import MIN_SAMPLES
from voxblink2_lib.models.inference import for_processor
from voxblink2_lib.records import SAMPLE_RATE_HZ

# Audio in a batch, padding included. A CPU is as fast with single utterances and padding is wasted
# time on it; batches only save the overhead of very short utterances.
_CPU_BATCH_SECONDS = 4
_ACCELERATOR_BATCH_SECONDS = 300
_WEIGHTS_LISTED = 4

# Of transformers and PyTorch: how to run code that comes with a model.
_ADVICE = ("trust_remote_code", "weights_only")

# Weights for training only; many checkpoints are published without them.
_TRAINING_WEIGHTS = ("head.", "objective.", "classifier.", "masked_spec_embed")
Waveform = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float32]
# Index of an utterance, and its waveform or a part of it.
Window = tuple[int, Waveform]


class Embedder:
    """Any model that ``AutoModelForAudioXVector`` loads.

    Args:
        model: a folder that ``save_pretrained`` wrote, or a name on the Hub.
        dtype: of the network, a name of PyTorch's.
        device: a PyTorch device.
        threads: of PyTorch in this process.

    Attributes:
        min_samples: number of samples that a waveform must have.

    Raises:
        ModelError: the model cannot be loaded, it has weights that its checkpoint lacks, or there
            is no such device.
    """

    def __init__(self, model: str, *, dtype: str, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._device = device
        self._dtype = getattr(torch, dtype)
        self._extractor, network = _load(model)
        try:
            self._model = network.eval().to(device, self._dtype, memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:  # the latter without CUDA in PyTorch
            raise ModelError(
                f"The device {device!r} cannot be used: {first_line(error).rstrip('.')}. "
                "Use cpu, cuda, or another device that PyTorch has here."
            ) from error
        seconds = _CPU_BATCH_SECONDS if device == "cpu" else _ACCELERATOR_BATCH_SECONDS
        if isinstance(network, SpeakerModel) and device == "cpu" and dtype == "float32":
            self._model = for_processor(network)
            seconds = getattr(self._model, "batch_seconds", seconds)
        self._batch_samples = seconds * SAMPLE_RATE_HZ
        # Padding changes the output of other models, even of those that take a mask: it enters
        # their time-delay layers and normalization.
        self._pads = isinstance(network, SpeakerModel)
        self.min_samples: int = getattr(self._extractor, "min_samples", MIN_SAMPLES)

    def embed(self, windows: Sequence[Window]) -> Iterator[tuple[int, Vector | str]]:
        """Yield the vector of each window, or the reason why it has none, in any order."""
        for batch in self._batches(sorted(windows, key=lambda window: len(window[1]))):
            yield from self._embed_batch(batch)

    def _batches(self, windows: Sequence[Window]) -> Iterator[list[Window]]:
        """Group windows of similar lengths, as many as fit in a batch."""
        batch: list[Window] = []
        for window in windows:
            length = len(window[1])
            full = (len(batch) + 1) * length > self._batch_samples
            if batch and (full or not (self._pads or length == len(batch[0][1]))):
                yield batch
                batch = []
            batch.append(window)
        if batch:
            yield batch

    def _embed_batch(self, batch: Sequence[Window]) -> Iterator[tuple[int, Vector | str]]:
        try:
            vectors = self._forward([waveform for _, waveform in batch])
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"The device {self._device} has not enough memory for a batch of "
                f"{len(batch)} x {len(batch[-1][1]) / SAMPLE_RATE_HZ:.1f} s. Use windows "
                "(--window 5), fewer --workers, or another --device."
            ) from error
        except (RuntimeError, ValueError) as error:
            if len(batch) > 1:  # a single window may be the cause
                for window in batch:
                    yield from self._embed_batch([window])
            else:
                yield batch[0][0], f"the model failed on it: {first_line(error).rstrip('.')}"
            return
        for (row, _), vector in zip(batch, vectors, strict=True):
            finite = bool(np.isfinite(vector).all())
            yield row, vector if finite else "the model gave numbers that are not finite"

    def _forward(self, waveforms: Sequence[Waveform]) -> Vector:
        features = self._extractor(
            waveforms, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt", padding=True
        )
        if "attention_mask" in features and bool(features["attention_mask"].all()):
            del features["attention_mask"]
        with torch.inference_mode():
            inputs = {
                name: tensor.to(self._device, self._dtype if tensor.is_floating_point() else None)
                for name, tensor in features.items()
            }
            vectors: Vector = self._model(**inputs).embeddings.float().cpu().numpy()
        return vectors


def _load(model: str) -> tuple[Any, Any]:
    # A run has its own progress bar and its own error messages.
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        # Never asked, never run: by default, transformers asks the user whether to.
        extractor = AutoFeatureExtractor.from_pretrained(model, trust_remote_code=False)
        network, info = AutoModelForAudioXVector.from_pretrained(
            model, output_loading_info=True, trust_remote_code=False
        )
    except Exception as error:  # whatever transformers, hub and safetensors raise
        problem = shortened(first_line(error), quoted=False).rstrip(".")
        if any(advice in str(error) for advice in _ADVICE):
            problem = "it needs code that comes with it, and such code is never run"
        raise ModelError(
            f"The model {model} cannot be loaded: {problem}. {NAME_A_MODEL}"
        ) from error
    _check_weights(model, info["missing_keys"])
    return extractor, network


def _check_weights(model: str, missing: Iterable[str]) -> None:
    lacking = sorted(
        name for name in missing if not any(part in name for part in _TRAINING_WEIGHTS)
    )
    if lacking:
        listed = ", ".join(shortened(name, quoted=False) for name in lacking[:_WEIGHTS_LISTED])
        if len(lacking) > _WEIGHTS_LISTED:
            listed += ", ..."
        raise ModelError(
            f"The model {model} is no trained speaker model: its checkpoint lacks {len(lacking)} "
            f"weights ({listed}), which would be random numbers."
        )
