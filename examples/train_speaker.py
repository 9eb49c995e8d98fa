"""Train a speaker model on a store: additive angular margin, exact resume, then large margin.

Stage "train" is the usual recipe: 2 s crops, speed perturbation with new speakers, a margin that
rises to 0.2. Stage "lmft" continues with longer crops and a larger margin (Thienpondt et al.,
ICASSP 2021). Run the same command again after an interruption, and it resumes at the next batch.

Example:
    python examples/train_speaker.py --store /data/voxblink2 --out runs/a --model resnet34
    python examples/train_speaker.py --store /data/voxblink2 --out runs/b --stage lmft --from runs/a
    accelerate launch --num_processes 4 examples/train_speaker.py ... --mixed-precision bf16
    tensorboard --logdir runs
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from tqdm import tqdm
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

from voxblink2_lib.errors import TrainingError, VoxBlink2Error
from voxblink2_lib.progress import show_progress
from voxblink2_lib.recipes.holdout import (
    HeldOut,
    hold_out_speakers,
    hold_out_videos,
    score_held_out,
)
from voxblink2_lib.recipes.training import ARCHITECTURES, FeatureCollate, Schedule, make_model
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.scoring import eer, min_dcf
from voxblink2_lib.training import (
    AddNoise,
    BalancedSampler,
    Codec,
    Corpus,
    EpochSampler,
    RandomChoice,
    Reverberate,
    ShuffleSampler,
    SpeakerLabels,
    SpeakerSampler,
    TrainingLoader,
    UtteranceDataset,
)

STOPPED = 3
# Defaults that depend on the stage.
STAGES: dict[str, dict[str, Any]] = {
    "train": {"crop_seconds": 2.0, "margin": 0.2, "speeds": [1.0, 0.9, 1.1], "rate": None},
    "lmft": {"crop_seconds": 5.0, "margin": 0.3, "speeds": [1.0], "rate": 1e-4},
}
RATES = {"sgd": 0.1, "adamw": 3e-3}


# -- Data ------------------------------------------------------------------------------------------


def hold_out(corpus: Corpus, args: argparse.Namespace) -> HeldOut:
    if args.hold_out == "videos":
        return hold_out_videos(corpus)
    default = min(200, max(2, len(corpus.speakers) // 20))
    return hold_out_speakers(corpus, args.held_out_speakers or default)


def make_sampler(
    corpus: Corpus, args: argparse.Namespace, accelerator: Accelerator
) -> EpochSampler:
    ranks = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
    if args.sampler == "balanced":
        return BalancedSampler(
            corpus,
            batch_size=args.batch_size,
            per_speaker=args.per_speaker,
            seed=args.seed,
            **ranks,
        )
    if args.sampler == "speakers":
        return SpeakerSampler(
            corpus, speakers=args.batch_size // 2, utterances=2, seed=args.seed, **ranks
        )
    # Batch normalization needs more than the one utterance that a last batch may have.
    return ShuffleSampler(
        corpus, batch_size=args.batch_size, seed=args.seed, drop_last=True, **ranks
    )


def make_augmentation(args: argparse.Namespace) -> RandomChoice | None:
    """Return the usual augmentation with MUSAN, rooms and codecs, as far as they are given."""
    choices: list[Any] = []
    if args.noise:
        choices.append(AddNoise(args.noise, snr_db=(0, 15)))
    if args.music:
        choices.append(AddNoise(args.music, snr_db=(5, 15)))
    if args.babble:
        choices.append(AddNoise(args.babble, snr_db=(13, 20), files=(3, 7)))
    if args.rooms:
        choices.append(Reverberate(args.rooms))
    if args.codecs:
        choices.append(Codec())
    return RandomChoice(0.6, *choices) if choices else None


def make_loader(
    corpus: Corpus, labels: SpeakerLabels, collate: FeatureCollate, args: Any, accelerator: Any
) -> TrainingLoader:
    dataset = UtteranceDataset(
        corpus,
        crop_seconds=args.crop_seconds,
        labels=labels,
        augment=make_augmentation(args),
        on_damaged=args.on_damaged,
    )
    return TrainingLoader(
        dataset,
        make_sampler(corpus, args, accelerator),
        num_workers=args.workers,
        collate_fn=collate,
        pin_memory=accelerator.device.type == "cuda",
        persistent_workers=args.workers > 0,
    )


# -- Model -----------------------------------------------------------------------------------------


def start_model(labels: SpeakerLabels, args: argparse.Namespace) -> tuple[Any, Any]:
    """Return a new model; for the second stage, that of the first with one class per speaker."""
    if args.stage == "train":
        return make_model(args.model, classes=labels.classes, seed=args.seed)
    before = Path(args.origin)
    trained_on = SpeakerLabels.load(before / "labels.json")
    if trained_on.speakers != labels.speakers or trained_on.speeds[0] != 1:
        raise TrainingError(
            f"{before} was trained on {len(trained_on.speakers)} other speakers; the second stage "
            f"needs those of the first, but got {len(labels.speakers)}."
        )
    extractor = AutoFeatureExtractor.from_pretrained(before / "model")
    model = AutoModelForAudioXVector.from_pretrained(before / "model")
    # The first classes are the speakers at their own speed.
    model.head.weight = nn.Parameter(model.head.weight.detach()[: labels.classes].clone())
    model.config.num_speakers = labels.classes
    return model, extractor


def make_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    if args.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=1e-2)
    return torch.optim.SGD(
        model.parameters(), lr=args.rate, momentum=0.9, nesterov=True, weight_decay=1e-4
    )


# -- Checkpoints -----------------------------------------------------------------------------------


class StepCounter:
    """Steps done; saved and loaded with model and optimizer."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.step = state["step"]


