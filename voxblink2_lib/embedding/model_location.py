"""Locate a model: a local folder, or a name on the Hub that is downloaded."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from voxblink2_lib.errors import ModelError, first_line

NAME_A_MODEL = (
    "Name a folder that the command convert or save_pretrained wrote, or a speaker model on the "
    "Hub, such as microsoft/wavlm-base-plus-sv."
)


def find_model(model: str | Path) -> Path:
    """Return the folder of a model; a model named only is downloaded from the Hub.

    Raises:
        ModelError: there is neither such a folder nor such a model on the Hub.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.absolute()
    try:
        # Here and once: workers then need no network, and the plan can hash the model's files.
        folder = Path(snapshot_download(str(model), allow_patterns=["*.json", "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(str(model), allow_patterns=["*.json", "*.bin"]))
    except Exception as error:  # whatever the Hub's client and its HTTP library raise
        raise ModelError(
            f"There is no folder {model}, and no such model could be downloaded from the Hub: "
            f"{first_line(error).rstrip('.')}. {NAME_A_MODEL}"
        ) from error
    return folder
