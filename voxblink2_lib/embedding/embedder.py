"""Embed waveforms with a speaker model, many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from voxblink2_lib.embedding.back_ends import back_end_of
from voxblink2_lib.embedding.model_protocol import LoadOptions, Vector, Waveform
from voxblink2_lib.errors import ModelError, first_line
from voxblink2_lib.records import SAMPLE_RATE_HZ

# Audio in a batch, padding included. A CPU is as fast with single utterances and padding is wasted
# time on it; batches only save the overhead of very short utterances.
_CPU_BATCH_SECONDS = 4
_ACCELERATOR_BATCH_SECONDS = 300

# Index of an utterance, and its waveform or a part of it.
Window = tuple[int, Waveform]


class Embedder:
    """A speaker model of any back end.

    Args:
        model: its folder or file, or a name on the Hub.
        dtype: of the network, a name of PyTorch's.
        device: a PyTorch device.
        threads: of PyTorch in this process.

    Attributes:
        min_samples: number of samples that a waveform must have.

    Raises:
        ModelError: the model cannot be loaded, it has weights that its checkpoint lacks, or there
            is no such device.
        DependencyError: a package that its back end needs is missing.
    """

    def __init__(self, model: str, *, dtype: str, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._device = device
        self._network = back_end_of(model).load(LoadOptions(dtype, device, threads))
        seconds = _CPU_BATCH_SECONDS if device == "cpu" else _ACCELERATOR_BATCH_SECONDS
        self._batch_samples = seconds * SAMPLE_RATE_HZ
        self._pads, self.min_samples = self._network.pads, self._network.min_samples

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
            vectors = self._network.embed([waveform for _, waveform in batch])
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
