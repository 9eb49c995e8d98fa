"""Locate a model: a local file or folder, or a name on the Hub that is downloaded."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from voxblink2_lib.errors import ModelError, first_line

NAME_A_MODEL = (
    "Name a folder that the command convert or save_pretrained wrote, an .onnx file with its "
    "description beside it, or a speaker model on the Hub, such as microsoft/wavlm-base-plus-sv."
)

# Weights as they are on the Hub; the first kind that is there is taken. Those of SpeechBrain and
# pyannote are programs, which nobody should run for having named them.
_ONNX = "*.onnx*"
_WEIGHTS = ("*.safetensors", "*.bin", _ONNX)


def find_model(model: str | Path) -> Path:
    """Return the place of a model; a model named only is downloaded from the Hub.

    Args:
        model: an ``.onnx`` file with its description beside it; a folder: one that
            ``save_pretrained`` wrote, one with an ``.onnx`` file, or a model of SpeechBrain or
            pyannote; or a name on the Hub.

    Raises:
        ModelError: there is neither such a file or folder nor such a model on the Hub.
    """
    place = Path(model).expanduser()
    if place.is_dir() or (place.is_file() and place.suffix == ".onnx"):
        return place.absolute()
    if place.suffix == ".onnx" or place.is_file():
        problem = "is no .onnx file" if place.is_file() else "is not there"
        raise ModelError(f"The model {model} {problem}. {NAME_A_MODEL}")
    try:
        # Here and once: workers then need no network, and the plan can hash the model's files.
        for weights in _WEIGHTS:
            place = Path(snapshot_download(str(model), allow_patterns=["*.json", weights]))
            if any(place.glob(weights)):
                break
    except Exception as error:  # whatever the Hub's client and its HTTP library raise
        raise ModelError(
            f"There is no folder {model}, and no such model could be downloaded from the Hub: "
            f"{first_line(error).rstrip('.')}. {NAME_A_MODEL}"
        ) from error
    if not any(place.glob(weights)) or not (weights == _ONNX or (place / "config.json").is_file()):
        raise ModelError(
            f"{model} on the Hub is no model of transformers and has no .onnx file. Models of "
            "SpeechBrain and pyannote are programs, which are not fetched for a name: download it "
            f"yourself (hf download {model} --local-dir FOLDER) and name the folder."
        )
    return place
