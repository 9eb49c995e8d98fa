"""The training scripts learn, stop and go on exactly, on the demo's utterances."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import torch
from safetensors.torch import load_file

from voxblink2_lib.lesson import run_lesson

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
_SMALL = (
    *("--model", "small", "--sampler", "balanced", "--per-speaker", "18", "--batch-size", "24"),
    *("--crop-seconds", "1", "--optimizer", "adamw", "--hold-out", "videos", "--epochs", "2"),
    *("--save-every", "1", "--workers", "1"),
)


def start(script: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / script), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=runs.environment({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}),
    )


def run(script: str, *words: object, code: int = 0) -> str:
    with start(script, *words) as process:
        out, _ = process.communicate(timeout=runs.DEADLINE_SECONDS)
    assert process.returncode == code, out
    return out


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def test_the_lesson_halves_the_error_at_least(undisturbed: Path, tmp_path: Path) -> None:
    lesson = run_lesson(undisturbed, tmp_path)
    assert lesson.eer_after <= lesson.eer_before / 2
    assert lesson.eer_after <= 0.1
    assert (lesson.trained_on, lesson.held_out, lesson.trials) == (24, 24, 576)
    assert (tmp_path / "det.png").stat().st_size > 10_000


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_training_ends_with_the_same_weights(
    undisturbed: Path, tmp_path: Path, how: signal.Signals
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    said = run("train_speaker.py", "--store", undisturbed, "--out", whole, *_SMALL)
    assert len(re.findall(r"held out EER [\d.]+ %", said)) == 2
    words = ("--store", undisturbed, "--out", stopped, *_SMALL)
    with start("train_speaker.py", *words) as process:
        assert runs.wait_for(lambda: list(stopped.glob("checkpoint-*")), process)
        os.kill(process.pid, how)
        process.communicate(timeout=runs.DEADLINE_SECONDS)
    assert process.returncode == (3 if how == signal.SIGINT else -how)
    assert "Going on at step" in run("train_speaker.py", *words)
    ours, theirs = weights(stopped), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_large_margin_fine_tuning_goes_on_from_a_run(undisturbed: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run("train_speaker.py", "--store", undisturbed, "--out", first, *_SMALL)
    words = ("--store", undisturbed, "--out", second, *_SMALL, "--crop-seconds", "2")
    run("train_speaker.py", *words, "--stage", "lmft", "--from", first)
    assert len(json.loads((second / "labels.json").read_text())["speeds"]) == 1
    assert weights(second)["head.weight"].shape == (8, 64)
    said = run("train_speaker.py", *words, "--rate", "1", code=2)
    assert "--stage lmft needs" not in said
    assert "was begun with other settings" in said


def test_the_trainer_learns(undisturbed: Path, tmp_path: Path) -> None:
    words = ("--store", undisturbed, "--out", tmp_path / "run", "--model", "small")
    said = run("train_with_trainer.py", *words, "--batch-size", 24, "--epochs", 2)
    found = re.search(r"([\d.]+) % before, ([\d.]+) % after", said)
    assert found
    assert float(found[2]) < float(found[1]) / 2
