"""The training scripts learn, stop and resume exactly, on the demo's utterances."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import cli_process

from voxblink2_lib.demo.training import run_training_demo
from voxblink2_lib.recipes.stopping import StopSignals

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_SMALL = (
    *("--model", "small", "--sampler", "balanced", "--per-speaker", "18", "--batch-size", "24"),
    *("--crop-seconds", "1", "--optimizer", "adamw", "--hold-out", "videos", "--epochs", "2"),
    *("--save-every", "1", "--workers", "1", "--accumulate", "2", "--average", "2"),
)
_FEW = ("--model", "small", "--batch-size", "24", "--epochs", "2", "--workers", "1")
ALONE = (sys.executable,)
RunHere = Callable[..., str]
# Exists as soon as there is a complete checkpoint.
SAVED = {
    "train_speaker.py": "checkpoint-*",
    "train_with_trainer.py": "checkpoint-*/trainer_state.json",
    "train_with_lightning.py": "step=*.ckpt",
}
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start(script: str, *words: object, by: Sequence[str] = ALONE) -> cli_process.Process:
    return cli_process.Process(
        [*by, str(EXAMPLES / script), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=cli_process.environment({"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}),
    )


def run(script: str, *words: object, code: int = 0, by: Sequence[str] = ALONE) -> str:
    with start(script, *words, by=by) as process:
        out, _ = process.communicate(timeout=cli_process.DEADLINE_SECONDS)
    assert process.returncode == code, out
    return out


def killed(script: str, *words: object, out: Path, by: Sequence[str] = ALONE) -> None:
    """Begin a run, and kill it with all its processes as soon as it saved something."""
    with start(script, *words, "--out", out, by=by) as process:
        assert cli_process.wait_for(lambda: list(out.glob(SAVED[script])), process)
        process.kill_all()
        process.communicate(timeout=cli_process.DEADLINE_SECONDS)
    assert process.returncode == -signal.SIGKILL


def saved(out: Path) -> set[Path]:
    """Return the whole checkpoints of `train_speaker.py`."""
    return set(out.glob(SAVED["train_speaker.py"]))


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunHere:
    """Runs a script in this process; returns what it writes."""
    from accelerate.state import AcceleratorState, GradientState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def run(script: str, *words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        try:
            assert runpy.run_path(str(EXAMPLES / script))["main"]() == code
        finally:
            AcceleratorState._reset_state(True)
            GradientState._reset_state()
        out, err = capsys.readouterr()
        return out + err

    return run


def assert_same_weights(ours: Path, theirs: Path) -> None:
    actual, expected = load_file(ours), load_file(theirs)
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def weights(out: Path) -> Path:
    return out / "model" / "model.safetensors"


@pytest.fixture(scope="module")
def undisturbed_run(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    output = run("train_speaker.py", "--store", undisturbed, "--out", out, *_SMALL)
    assert len(re.findall(r"held out EER [\d.]+ %", output)) == 2
    return out


# After two epochs it is about 0.1, below or above it by how the processor rounds.
@pytest.mark.parametrize(
    ("epochs", "most"), [(2, 0.15), pytest.param(8, 0.1, marks=pytest.mark.slow)]
)
def test_the_training_demo_at_least_halves_the_error(
    epochs: int, most: float, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxblink2_lib.demo.training._EPOCHS", epochs)
    result = run_training_demo(undisturbed, tmp_path)
    assert result.steps == 25 * epochs
    assert result.eer_after <= result.eer_before / 2
    assert result.eer_after <= most
    assert (result.trained_on, result.held_out, result.trials) == (24, 24, 576)
    assert (tmp_path / "det.png").stat().st_size > 10_000


def test_a_training_that_is_killed_and_interrupted_ends_with_the_same_weights(
    undisturbed: Path, undisturbed_run: Path, tmp_path: Path
) -> None:
    words = ("--store", undisturbed, *_SMALL, "--out", tmp_path)
    with start("train_speaker.py", *words) as process:
        assert cli_process.wait_for(lambda: saved(tmp_path), process)
        process.kill_all()
        process.communicate(timeout=cli_process.DEADLINE_SECONDS)
    assert process.returncode == -signal.SIGKILL
    at_kill = saved(tmp_path)
    with start("train_speaker.py", *words) as process:
        assert cli_process.wait_for(lambda: saved(tmp_path) - at_kill, process)
        out, _ = cli_process.stop(process, signal.SIGINT)
    assert process.returncode == 3, out
    assert "Resuming at step" in out
    assert "Stopped; run the same command to resume." in out
    assert "Resuming at step" in run("train_speaker.py", *words)
    assert_same_weights(weights(tmp_path), weights(undisturbed_run))


@pytest.mark.slow  # `test_resume` kills and restarts ranks at chosen batches
def test_two_processes_that_are_killed_end_with_the_same_weights(
    undisturbed: Path, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = ("--store", undisturbed, *_SMALL)
    run("train_speaker.py", *words, "--out", whole, by=TWO)
    killed("train_speaker.py", *words, out=stopped, by=TWO)
    assert "Resuming at step" in run("train_speaker.py", *words, "--out", stopped, by=TWO)
    assert_same_weights(weights(stopped), weights(whole))


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sends this process a signal after a step of a training."""
    must_stop = StopSignals.must_stop

    def signalled(step: int) -> None:
        def signalled_then(signals: StopSignals, done: int) -> bool:
            if done == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return must_stop(signals, done)

        monkeypatch.setattr(StopSignals, "must_stop", signalled_then)

    return signalled


