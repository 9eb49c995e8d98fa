"""What an embedder needs of a kind of models: one class for each kind, in a file of its own.

A ``BackEnd`` is a model on disk: what it consists of, read without loading it. A ``Network`` is a
model in memory. ``embedding.back_ends`` finds the back end of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Waveform = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is loaded.

    Attributes:
        dtype: of the network, a name of PyTorch's.
        device: a PyTorch device.
        threads: of the computation in this process.
    """

    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 1


class Network(Protocol):
    """A model in memory, ready to embed.

    Attributes:
        min_samples: number of samples that a waveform must have.
        pads: whether waveforms of several lengths may be in a batch: padding changes nothing.
    """

    min_samples: int
    pads: bool

    def embed(self, waveforms: Sequence[Waveform]) -> Vector:
        """Return embeddings, shape (n, dimensions), float32.

        Args:
            waveforms: of 16 kHz in [-1, 1], each of shape (samples,) and of at least
                ``min_samples``; of one length, unless the network pads.

        Raises:
            RuntimeError: the model failed on them.
            torch.OutOfMemoryError: the device has not enough memory for so many.
        """


class BackEnd(Protocol):
    """A model on disk, of one kind.

    Attributes:
        name: of the kind, as it is written into files of embeddings.
    """

    name: ClassVar[str]

    def files(self) -> dict[str, Path]:
        """Return the files that decide the embeddings, by their names in the model.

        Raises:
            ModelError: one is missing, or lies elsewhere.
        """

    def configuration(self) -> dict[str, Any]:
        """Return its configuration, which names the released model that it was made from.

        Raises:
            ModelError: it cannot be read.
        """

    def settings(self) -> list[dict[str, Any]]:
        """Return the content of its JSON files that decides the embeddings, the front end last.

        Raises:
            ModelError: a file cannot be read.
        """

    def front_end(self) -> str:
        """Return its front end for people."""

    def load(self, options: LoadOptions) -> Network:
        """Load it.

        Raises:
            ModelError: it cannot be loaded, or not so.
            DependencyError: a package that it needs is missing.
        """
