"""The training demo: a small model on a small store, scored before and after."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxblink2_lib.progress import show_progress
from voxblink2_lib.recipes.holdout import HeldOut, hold_out_videos, score_held_out
from voxblink2_lib.recipes.training import FeatureCollate, ModelWithExtractor, Schedule, make_model
from voxblink2_lib.scoring import Sweep, eer
from voxblink2_lib.scoring.plots import plot_det
from voxblink2_lib.training import (
    BalancedSampler,
    Corpus,
    SpeakerLabels,
    TrainingLoader,
    UtteranceDataset,
)
from voxblink2_lib.training.augment import Waveform

_SEED = 0
_EPOCHS, _CROPS_PER_SPEAKER, _BATCH = 8, 75, 24
_CROP_SECONDS = 1.0
_SNR_DB = (5.0, 25.0)


@dataclass(frozen=True, slots=True)
class TrainingDemoResult:
    """Result of the training demo.

    Attributes:
        speakers: number of speakers.
        trained_on: number of utterances that the model was trained on.
        held_out: number of utterances of held-out videos.
        trials: number of pairs of a held-out utterance and one of another video.
        eer_before: equal error rate of the untrained model on them.
        eer_after: that of the trained model.
        steps: number of training steps.
        seconds: duration of the training.
        plot: file of the DET curves.
        model: folder of the model, for ``voxblink2 embed --model``.
    """

    speakers: int
    trained_on: int
    held_out: int
    trials: int
    eer_before: float
    eer_after: float
    steps: int
    seconds: float
    plot: str
    model: str

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return lines to print."""
        return [
            f"Trained on    {self.trained_on} utterances of {self.speakers} speakers, "
            f"{self.steps} steps in {self.seconds:.0f} s",
            f"Held out      {self.held_out} utterances of other videos of theirs; "
            f"{self.trials:,} trials",
            f"EER           {100 * self.eer_before:.2f} % before, "
            f"{100 * self.eer_after:.2f} % after",
            f"Model         {self.model}",
            f"DET curves    {self.plot}",
        ]


def run_training_demo(
    store: Path, out: Path, *, config: str = "audio", seed: int = _SEED
) -> TrainingDemoResult:
    """Train a small model on a small store.

    Args:
        store: with sealed shards.
        out: folder for model and plot.
        config: name of the configuration.
        seed: of weights, order, crops and noise.
    """
    held_out = hold_out_videos(Corpus.open(store, config))
    setup = _Setup.make(held_out.train, seed)
    untrained = setup.score(held_out)
    run = _train(setup)
    trained = setup.score(held_out)
    plot, folder = out / "det.png", out / "model"
    plot_det(trained, plot, min_dcf={}, compare_with={"untrained": untrained})
    setup.save(folder)
    return TrainingDemoResult(
        speakers=len(held_out.train.speakers),
        trained_on=len(held_out.train),
        held_out=len(np.unique(held_out.test)),
        trials=len(held_out.target),
        eer_before=eer(untrained).eer,
        eer_after=eer(trained).eer,
        steps=run.steps,
        seconds=run.seconds,
        plot=str(plot),
        model=str(folder),
    )


@dataclass(frozen=True, slots=True)
class _Setup:
    """A model, its classes and its batches."""

    labels: SpeakerLabels
    network: ModelWithExtractor
    loader: TrainingLoader

    @classmethod
    def make(cls, corpus: Corpus, seed: int) -> _Setup:
        labels = SpeakerLabels.of(corpus, speeds=(1.0, 0.9, 1.1))
        network = make_model("small", classes=labels.classes, seed=seed)
        dataset = UtteranceDataset(
            corpus, crop_seconds=_CROP_SECONDS, labels=labels, augment=_add_noise_to_half
        )
        sampler = BalancedSampler(
            corpus, batch_size=_BATCH, per_speaker=_CROPS_PER_SPEAKER, seed=seed
        )
        loader = TrainingLoader(dataset, sampler, collate_fn=FeatureCollate(network.extractor))
        return cls(labels, network, loader)

    def score(self, held_out: HeldOut) -> Sweep:
        return score_held_out(*self.network, held_out, progress=show_progress)

    def save(self, folder: Path) -> None:
        self.network.model.save_pretrained(folder)
        self.network.extractor.save_pretrained(folder)
        self.labels.save(folder / "labels.json")


@dataclass(frozen=True, slots=True)
class _Run:
    """Number of training steps, and their duration."""

    steps: int
    seconds: float


def _train(setup: _Setup) -> _Run:
    schedule = Schedule(_EPOCHS * len(setup.loader), rate=3e-3, margin=0.2)
    model = setup.network.model
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    started, step = time.monotonic(), 0
    model.train()
    with show_progress("Training", unit="step", total=schedule.steps) as advance:
        while setup.loader.epoch < _EPOCHS:
            for batch in setup.loader:
                _train_step(model, optimizer, schedule, batch, step)
                step += 1
                advance(1)
    return _Run(step, time.monotonic() - started)


def _train_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    batch: dict[str, torch.Tensor],
    step: int,
) -> None:
    model.head.margin = schedule.margin_at(step)
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate_at(step)
    loss = model(**batch).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()


def _add_noise_to_half(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """Add white noise to half of the crops, chosen at random."""
    if generator.random() < 0.5:
        return waveform
    noise = generator.standard_normal(len(waveform), np.float32)
    ratio = 10 ** (generator.uniform(*_SNR_DB) / 20)
    return waveform + noise * np.float32(waveform.std() / ratio)