def checkpoints(out: Path) -> list[Path]:
    return sorted(out.glob("checkpoint-*"))


def save_checkpoint(accelerator: Accelerator, out: Path, step: int) -> None:
    """Save all that a resumed run needs; a kill meanwhile leaves the last checkpoint intact."""
    unfinished, finished = out / "half-checkpoint", out / f"checkpoint-{step:08}"
    if finished.exists():
        return
    if accelerator.is_main_process:
        shutil.rmtree(unfinished, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(unfinished))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        unfinished.rename(finished)
        for old in checkpoints(out)[:-2]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def check_settings(args: argparse.Namespace, out: Path, *, write: bool) -> None:
    """Refuse to resume a run with other settings; write those of a new run."""
    free = {"workers", "save_every", "score_every", "out", "store"}
    settings = {name: value for name, value in sorted(vars(args).items()) if name not in free}
    path = out / "settings.json"
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        changes = [
            f"{name} {before.get(name)!r}, now {value!r}"
            for name, value in settings.items()
            if before.get(name) != value
        ]
        if changes:
            raise TrainingError(
                f"{out} was begun with other settings: {', '.join(changes)}. Name another --out."
            )
    elif write:
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=1), encoding="utf-8")


# -- Training --------------------------------------------------------------------------------------


class Training:
    """A run: model, data, optimizer and state."""

    def __init__(self, args: argparse.Namespace, accelerator: Accelerator) -> None:
        self.args, self.accelerator = args, accelerator
        self.out = Path(args.out)
        self.held_out = hold_out(Corpus.open(args.store), args)
        train = self.held_out.train
        self.labels = SpeakerLabels.of(train, speeds=args.speeds)
        if args.stage == "lmft":
            train = train.select(train.samples >= args.crop_seconds * SAMPLE_RATE_HZ)
        model, self.extractor = start_model(self.labels, args)
        self.loader = make_loader(
            train, self.labels, FeatureCollate(self.extractor), args, accelerator
        )
        self.steps = args.epochs * len(self.loader)
        self.schedule = Schedule(
            self.steps,
            args.rate,
            args.margin,
            margin_rises=0.5 if args.stage == "train" else 0.0,
        )
        self.model, self.optimizer = accelerator.prepare(model, make_optimizer(model, args))
        self.counter = StepCounter()
        accelerator.register_for_checkpointing(self.counter, self.loader)
        self.stop = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request_stop)

    def _request_stop(self, *_: object) -> None:
        self.stop = True

    def _must_stop(self) -> bool:
        """Return whether any process got a signal; several of them check it every few steps."""
        if self.accelerator.num_processes == 1:
            return self.stop
        if self.counter.step % 20:
            return False
        if self.stop:
            self.accelerator.set_trigger()
        return bool(self.accelerator.check_trigger())

    def run(self) -> bool:
        """Train to the end or until a signal; return whether the end is reached."""
        saved = checkpoints(self.out)
        if saved:
            self.accelerator.load_state(str(saved[-1]))
            self.accelerator.print(f"Resuming at step {self.counter.step:,} of {self.steps:,}.")
        else:
            self.score()
        bar = tqdm(
            total=self.steps,
            initial=self.counter.step,
            unit="step",
            disable=not self.accelerator.is_local_main_process,
        )
        self.model.train()
        while self.counter.step < self.steps:
            for batch in self.loader:
                self.train_step(batch, bar)
                if self._must_stop():
                    save_checkpoint(self.accelerator, self.out, self.counter.step)
                    return False
        bar.close()
        self.score()
        self.save_model()
        return True

    def train_step(self, batch: dict[str, torch.Tensor], bar: Any) -> None:
        step = self.counter.step
        margin = self.schedule.margin_at(step)
        self.accelerator.unwrap_model(self.model).head.margin = margin
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate_at(step)
        device = self.accelerator.device
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        with self.accelerator.autocast():
            loss = self.model(**inputs).loss
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.counter.step += 1
        bar.update()
        if self.counter.step % self.args.log_every == 0:
            values = {"loss": loss.item(), "rate": self.schedule.rate_at(step), "margin": margin}
            bar.set_postfix(loss=f"{values['loss']:.3f}")
            self.accelerator.log(values, step=self.counter.step)
        if self.counter.step % self.args.save_every == 0:
            save_checkpoint(self.accelerator, self.out, self.counter.step)
        if self.counter.step % self.args.score_every == 0 and self.counter.step < self.steps:
            self.score()

    def score(self) -> None:
        """Score the held-out trials, in the main process."""
        if self.accelerator.is_main_process:
            model = self.accelerator.unwrap_model(self.model)
            sweep = score_held_out(model, self.extractor, self.held_out, progress=show_progress)
            rate, cost = eer(sweep).eer, min_dcf(sweep, p_target=0.01).min_dcf
            self.accelerator.log({"eer": rate, "min_dcf": cost}, step=self.counter.step)
            tqdm.write(
                f"step {self.counter.step:,}: held out EER {100 * rate:.2f} %, "
                f"minDCF(0.01) {cost:.3f}, {len(self.held_out.target):,} trials"
            )
        self.accelerator.wait_for_everyone()

    def save_model(self) -> None:
        """Save the model for `voxblink2 embed --model`, and its labels."""
        if self.accelerator.is_main_process:
            folder = self.out / "model"
            self.accelerator.unwrap_model(self.model).save_pretrained(folder)
            self.extractor.save_pretrained(folder)
            self.labels.save(self.out / "labels.json")
        self.accelerator.wait_for_everyone()


