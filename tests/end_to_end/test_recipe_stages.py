"""The recipe in stages: fine-tuning on another corpus is better there than what it begins with."""

from __future__ import annotations

import json
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.synthetic_voices import write_voices

from voxblink2_lib.recipes.evaluation import TrialScores
from voxblink2_lib.recipes.holdout import hold_out_speakers, score_trials_held_out
from voxblink2_lib.recipes.run_report import HELD_OUT
from voxblink2_lib.recipes.transfer import Origin, start_from
from voxblink2_lib.recipes.validation import held_out_by, split_of
from voxblink2_lib.scoring import bootstrap_intervals
from voxblink2_lib.training import Corpus, SpeakerLabels

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "train_speaker.py"
# A few dozen steps of a network of 120 thousand parameters: without margin, which takes longer.
SHORT = (
    *("--batch-size", "24", "--crop-seconds", "0.6", "--optimizer", "adamw", "--margin", "0"),
    *("--speeds", "1.0", "--workers", "0", "--log-every", "5"),
)
HELD_OUT_SPEAKERS = 10


def train(*words: object, code: int = 0) -> None:
    """Run the script in this process."""
    from accelerate.state import AcceleratorState, GradientState

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ACCELERATE_USE_CPU", "true")
        patched.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
        try:
            assert runpy.run_path(str(SCRIPT))["main"]() == code
        finally:
            AcceleratorState._reset_state(True)
            GradientState._reset_state()
            for number, handler in handlers.items():
                signal.signal(number, handler)


def voices(folder: Path, seed: int) -> tuple[Path, Path]:
    """Write two corpora of other voices, the second of other recordings."""
    first = [f"id{number:06}" for number in range(16)]
    second = [f"id{number:05}" for number in range(16 + HELD_OUT_SPEAKERS)]
    return (
        write_voices(folder / "first", first, seed=2 * seed + 1),
        write_voices(folder / "second", second, seed=2 * seed + 2, narrow=True),
    )


def second_words(second: Path, seed: int) -> tuple[object, ...]:
    words = ("--stage", "finetune", "--store", second, "--corpus", "VoxCeleb2", *SHORT)
    return (*words, "--held-out-speakers", HELD_OUT_SPEAKERS, "--seed", seed, "--rate", "0.01")


def scores_of(run: Path, store: Path) -> TrialScores:
    """Return the scores of a run's model on the held-out speakers of a store."""
    corpus = Corpus.open(store)
    split = split_of(corpus, speakers=HELD_OUT_SPEAKERS)
    held_out = hold_out_speakers(corpus, held_out_by(corpus, split))
    labels = SpeakerLabels.of(held_out.train, name="VoxCeleb2")
    begun = start_from(Origin.at(run), labels, seed=0)
    return TrialScores.of(held_out, score_trials_held_out(begun.model, begun.extractor, held_out))


def half_width(trials: TrialScores) -> float:
    """Return half of the 95% interval of the EER, over trials."""
    interval = bootstrap_intervals(trials.scores, trials.target, resamples=400).eer
    return (interval.high - interval.low) / 2


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_the_second_stage_is_better_on_its_corpus_than_the_first(seed: int, tmp_path: Path) -> None:
    first, second = voices(tmp_path, seed)
    one, two = tmp_path / "one", tmp_path / "two"
    train("--store", first, "--out", one, "--model", "small", *SHORT, "--epochs", 6, "--seed", seed)
    train(*second_words(second, seed), "--from", one, "--out", two, "--epochs", 14)
    before, after = scores_of(one, second), scores_of(two, second)
    np.testing.assert_allclose(after.scores, TrialScores.load(two / HELD_OUT).scores, atol=1e-5)
    rates = [trials.sweep.crossing().rate for trials in (before, after)]
    assert rates[1] < rates[0] - max(map(half_width, (before, after)))
    log = [json.loads(line) for line in (two / "log.jsonl").read_text().splitlines()]
    assert log[0]["eer"] == pytest.approx(rates[0])
    assert log[-1]["eer"] == pytest.approx(rates[1])


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few short utterances."""
    speakers = [f"id{number:06}" for number in range(8)]
    folder = tmp_path_factory.mktemp("small") / "store"
    return write_voices(folder, speakers, seed=9, videos=2, utterances=2, frames=20)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Make the script get SIGTERM after some of its steps."""
    from voxblink2_lib.recipes.run_log import Meter

    count = Meter.count
    seen: list[Any] = []

    def counted(self: Meter, *arguments: Any) -> None:
        seen.append(arguments)
        count(self, *arguments)
        if len(seen) == steps:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Meter, "count", counted)


