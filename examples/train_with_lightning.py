"""Train a speaker model with PyTorch Lightning.

Lightning controls steps, precision, processes and checkpoints; this package controls the order of
utterances and the crops. Run the same command again after an interruption, and it resumes at the
next batch after its last checkpoint; Ctrl-C, SIGTERM and SIGUSR1 save one.

Example:
    python examples/train_with_lightning.py --store /data/voxblink2 --out runs/d --model resnet34
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from voxblink2_lib.errors import VoxBlink2Error
from voxblink2_lib.progress import show_progress
from voxblink2_lib.recipes.holdout import HeldOut, hold_out_videos, score_held_out
from voxblink2_lib.recipes.lightning import LoaderCallback
from voxblink2_lib.recipes.training import ARCHITECTURES, FeatureCollate, Schedule, make_model
from voxblink2_lib.scoring import eer
from voxblink2_lib.training import (
    BalancedSampler,
    Corpus,
    SpeakerLabels,
    TrainingLoader,
    UtteranceDataset,
)

STOPPED = 3
CROPS_PER_SPEAKER = 75  # in an epoch
RATE = 3e-3


class SpeakerData(lightning.LightningDataModule):
    """Utterances to train on."""

    def __init__(
        self, corpus: Corpus, labels: SpeakerLabels, collate: FeatureCollate, args: Any
    ) -> None:
        super().__init__()
        self._dataset = UtteranceDataset(corpus, crop_seconds=2.0, labels=labels)
        self._collate = collate
        self._args = args

    def train_dataloader(self) -> TrainingLoader:
        sampler = BalancedSampler(
            self._dataset.corpus,
            batch_size=self._args.batch_size,
            per_speaker=CROPS_PER_SPEAKER,
        )
        return TrainingLoader(
            self._dataset, sampler, num_workers=self._args.workers, collate_fn=self._collate
        )


class SpeakerTraining(lightning.LightningModule):
    """A model, its schedule, and its error on held-out videos before and after."""

    def __init__(self, model: Any, extractor: Any, held_out: HeldOut) -> None:
        super().__init__()
        self.model = model
        self._extractor, self._held_out = extractor, held_out

    def schedule(self) -> Schedule:
        return Schedule(int(self.trainer.estimated_stepping_batches), RATE, margin=0.2)

    def configure_optimizers(self) -> Any:
        schedule = self.schedule()
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=1e-2)
        rates = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: schedule.rate_at(step) / RATE
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        self.model.head.margin = self.schedule().margin_at(self.global_step)
        loss: Tensor = self.model(**batch).loss
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_train_start(self) -> None:
        self.score()

    def on_train_end(self) -> None:
        self.score()

    def score(self) -> None:
        if self.trainer.is_global_zero:
            sweep = score_held_out(
                self.model, self._extractor, self._held_out, progress=show_progress
            )
            print(f"step {self.global_step:,}: EER on held-out videos {100 * eer(sweep).eer:.2f} %")


def last_checkpoint(out: Path) -> Path | None:
    saved = list(out.glob("step=*.ckpt"))
    return max(saved, key=lambda path: int(path.stem.partition("=")[2]), default=None)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True, metavar="DIR|URL")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--model", choices=ARCHITECTURES, default="resnet34")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64, help="of one process")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=500, metavar="STEPS")
    parser.add_argument("--accelerator", default="auto", help="such as cpu")
    parser.add_argument("--devices", type=int, default=1, help="processes that train together")
    return parser.parse_args()


def train(args: argparse.Namespace) -> int:
    held_out = hold_out_videos(Corpus.open(args.store))
    labels = SpeakerLabels.of(held_out.train, speeds=(1.0, 0.9, 1.1))
    model, extractor = make_model(args.model, classes=labels.classes, seed=0)
    out = Path(args.out)
    stops = LoaderCallback(out)
    saves = ModelCheckpoint(out, filename="{step}", every_n_train_steps=args.save_every)
    trainer = lightning.Trainer(
        accelerator=args.accelerator,
        devices=args.devices,
        max_epochs=args.epochs,
        callbacks=[stops, saves],
        default_root_dir=out,
        enable_model_summary=False,
    )
    module = SpeakerTraining(model, extractor, held_out)
    batches = SpeakerData(held_out.train, labels, FeatureCollate(extractor), args)
    trainer.fit(module, batches, ckpt_path=last_checkpoint(out))
    if stops.is_stopped:
        print("Stopped; run the same command to resume.")
        return STOPPED
    if trainer.is_global_zero:
        model.save_pretrained(out)
        extractor.save_pretrained(out)
        labels.save(out / "labels.json")
    return 0


def main() -> int:
    try:
        return train(arguments())
    except VoxBlink2Error as error:
        print(f"train_with_lightning: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