def parser() -> argparse.ArgumentParser:
    description, _, example = (__doc__ or "").partition("Example:")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"examples:{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--store", required=True, metavar="DIR|URL", help="a store with sealed shards")
    add("--out", required=True, metavar="DIR", help="checkpoints, logs, labels and the model")
    add("--stage", choices=STAGES, default="train")
    add("--from", dest="origin", metavar="RUN", help="--out of the first stage, for lmft")
    add("--model", choices=ARCHITECTURES, default="resnet34")
    add("--epochs", type=int, default=20, metavar="N")
    add("--batch-size", type=int, default=64, metavar="N", help="of one process")
    add("--sampler", choices=["shuffle", "balanced", "speakers"], default="shuffle")
    add("--per-speaker", type=int, metavar="N", help="crops of a speaker an epoch, for balanced")
    add("--crop-seconds", type=float, metavar="S", help="default: 2, and 5 for lmft")
    add("--margin", type=float, help="default: 0.2, and 0.3 for lmft")
    add("--speeds", type=float, nargs="+", help="default: 1.0 0.9 1.1, and 1.0 for lmft")
    add("--optimizer", choices=RATES, default="sgd")
    add("--rate", type=float, help="highest learning rate; default: 0.1, AdamW 3e-3, lmft 1e-4")
    add("--mixed-precision", choices=["no", "fp16", "bf16"], default="no")
    for name in ("noise", "music", "babble"):
        add(f"--{name}", metavar="DIR", help="audio files to add, such as a folder of MUSAN")
    add("--rooms", metavar="DIR", help="impulse responses, such as RIRS_NOISES")
    add("--codecs", action="store_true", help="encode and decode some crops")
    add("--on-damaged", choices=["raise", "skip"], default="raise", help="clips that do not decode")
    add("--hold-out", choices=["speakers", "videos"], default="speakers")
    add("--held-out-speakers", type=int, metavar="N", help="default: a twentieth, at most 200")
    add("--score-every", type=int, default=2000, metavar="STEPS")
    add("--save-every", type=int, default=500, metavar="STEPS")
    add("--log-every", type=int, default=20, metavar="STEPS")
    add("--workers", type=int, default=2, metavar="N", help="processes that decode")
    add("--seed", type=int, default=0)
    return parser


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in the defaults of the stage and the optimizer."""
    if (args.stage == "lmft") != (args.origin is not None):
        raise TrainingError("--stage lmft needs --from RUN, and the first stage takes none.")
    for name, value in STAGES[args.stage].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.rate is None:
        args.rate = RATES[args.optimizer]
    return args


def main() -> int:
    try:
        args = complete(parser().parse_args())
        accelerator = Accelerator(
            mixed_precision=args.mixed_precision, log_with="tensorboard", project_dir=args.out
        )
        check_settings(args, Path(args.out), write=accelerator.is_main_process)
        set_seed(args.seed)
        accelerator.init_trackers("log")
        finished = Training(args, accelerator).run()
        accelerator.end_training()
    except VoxBlink2Error as error:
        print(f"train_speaker: {error}", file=sys.stderr)
        return error.exit_code
    if not finished:
        accelerator.print("Stopped; run the same command to resume.")
    return 0 if finished else STOPPED


if __name__ == "__main__":
    sys.exit(main())