def test_the_trainer_learns_and_one_that_is_stopped_ends_with_the_same_weights(
    undisturbed: Path, tmp_path: Path, run_here: RunHere, signalled: Callable[[int], None]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = ("--store", undisturbed, *_FEW, "--epochs", "1", "--workers", "0")
    before, after = errors(run_here("train_with_trainer.py", *words, "--out", whole))
    assert after < 0.75 * before
    signalled(12)
    output = run_here("train_with_trainer.py", *words, "--out", stopped, code=3)
    assert "Stopped; run the same command to resume." in output
    (stopped / "checkpoint-99").mkdir()  # as a kill leaves one that is being written
    signalled(0)
    run_here("train_with_trainer.py", *words, "--out", stopped)
    assert_same_weights(stopped / "model.safetensors", whole / "model.safetensors")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Lightning, of how a user may do better
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch, in Lightning
def test_lightning_learns_and_one_that_is_stopped_ends_with_the_same_weights(
    undisturbed: Path, tmp_path: Path, run_here: RunHere, signalled: Callable[[int], None]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    few = (*_FEW, "--epochs", "1", "--workers", "0", "--accelerator", "cpu")
    words = ("--store", undisturbed, *few)
    output = run_here("train_with_lightning.py", *words, "--out", whole)
    before, after = map(float, re.findall(r"EER on held-out videos ([\d.]+) %", output))
    assert after < 0.75 * before
    signalled(12)
    output = run_here("train_with_lightning.py", *words, "--out", stopped, code=3)
    assert "Stopped; run the same command to resume." in output
    signalled(0)
    assert "step 12: " in run_here("train_with_lightning.py", *words, "--out", stopped)
    assert_same_weights(stopped / "model.safetensors", whole / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_lightning_that_is_killed_ends_with_the_same_weights(
    devices: int, undisturbed: Path, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = ("--store", undisturbed, *_FEW, "--accelerator", "cpu", "--devices", devices)
    run("train_with_lightning.py", *words, "--out", whole)
    killed("train_with_lightning.py", *words, "--save-every", "5", out=stopped)
    run("train_with_lightning.py", *words, "--out", stopped)
    assert_same_weights(stopped / "model.safetensors", whole / "model.safetensors")


@pytest.mark.slow
def test_torchrun_that_is_told_to_end_leaves_time_to_save(
    undisturbed: Path, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    # Processes that train together look for signals after every 20th step, and save at others.
    words = ("--store", undisturbed, *_FEW, "--epochs", "8", "--save-every", "7")
    run("train_with_trainer.py", *words, "--out", whole, by=TWO)
    with start("train_with_trainer.py", *words, "--out", stopped, by=TWO) as process:
        name = SAVED["train_with_trainer.py"]
        assert cli_process.wait_for(lambda: list(stopped.glob(name)), process)
        cli_process.stop(process, signal.SIGTERM)
    steps = [int(path.name.rpartition("-")[2]) for path in stopped.glob("checkpoint-*")]
    assert max(steps) % 20 == 0
    run("train_with_trainer.py", *words, "--out", stopped, by=TWO)
    assert_same_weights(stopped / "model.safetensors", whole / "model.safetensors")


def errors(output: str) -> tuple[float, float]:
    """Return the error rate before and after."""
    rates = re.search(r"([\d.]+) % before, ([\d.]+) % after", output)
    assert rates
    return float(rates[1]), float(rates[2])


@pytest.mark.slow
def test_the_trainer_learns_and_a_killed_one_ends_with_the_same_weights(
    undisturbed: Path, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = ("--store", undisturbed, *_FEW)
    before, after = errors(run("train_with_trainer.py", *words, "--out", whole))
    assert after < before / 2
    killed("train_with_trainer.py", *words, "--save-every", "10", out=stopped)
    (stopped / "checkpoint-99").mkdir()  # as a kill leaves one that is being written
    run("train_with_trainer.py", *words, "--out", stopped)
    name = "model.safetensors"
    assert_same_weights(stopped / name, whole / name)


@pytest.mark.parametrize("script", SAVED)
def test_a_store_that_is_not_there_is_told_in_a_line(
    script: str, tmp_path: Path, run_here: RunHere
) -> None:
    output = run_here(script, "--store", tmp_path / "none", "--out", tmp_path / "out", code=2)
    last = output.splitlines()[-1]
    assert last.startswith(f"{script.removesuffix('.py')}: There is no folder {tmp_path / 'none'}.")
