"""Find the back end of a model by what its folder or file holds."""

from __future__ import annotations

from pathlib import Path

from voxblink2_lib.embedding.model_protocol import BackEnd
from voxblink2_lib.embedding.onnx_model import ONNX, OnnxModel, has_cuda
from voxblink2_lib.embedding.pyannote_model import PyannoteModel
from voxblink2_lib.embedding.speechbrain_model import SpeechBrainModel
from voxblink2_lib.embedding.transformers_model import CONFIG, TransformersModel
from voxblink2_lib.errors import ModelError, next_command

_WESPEAKER = ("config.yaml", "avg_model.pt")


def back_end_of(model: str | Path) -> BackEnd:
    """Return the back end of a model.

    Args:
        model: an ``.onnx`` file, a folder, or a name that only ``transformers`` may know.

    Raises:
        ModelError: it is of several models, or has to be converted first.
    """
    path = Path(model)
    if path.suffix == ONNX and path.is_file():
        return OnnxModel(path)
    if not path.is_dir():
        return TransformersModel(model)
    for kind in (SpeechBrainModel, PyannoteModel):
        if kind.is_in(path):
            return kind(path)
    if (path / CONFIG).is_file():
        return TransformersModel(path)
    if all((path / name).is_file() for name in _WESPEAKER):
        command = next_command("convert", path, path.with_name(f"{path.name}-converted"))
        raise ModelError(f"{path} is a model of WeSpeaker's. Convert it: {command}")
    files = sorted(path.glob(f"*{ONNX}"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:4])
        raise ModelError(f"{path} has {len(files)} models ({names}). Name one of these files.")
    return OnnxModel(files[0]) if files else TransformersModel(path)


def default_device(model: str) -> str:
    """Return the PyTorch device of a model that no device is named for: ``cuda`` if it can be."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    path = Path(model).expanduser()
    is_onnx = path.exists() and isinstance(back_end_of(path), OnnxModel)
    return "cpu" if is_onnx and not has_cuda() else "cuda"
