"""The demonstration of training: a small model on a small store, scored before and after."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxblink2_lib.progress import show_progress
from voxblink2_lib.recipes.holdout import hold_out_videos, score_held_out
from voxblink2_lib.recipes.training import FeatureCollate, Schedule, make_model
from voxblink2_lib.scoring import eer
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
_EPOCHS, _CROPS_A_SPEAKER, _BATCH = 8, 75, 24
_CROP_SECONDS = 1.0
_SNR_DB = (5.0, 25.0)


@dataclass(frozen=True, slots=True)
class TrainingDemoResult:
    """What training did.

    Attributes:
        speakers: number of speakers.
        trained_on: number of utterances.
        held_out: number of utterances of videos that were held out.
        trials: held-out utterances against those of the speakers' other videos.
        eer_before: equal error rate of the untrained network on them.
        eer_after: that of the trained one.
        steps: of training.
        seconds: that they took.
        plot: file of the DET curves.
        model: folder of the model, as ``voxblink2 embed --model`` takes it.
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
        """Return lines for people."""
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
    held = hold_out_videos(Corpus.open(store, config))
    labels = SpeakerLabels.of(held.train, speeds=(1.0, 0.9, 1.1))
    model, extractor = make_model("small", classes=labels.classes, seed=seed)
    untrained = score_held_out(model, extractor, held)
    loader = TrainingLoader(
        UtteranceDataset(
            held.train, crop_seconds=_CROP_SECONDS, labels=labels, augment=_hiss_sometimes
        ),
        BalancedSampler(held.train, batch_size=_BATCH, per_speaker=_CROPS_A_SPEAKER, seed=seed),
        collate_fn=FeatureCollate(extractor),
    )
    schedule = Schedule(_EPOCHS * len(loader), rate=3e-3, margin=0.2)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    started, step = time.monotonic(), 0
    model.train()
    head: Any = model.head
    with show_progress("Training", unit="step", total=schedule.steps) as seen:
        while loader.epoch < _EPOCHS:
            for batch in loader:
                head.margin = schedule.margin_at(step)
                for group in optimizer.param_groups:
                    group["lr"] = schedule.rate_at(step)
                loss = model(**batch).loss
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
                step += 1
                seen(1)
    seconds = time.monotonic() - started
    trained = score_held_out(model, extractor, held)
    plot, folder = out / "det.png", out / "model"
    plot_det(trained, plot, min_dcf={}, compare_with={"untrained": untrained})
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    labels.save(folder / "labels.json")
    return TrainingDemoResult(
        speakers=len(held.train.speakers),
        trained_on=len(held.train),
        held_out=len(np.unique(held.test)),
        trials=len(held.target),
        eer_before=eer(untrained).eer,
        eer_after=eer(trained).eer,
        steps=step,
        seconds=seconds,
        plot=str(plot),
        model=str(folder),
    )


def _hiss_sometimes(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """Add white noise to every second crop."""
    if generator.random() < 0.5:
        return waveform
    noise = generator.standard_normal(len(waveform), np.float32)
    ratio = 10 ** (generator.uniform(*_SNR_DB) / 20)
    return waveform + noise * np.float32(waveform.std() / ratio)
