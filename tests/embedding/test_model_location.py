"""Speaker models go to the Hub and come back, through the real client and a loopback server."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load as read_weights
from support.hub_server import NO_COMMIT, Hub

if TYPE_CHECKING:
    from voxblink2_lib.models import SpeakerFeatureExtractor, SpeakerModel

TOKEN = "made-up-word"
DEADLINE_SECONDS = 120.0
# Repository -> its architecture.
MODELS = {"someone/tiny": "voxblink2-resnet", "someone/tiny-ecapa": "voxblink2-ecapa-tdnn"}
FILES = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}


def test_models_and_extractors_come_back_from_the_hub(tmp_path: Path) -> None:
    with Hub(TOKEN) as hub:
        client(hub, tmp_path / "author", "push", TOKEN)
        # Another user, who has nothing cached and no token.
        client(hub, tmp_path / "reader", "load")
    assert set(hub.repos) == set(MODELS)
    for name, architecture in MODELS.items():
        files, commit, _ = hub.repos[name]
        assert commit != NO_COMMIT
        assert {file for file in files if not file.endswith(".py")} == FILES
        assert json.loads(files["config.json"])["model_type"] == architecture
        assert json.loads(files["preprocessor_config.json"])["normalization"] == "max"
        pushed = torch.load(tmp_path / "author" / name)
        served = read_weights(files["model.safetensors"])
        loaded = torch.load(tmp_path / "reader" / name)
        for weights in (served, loaded["weights"]):
            assert set(weights) == set(pushed["weights"])
            assert all(
                torch.equal(tensor, weights[key]) for key, tensor in pushed["weights"].items()
            )
        assert pushed["embeddings"].isfinite().all()
        assert torch.equal(pushed["embeddings"], loaded["embeddings"])


def client(hub: Hub, home: Path, action: str, token: str | None = None) -> None:
    """Run a function of this file in a process of its own, as the Hub's address is read at import.

    Args:
        hub: the Hub.
        home: folder of the user, made here; the cache and what the function saves go there.
        action: `push` or `load`.
        token: what the user has to write with.
    """
    (home / "someone").mkdir(parents=True)
    foreign = ("HF_", "HUGGING", "TRANSFORMERS_")
    ours = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    settings = {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",  # sums in one order, for equal bits
    }
    if token:
        settings["HF_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, action],
        env={**ours, **settings},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def push() -> None:
    from huggingface_hub.errors import HfHubHTTPError

    from voxblink2_lib.models import (
        EcapaTdnn,
        EcapaTdnnConfig,
        SpeakerFeatureExtractor,
        SpeakerResNet,
        SpeakerResNetConfig,
    )

    resnet = SpeakerResNetConfig(depths=(1, 1), base_channels=4, xvector_output_dim=8)
    ecapa = EcapaTdnnConfig(
        channels=16, squeeze_channels=4, pooled_channels=8, attention_channels=4
    )
    # Not the default, so that it is missed when lost.
    extractor = SpeakerFeatureExtractor(normalization="max")
    for name, model in zip(MODELS, (SpeakerResNet(resnet), EcapaTdnn(ecapa)), strict=True):
        # One step of training moves the running statistics, which have to go along.
        model.train()(**batch(extractor))
        model.train(mode=False)
        for token in (False, "another-word"):
            with pytest.raises(HfHubHTTPError, match=r"(?s)401 Unauthorized.*Invalid username"):
                model.push_to_hub(name, token=token)
        model.push_to_hub(name)
        extractor.push_to_hub(name)
        keep(name, model, extractor)


def load() -> None:
    from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

    import voxblink2_lib.models  # noqa: F401  # makes them known to transformers

    for name in MODELS:
        model = AutoModelForAudioXVector.from_pretrained(name)
        keep(name, model, AutoFeatureExtractor.from_pretrained(name))


def keep(name: str, model: SpeakerModel, extractor: SpeakerFeatureExtractor) -> None:
    """Save weights and embeddings for the test to compare."""
    # Loaded weights lie in the mapped file at any address, and matrix products round differently
    # at different ones. A copy lies where all new tensors lie.
    with torch.inference_mode():
        embeddings = copy.deepcopy(model)(**batch(extractor)).embeddings
    torch.save({"weights": model.state_dict(), "embeddings": embeddings}, name)


def batch(extractor: SpeakerFeatureExtractor) -> dict[str, torch.Tensor]:
    """Return features of two recordings of different lengths."""
    noise = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    return dict(extractor([noise[0], noise[1, :5000]], sampling_rate=16_000))


if __name__ == "__main__":
    {"push": push, "load": load}[sys.argv[1]]()
