"""Back end of pyannote's models: a folder with ``config.yaml`` and ``pytorch_model.bin``.

pyannote is never installed here, nor by the tests, which put a fake in its place: what is tested is
this file, not pyannote. Its checkpoint is a pickle and names a class to import, so such a model is
a program: only a folder that the user has is taken, nothing is downloaded for a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from voxblink2_lib.embedding.model_protocol import LoadOptions, Vector, Waveform
from voxblink2_lib.errors import DependencyError, ModelError
from voxblink2_lib.foreign_files import as_own_error
from voxblink2_lib.records import SAMPLE_RATE_HZ

_CONFIG, _CHECKPOINT = "config.yaml", "pytorch_model.bin"


class PyannoteModel:
    """A speaker embedding model of ``pyannote.audio``.

    Args:
        folder: with ``config.yaml`` and ``pytorch_model.bin``, as it is on the Hub.
    """

    name: ClassVar[str] = "pyannote"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Return whether a folder has such a model, and none of ``transformers``."""
        has = {name: (folder / name).is_file() for name in (_CONFIG, _CHECKPOINT, "config.json")}
        return has[_CONFIG] and has[_CHECKPOINT] and not has["config.json"]

    def files(self) -> dict[str, Path]:
        """Return its configuration and its checkpoint."""
        return {name: self._folder / name for name in (_CONFIG, _CHECKPOINT)}

    def configuration(self) -> dict[str, Any]:
        """Return nothing: no released model is one of these."""
        return {}

    def settings(self) -> list[dict[str, Any]]:
        """Return nothing: its settings are YAML, which counts as a file."""
        return []

    def front_end(self) -> str:
        """Return where its front end is."""
        return f"of pyannote.audio, in {_CHECKPOINT}"

    def load(self, options: LoadOptions) -> PyannoteNetwork:
        """Load it onto a device."""
        try:
            from pyannote.audio import Model
        except ImportError as error:
            raise DependencyError(
                f"{self._folder} is a model of pyannote.audio, which is not installed: pip install "
                "pyannote.audio, with a torchaudio that fits your PyTorch."
            ) from error
        if options.dtype != "float32":
            raise ModelError("Models of pyannote.audio compute in float32. Leave out --dtype.")
        import torch

        place = f"The model {self._folder} cannot be loaded by pyannote.audio"
        with as_own_error(ModelError, place):
            model = Model.from_pretrained(str(self._folder / _CHECKPOINT))
            model = model.eval().to(torch.device(options.device))
        return PyannoteNetwork(model, options.device)


class PyannoteNetwork:
    """A model of ``pyannote.audio`` in memory.

    Attributes:
        min_samples: number of samples that a waveform must have.
        pads: it takes no mask of samples.
    """

    pads = False

    def __init__(self, model: Any, device: str) -> None:
        from voxblink2_lib.models.features import MIN_SAMPLES

        self.min_samples = MIN_SAMPLES
        self._model, self._device = model, device
        rate_hz = getattr(getattr(model, "hparams", None), "sample_rate", SAMPLE_RATE_HZ)
        if rate_hz != SAMPLE_RATE_HZ:
            raise ModelError(
                f"This model of pyannote.audio takes {rate_hz} samples per second; only "
                f"{SAMPLE_RATE_HZ} is supported."
            )

    def embed(self, waveforms: Sequence[Waveform]) -> Vector:
        """Return embeddings, shape (n, dimensions)."""
        import torch

        batch = torch.from_numpy(np.stack(waveforms))[:, None]  # one channel
        with torch.inference_mode():
            vectors = self._model(batch.to(self._device))
        if vectors.ndim != 2:  # as of models that segment or separate
            raise RuntimeError(
                f"its output has the shape {tuple(vectors.shape)}; expected is (n, dimensions): "
                "it is no model of speaker embeddings"
            )
        embeddings: Vector = vectors.float().cpu().numpy()
        return embeddings
