"""The folder of a run: what appears is whole, averages are means, other settings are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.recipes.checkpoints import RunFolder, average_weights
from voxblink2_lib.recipes.training import make_model
from voxblink2_lib.training import SpeakerLabels

LABELS = SpeakerLabels(("id000001", "id000002"), corpus="VoxBlink2")


class Alone:
    """One process; its state is a file. It is killed while it writes, if that is wanted."""

    is_main_process = True

    def __init__(self) -> None:
        self.dies = False

    def wait_for_everyone(self) -> None:
        pass

    def save_state(self, output_dir: str) -> None:
        Path(output_dir).mkdir()
        (Path(output_dir) / "first").touch()
        if self.dies:
            raise KeyboardInterrupt
        (Path(output_dir) / "second").touch()


def test_a_kill_while_a_checkpoint_is_written_leaves_the_ones_before(tmp_path: Path) -> None:
    folder, process = RunFolder(tmp_path), Alone()
    for step in (500, 1000, 1500):
        folder.save_checkpoint(process, step)
    names = ["checkpoint-00001000", "checkpoint-00001500"]
    assert [path.name for path in folder.checkpoints()] == names
    process.dies = True
    with pytest.raises(KeyboardInterrupt):
        folder.save_checkpoint(process, 2000)
    assert [path.name for path in folder.checkpoints()] == names
    assert folder.last_step == 1500
    process.dies = False
    folder.save_checkpoint(process, 2000)
    assert folder.last_step == 2000
    assert sorted(path.name for path in folder.checkpoints()[-1].iterdir()) == ["first", "second"]


def networks(count: int) -> list[dict[str, torch.Tensor]]:
    made = [make_model("small", classes=3, seed=seed).model.state_dict() for seed in range(count)]
    for seed, weights in enumerate(made):
        for name, tensor in weights.items():
            if not tensor.is_floating_point():
                tensor.add_(7 * seed)
            elif "running" in name:
                tensor.add_(seed)
    return made


def test_the_average_is_the_mean_of_weights_and_statistics(tmp_path: Path) -> None:
    folder, states = RunFolder(tmp_path), networks(4)
    for epoch, weights in enumerate(states):
        folder.save_epoch(epoch + 8, weights, keep=3)
    mean = folder.average()
    assert mean.keys() == states[0].keys()
    for name, tensor in mean.items():
        values = np.stack([state[name].numpy() for state in states[1:]]).astype(np.float64)
        expected = values.mean(axis=0) if tensor.is_floating_point() else values[-1]
        assert tensor.dtype == states[0][name].dtype
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=2e-7, atol=1e-9)
    assert any("running_var" in name for name in mean)


def test_the_average_of_one_is_itself(tmp_path: Path) -> None:
    (weights,) = networks(1)
    path = tmp_path / "epoch-0001.safetensors"
    safetensors.torch.save_file(weights, path)
    mean = average_weights([path])
    assert all(torch.equal(mean[name], weights[name]) for name in weights)


def begun(tmp_path: Path, **settings: Any) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.begin({"stage": "pretrain", "rate": 0.1, "speeds": (1.0, 0.9), **settings}, LABELS)
    return folder


def test_other_settings_are_named_and_refused(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    folder.check_settings({"rate": 0.1, "speeds": [1.0, 0.9]})
    with pytest.raises(TrainingError, match=r"begun with other settings: rate 0.1, now 0.2. Name"):
        folder.check_settings({"rate": 0.2})
    RunFolder(tmp_path / "new").check_settings({"rate": 0.2})


def test_other_speakers_are_refused(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    folder.check_labels(LABELS)
    grown = SpeakerLabels((*LABELS.speakers, "id000003"), corpus="VoxBlink2")
    with pytest.raises(TrainingError, match="begun with 2 other speakers; the store now has 3"):
        folder.check_labels(grown)
    RunFolder(tmp_path / "new").check_labels(grown)


def test_a_run_of_an_earlier_version_does_not_go_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="begun by an earlier version"):
        begun(tmp_path, stage="train").check_settings({"stage": "pretrain"})


def test_settings_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    (folder.path / "settings.json").write_text('{"rate": ')
    with pytest.raises(TrainingError, match=r"settings.json cannot be read: .* Name another --out"):
        folder.check_settings({"rate": 0.1})


def test_a_run_is_finished_when_its_model_is_whole(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    assert (folder.is_begun, folder.is_finished) == (True, False)
    (folder.path / "half-model").mkdir()
    (folder.path / "half-model" / "config.json").touch()
    assert (folder.is_begun, folder.is_finished) == (True, False)
    folder.save_model(*make_model("small", classes=2, seed=0))
    assert folder.is_finished
    assert sorted(path.name for path in folder.path.glob("*model")) == ["model"]