FEW = (
    *("--batch-size", "8", "--crop-seconds", "0.4", "--workers", "0", "--held-out-speakers", "2"),
    *("--epochs", "2", "--average", "2", "--log-every", "1", "--save-every", "100"),
)


@pytest.fixture(scope="module")
def whole_run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that was not stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train("--store", small_store, "--model", "small", "--accumulate", "2", *FEW, "--out", out)
    return out


@pytest.mark.parametrize(
    "steps", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_a_stage_that_is_stopped_anywhere_ends_with_the_same_weights(
    steps: int,
    small_store: Path,
    whole_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six batches of 8 in two epochs of 24 crops, two of them a step: the last step has one."""
    words = ("--store", small_store, "--model", "small", "--accumulate", "2", *FEW)
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patched:
        stop_after(patched, steps)
        train(*words, "--out", stopped, code=3)
    train(*words, "--out", stopped)
    ours, theirs = (load_file(out / "model" / "model.safetensors") for out in (stopped, whole_run))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    lines = [
        [(record["kind"], record["step"], record.get("loss")) for record in records(out)]
        for out in (stopped, whole_run)
    ]
    assert lines[0] == lines[1]
    assert [step for kind, step, _ in lines[0] if kind == "train"] == [1, 2, 3, 4]


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_last_stage_goes_on_from_a_run_and_is_not_repeated(
    small_store: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words: list[object] = ["--store", small_store, *FEW[:6], "--stage", "lmft", "--out", out]
    words += ["--from", whole_run, "--epochs", "1", "--score-every", "1000"]
    train(*words)
    assert "18 of the 18 classes have a row in its head" in capsys.readouterr().out
    labels = SpeakerLabels.load(out / "labels.json")
    assert (labels.corpus, labels.speeds) == ("VoxBlink2", (1.0, 0.9, 1.1))
    weights = out / "model" / "model.safetensors"
    assert load_file(weights)["head.weight"].shape == (18, 64)
    before = weights.stat().st_mtime_ns
    train(*words)
    assert "is finished; nothing is repeated" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == before
    train(*words, "--rate", "1", code=2)
    told = "begun with other settings: rate 0.0001, now 1.0. Name another --out."
    assert told in capsys.readouterr().err


REFUSED = {
    "--stage finetune and lmft need --from DIR": ["--stage", "lmft"],
    "--model is of --stage pretrain": ["--stage", "lmft", "--from", "{run}", "--model", "small"],
    "--trials LIST and --audio DIR go together": ["--trials", "list"],
    "There is no model in": ["--stage", "lmft", "--from", "{out}"],
    "first, and go on from that": ["--stage", "lmft", "--from", "{run}", "--corpus", "VoxCeleb2"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    message: str,
    small_store: Path,
    whole_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    words = [word.format(run=whole_run, out=out) for word in REFUSED[message]]
    train("--store", small_store, "--out", out, *words, code=2)
    assert message in capsys.readouterr().err
    assert not (out / "settings.json").exists()


def test_the_former_name_of_the_first_stage_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train("--store", "s", "--out", tmp_path, "--stage", "train")
    assert "the stage 'train' is called 'pretrain' now" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_the_run(
    small_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from voxblink2_lib.models import SpeakerModel

    forward = SpeakerModel.forward

    def diverged(self: SpeakerModel, *arguments: Any, **options: Any) -> Any:
        output: Any = forward(self, *arguments, **options)
        if output.loss is not None:
            output.loss = output.loss * torch.nan
        return output

    monkeypatch.setattr(SpeakerModel, "forward", diverged)
    words = ("--store", small_store, "--model", "small", *FEW, "--save-every", "1")
    train(*words, "--out", tmp_path, code=2)
    assert "The loss at step 1 is nan. Go on from the last checkpoint" in capsys.readouterr().err
    assert not list(tmp_path.glob("checkpoint-*"))
