"""Train a speaker model with `transformers.Trainer`, in few lines.

The trainer controls steps, precision, processes and checkpoints; this package controls the order of
utterances and the crops. `examples/train_speaker.py` has the whole recipe. Run the same command
again after an interruption, and it resumes at its last checkpoint; Ctrl-C, SIGTERM and SIGUSR1 save
one.

Example:
    python examples/train_with_trainer.py --store /data/voxblink2 --out runs/c --model resnet34
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments

from voxblink2_lib.errors import VoxBlink2Error
from voxblink2_lib.progress import show_progress
from voxblink2_lib.recipes.holdout import hold_out_videos, score_held_out
from voxblink2_lib.recipes.trainer import LoaderTrainer
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


class MarginWarmUp(TrainerCallback):
    """Raises the margin during the first half of the steps."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        del control
        schedule = Schedule(state.max_steps, args.learning_rate, margin=0.2)
        model = others["model"]
        getattr(model, "module", model).head.margin = schedule.margin_at(state.global_step)


def make_loader(
    corpus: Corpus, labels: SpeakerLabels, collate: FeatureCollate, args: argparse.Namespace
) -> TrainingLoader:
    """Return the batches of this process."""
    return TrainingLoader(
        UtteranceDataset(corpus, crop_seconds=2.0, labels=labels),
        BalancedSampler(corpus, batch_size=args.batch_size, per_speaker=CROPS_PER_SPEAKER),
        num_workers=args.workers,
        collate_fn=collate,
    )


def last_checkpoint(out: Path) -> str | None:
    """Return the last complete checkpoint: the trainer writes the file of its state last."""
    complete = [path.parent for path in out.glob("checkpoint-*/trainer_state.json")]
    if not complete:
        return None
    return str(max(complete, key=lambda folder: int(folder.name.rpartition("-")[2])))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True, metavar="DIR|URL")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--model", choices=ARCHITECTURES, default="resnet34")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=500, metavar="STEPS")
    return parser.parse_args()


def train(args: argparse.Namespace) -> int:
    held_out = hold_out_videos(Corpus.open(args.store))
    labels = SpeakerLabels.of(held_out.train, speeds=(1.0, 0.9, 1.1))
    model, extractor = make_model(args.model, classes=labels.classes, seed=0)
    before = eer(score_held_out(model, extractor, held_out, progress=show_progress)).eer
    trainer = LoaderTrainer(
        model=model,
        loader=make_loader(held_out.train, labels, FeatureCollate(extractor), args),
        args=TrainingArguments(
            output_dir=args.out,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=args.batch_size,
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.2,
            remove_unused_columns=False,
            logging_steps=20,
            save_steps=args.save_every,
            report_to=["tensorboard"],
        ),
        callbacks=[MarginWarmUp()],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(Path(args.out)))
    if trainer.is_stopped:
        print("Stopped; run the same command to resume.")
        return STOPPED
    trainer.save_model(args.out)
    extractor.save_pretrained(args.out)
    labels.save(Path(args.out) / "labels.json")
    after = eer(score_held_out(model, extractor, held_out, progress=show_progress)).eer
    print(f"EER on held-out videos: {100 * before:.2f} % before, {100 * after:.2f} % after")
    return 0


def main() -> int:
    try:
        return train(arguments())
    except VoxBlink2Error as error:
        print(f"train_with_trainer: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
