"""A saved model loads where this library is not installed, and keeps its card on the Hub."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.hub_server import Hub, writable_hub
from support.model_oracle import golden_waveform, small_extractor, small_model
from transformers import AutoConfig, AutoModelForAudioXVector

from voxblink2_lib.models import SpeakerFeatureExtractor, SpeakerModel
from voxblink2_lib.models.base import CARD

WAVE = golden_waveform(1, 8000)

# Runs where the library cannot be imported: loads each folder, saves it again, and loads that.
LOAD = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("voxblink2", "voxblink2_lib"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioXVector
torch.set_num_threads(1)
wave = np.load("wave.npy")
for folder in sys.argv[1:]:
    for kind, place in ((AutoModelForAudioXVector, folder), (AutoModel, folder + "-again")):
        extractor = AutoFeatureExtractor.from_pretrained(place, trust_remote_code=True)
        model = kind.from_pretrained(place, trust_remote_code=True).eval()
        with torch.no_grad():
            result = model(**extractor(wave, sampling_rate=16_000)).embeddings.numpy()
        np.save(place + ".npy", result)
        if place == folder:
            model.save_pretrained(folder + "-again")
            extractor.save_pretrained(folder + "-again")
try:
    extractor(wave[:100])
except Exception as error:
    print(type(error).__name__, error)
"""


def save(kind: str, folder: Path, **options: Any) -> tuple[SpeakerModel, SpeakerFeatureExtractor]:
    extractor = SpeakerFeatureExtractor(num_mel_bins=20, **options)
    model = small_model(kind)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return model, extractor


def test_it_loads_and_is_saved_where_the_library_is_not(tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {"ecapa": {}, "simam-asp": {"front_end": "kaldi"}}
    made = {kind: save(kind, tmp_path / kind, **options) for kind, options in kinds.items()}
    np.save(tmp_path / "wave.npy", WAVE)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *made],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ModelError waveform 0 has 100 samples; a model needs at least")
    for kind, (model, extractor) in made.items():
        expected = model(**extractor(WAVE)).embeddings.detach()
        for name in (kind, f"{kind}-again"):
            result = np.load(tmp_path / f"{name}.npy")
            np.testing.assert_allclose(result, expected, atol=1e-5, err_msg=name)


def test_modules_import_one_another_only_relatively(tmp_path: Path) -> None:
    save("simam-asp", tmp_path)
    modules = {path.stem: ast.parse(path.read_text("utf-8")) for path in tmp_path.glob("*.py")}
    assert {"voxblink2_resnet", "voxblink2_features", "voxblink2_layers"} <= modules.keys()
    assert "voxblink2_ecapa" not in modules
    for name, module in modules.items():
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.module in modules, name
            elif isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("voxblink2"), name


def test_with_the_library_its_own_classes_are_used(tmp_path: Path) -> None:
    model, _ = save("ecapa", tmp_path)
    loaded = AutoModelForAudioXVector.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert AutoConfig.from_pretrained(tmp_path).auto_map["AutoModel"] == "voxblink2_ecapa.EcapaTdnn"


# -- On the Hub ------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    with writable_hub(monkeypatch) as server:
        server.with_large_files = False
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # knows another hub
        yield server


@pytest.mark.parametrize("by", ["push_to_hub", "save_pretrained"])
def test_it_is_pushed_with_its_card(hub: Hub, tmp_path: Path, by: str) -> None:
    save("ecapa", tmp_path / "model")
    card = "---\ntags:\n- speaker-verification\n---\n\n# Of ours\n"
    (tmp_path / "model" / CARD).write_text(card)
    model = AutoModelForAudioXVector.from_pretrained(tmp_path / "model")
    if by == "push_to_hub":
        model.push_to_hub("me/model", private=True)
    else:
        options: dict[str, Any] = {"push_to_hub": True, "repo_id": "me/model", "private": True}
        model.save_pretrained(tmp_path / "other", **options)
    repo = hub.repos["me/model"]
    assert repo.is_private
    assert "# Of ours" in repo.files[CARD].decode()
    assert {"voxblink2_ecapa.py", "config.json", "model.safetensors"} <= repo.files.keys()
    # What is written there by hand stays.
    hub.repos["me/model"] = repo._replace(files={**repo.files, CARD: b"# By hand\n"})
    model.push_to_hub("me/model")
    assert b"# By hand" in hub.repos["me/model"].files[CARD]


def test_a_new_model_has_the_card_of_transformers(hub: Hub) -> None:
    small_model("ecapa").push_to_hub("me/new")
    small_extractor("std").push_to_hub("me/new")
    files = hub.repos["me/new"].files
    assert b"automatically generated" in files[CARD]
    assert {"voxblink2_features.py", "preprocessor_config.json"} <= files.keys()
