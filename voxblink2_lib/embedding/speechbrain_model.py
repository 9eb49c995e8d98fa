"""Back end of SpeechBrain's models: a folder with ``hyperparams.yaml`` and its checkpoints.

SpeechBrain is never installed here, nor by the tests, which put a fake in its place: what is tested
is this file, not SpeechBrain. Its ``hyperparams.yaml`` names Python to run, so such a model is a
program: only a folder that the user has is taken, nothing is downloaded for a name.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from voxblink2_lib.embedding.model_protocol import LoadOptions, Vector, Waveform
from voxblink2_lib.errors import DependencyError, ModelError
from voxblink2_lib.foreign_files import as_own_error
from voxblink2_lib.records import SAMPLE_RATE_HZ

_HYPERPARAMS = "hyperparams.yaml"
_FILES = {".yaml", ".ckpt", ".pt", ".py"}
# Published models fetch their checkpoints from the Hub by this, even if they lie beside it.
_PLACE = "pretrained_path"


class SpeechBrainModel:
    """A model of SpeechBrain's ``EncoderClassifier``.

    Args:
        folder: with ``hyperparams.yaml``, as it is on the Hub.
    """

    name: ClassVar[str] = "speechbrain"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Return whether a folder has such a model."""
        return (folder / _HYPERPARAMS).is_file()

    def files(self) -> dict[str, Path]:
        """Return its hyperparameters, checkpoints and code."""
        files = sorted(path for path in self._folder.iterdir() if path.suffix in _FILES)
        return {path.name: path for path in files}

    def configuration(self) -> dict[str, Any]:
        """Return nothing: no released model is one of these."""
        return {}

    def settings(self) -> list[dict[str, Any]]:
        """Return nothing: its settings are YAML, which counts as a file."""
        return []

    def front_end(self) -> str:
        """Return where its front end is."""
        return f"of SpeechBrain, in {_HYPERPARAMS}"

    def load(self, options: LoadOptions) -> SpeechBrainNetwork:
        """Load it onto a device."""
        try:
            from speechbrain.inference.classifiers import EncoderClassifier
        except ImportError as error:
            raise DependencyError(
                f"{self._folder} is a model of SpeechBrain, which is not installed: pip install "
                "speechbrain, with a torchaudio that fits your PyTorch."
            ) from error
        if options.dtype != "float32":
            raise ModelError("Models of SpeechBrain compute in float32. Leave out --dtype.")
        text = (self._folder / _HYPERPARAMS).read_text("utf-8", errors="replace")
        is_there = re.search(rf"^{_PLACE}:", text, re.MULTILINE)
        overrides = {_PLACE: str(self._folder)} if is_there else {}
        with (
            tempfile.TemporaryDirectory() as links,  # to the files; by default in this folder
            as_own_error(ModelError, f"The model {self._folder} cannot be loaded by SpeechBrain"),
        ):
            model = EncoderClassifier.from_hparams(
                source=str(self._folder),
                savedir=links,
                overrides=overrides,
                run_opts={"device": options.device},
            )
        return SpeechBrainNetwork(model)


class SpeechBrainNetwork:
    """An ``EncoderClassifier`` in memory.

    Attributes:
        min_samples: number of samples that a waveform must have.
        pads: its convolutions reach into padding.
    """

    pads = False

    def __init__(self, model: Any) -> None:
        from voxblink2_lib.models.features import MIN_SAMPLES

        self.min_samples = MIN_SAMPLES
        self._model = model
        rate_hz = getattr(getattr(model, "audio_normalizer", None), "sample_rate", SAMPLE_RATE_HZ)
        if rate_hz != SAMPLE_RATE_HZ:
            raise ModelError(
                f"This model of SpeechBrain takes {rate_hz} samples per second; only "
                f"{SAMPLE_RATE_HZ} is supported."
            )

    def embed(self, waveforms: Sequence[Waveform]) -> Vector:
        """Return embeddings, shape (n, dimensions)."""
        import torch

        with torch.inference_mode():
            vectors = self._model.encode_batch(torch.from_numpy(np.stack(waveforms)))
        # Shape (n, 1, dimensions).
        embeddings: Vector = vectors.reshape(len(waveforms), -1).float().cpu().numpy()
        return embeddings
