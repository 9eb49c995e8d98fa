"""Back end of models of ``transformers``: what ``AutoModelForAudioXVector`` loads.

``transformers`` takes seconds to load, and only workers need it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from voxblink2_lib.embedding.model_location import NAME_A_MODEL
from voxblink2_lib.embedding.model_protocol import LoadOptions, Vector, Waveform
from voxblink2_lib.errors import ModelError, first_line
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.records import SAMPLE_RATE_HZ

CONFIG = "config.json"
_FRONT_END = "preprocessor_config.json"
_FILES = {".json", ".safetensors", ".bin"}
# They differ between copies of one model.
_NOT_OF_THE_MODEL = ("transformers_version", "_name_or_path", "auto_map")

# Of transformers and PyTorch: how to run code that comes with a model.
_ADVICE = ("trust_remote_code", "weights_only")
_WEIGHTS_LISTED = 4
# Weights for training only; many checkpoints are published without them.
_TRAINING_WEIGHTS = ("head.", "objective.", "classifier.", "masked_spec_embed")


class TransformersModel:
    """A model that ``AutoModelForAudioXVector`` loads.

    Args:
        model: a folder that ``save_pretrained`` wrote, or a name on the Hub.
    """

    name: ClassVar[str] = "transformers"

    def __init__(self, model: str | Path) -> None:
        self._model = str(model)
        self._folder = Path(model)

    def files(self) -> dict[str, Path]:
        """Return its weights and its JSON files."""
        files = sorted(path for path in self._folder.iterdir() if path.suffix in _FILES)
        # A description of an ONNX file is of no concern to it.
        return {path.name: path for path in files if not path.with_suffix(".onnx").is_file()}

    def configuration(self) -> dict[str, Any]:
        """Return its configuration."""
        return _settings(self._folder / CONFIG)

    def settings(self) -> list[dict[str, Any]]:
        """Return its configuration and that of its front end."""
        return [_settings(self._folder / name) for name in (CONFIG, _FRONT_END)]

    def front_end(self) -> str:
        """Return the kind of its feature extractor, and of ours the recipe."""
        settings = _settings(self._folder / _FRONT_END)
        values = [settings.get("feature_extractor_type"), settings.get("front_end")]
        values += [settings.get("normalization"), settings.get("window_type")]
        return " ".join(str(value)[:80] for value in values if value) or "unknown"

    def load(self, options: LoadOptions) -> TransformersNetwork:
        """Load it onto a device."""
        import torch

        extractor, network = _loaded(self._model)
        dtype, layout = getattr(torch, options.dtype), torch.channels_last
        try:
            network = network.eval().to(options.device, dtype, memory_format=layout)
        except (RuntimeError, AssertionError) as error:  # the latter without CUDA in PyTorch
            raise ModelError(
                f"The device {options.device!r} cannot be used: {first_line(error).rstrip('.')}. "
                "Use cpu, cuda, or another device that PyTorch has here."
            ) from error
        return TransformersNetwork(extractor, network, device=options.device, dtype=dtype)


class TransformersNetwork:
    """A model and its feature extractor in memory.

    Attributes:
        min_samples: number of samples that a waveform must have.
        pads: whether padding changes nothing.
    """

    def __init__(self, extractor: Any, network: Any, *, device: str, dtype: Any) -> None:
        import torch

        from voxblink2_lib.models import SpeakerModel
        from voxblink2_lib.models.features import MIN_SAMPLES
        from voxblink2_lib.models.inference import for_processor

        self._extractor, self._model = extractor, network
        self._device, self._dtype = device, dtype
        # Padding changes the output of other models, even of those that take a mask: it enters
        # their time-delay layers and normalization.
        self.pads = isinstance(network, SpeakerModel)
        if self.pads and device == "cpu" and dtype == torch.float32:
            self._model = for_processor(network)
        self.min_samples: int = getattr(extractor, "min_samples", MIN_SAMPLES)

    def embed(self, waveforms: Sequence[Waveform]) -> Vector:
        """Return embeddings, shape (n, dimensions)."""
        import torch

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


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with as_own_error(ModelError, f"{path} cannot be read"):
        settings = dict(json.loads(path.read_text("utf-8")))
    return {name: value for name, value in settings.items() if name not in _NOT_OF_THE_MODEL}


def _loaded(model: str) -> tuple[Any, Any]:
    """Return the feature extractor and the network."""
    import transformers
    from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

    import voxblink2_lib.models  # noqa: F401  # registers ours

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
