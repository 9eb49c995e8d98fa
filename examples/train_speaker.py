"""Train a speaker model by the published recipe: pre-train, fine-tune, then large margin.

Stage "pretrain" begins with random weights. "finetune" goes on with other speakers, such as those
of VoxCeleb2, so with a new head, at a lower rate. "lmft" goes on with the same speakers, longer
crops and a larger margin (Thienpondt et al., ICASSP 2021). Their defaults are published ones,
stretched or compressed to --epochs; docs/training.md names their sources. Run the same command
again after an interruption, and it resumes at the next batch; of a finished stage it repeats
nothing.

Example:
    python examples/train_speaker.py --store /data/voxblink2 --out runs/a --epochs 17
    python examples/train_speaker.py --stage finetune --store /data/voxceleb2 --corpus VoxCeleb2 \
        --from runs/a --out runs/b --trials vox1-o.txt --audio /data/voxceleb1/wav
    python examples/train_speaker.py --stage lmft --store /data/voxceleb2 --corpus VoxCeleb2 \
        --from runs/b --out runs/c --trials vox1-o.txt --audio /data/voxceleb1/wav
    torchrun --nproc-per-node 4 examples/train_speaker.py ... --mixed-precision bf16
    tensorboard --logdir runs
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import nn
from tqdm import tqdm

from voxblink2_lib.errors import TrainingError, VoxBlink2Error
from voxblink2_lib.progress import AdvanceWithNote, no_progress, show_progress
from voxblink2_lib.recipes.checkpoints import RunFolder
from voxblink2_lib.recipes.evaluation import (
    TrialScores,
    score_list,
)
from voxblink2_lib.recipes.holdout import Share, score_trials_held_out
from voxblink2_lib.recipes.run_log import Meter, RunLog
from voxblink2_lib.recipes.run_report import HELD_OUT, LOG, TRIALS, write_run_report
from voxblink2_lib.recipes.stage_data import hold_out, make_augmentation, make_sampler
from voxblink2_lib.recipes.stage_options import complete, parser, settings_of
from voxblink2_lib.recipes.stages import STAGES, scaled_rate
from voxblink2_lib.recipes.stopping import StopSignals
from voxblink2_lib.recipes.training import FeatureCollate, make_model
from voxblink2_lib.recipes.transfer import Origin, Start, corpus_name, start_from
from voxblink2_lib.scoring import eer
from voxblink2_lib.training import Corpus, SpeakerLabels, TrainingLoader, UtteranceDataset

STOPPED = 3


# -- Model -----------------------------------------------------------------------------------------


def start(labels: SpeakerLabels, args: argparse.Namespace) -> Start:
    """Return a new model, or that of the stage before with a head for these speakers."""
    named = {
        "head_sub_centers": args.sub_centers,
        "head_top_k": args.top_k,
        "head_top_k_penalty": args.top_k_penalty,
    }
    head = {name: value for name, value in named.items() if value is not None}
    if args.stage == "pretrain":
        made = make_model(args.model, classes=labels.classes, seed=args.seed, head=head)
        return Start(made.model, made.extractor, kept_classes=0)
    begun = start_from(Origin.at(args.origin), labels, seed=args.seed, head=head)
    if args.stage == "lmft" and begun.kept_classes < labels.classes:
        raise TrainingError(
            f"--stage lmft goes on with the speakers of {args.origin}, but its head has only "
            f"{begun.kept_classes:,} of the {labels.classes:,} classes of {labels.corpus} in "
            f"{args.store}. Hold out the speakers that it held out (--validation), or run --stage "
            f"finetune --from {args.origin} first, and go on from that."
        )
    return begun


def make_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    if args.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=1e-2)
    return torch.optim.SGD(
        model.parameters(), lr=args.rate, momentum=0.9, nesterov=True, weight_decay=1e-4
    )


# -- Training --------------------------------------------------------------------------------------


class StepCounter:
    """Steps done; saved and loaded with model and optimizer."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.step = state["step"]


class Training:
    """A run: model, data, optimizer and state."""

    def __init__(self, args: argparse.Namespace, accelerator: Accelerator) -> None:
        self.args, self.accelerator = args, accelerator
        self.folder = RunFolder(Path(args.out))
        self.held_out = hold_out(Corpus.open(args.store), args)
        train = self.held_out.train
        name = corpus_name(train.speakers, args.corpus)
        self.labels = SpeakerLabels.of(train, speeds=args.speeds, name=name)
        self.folder.check_labels(self.labels)
        counts = {"utterances": len(train), "corpus": name}
        self.folder.check_settings(counts)
        begun = start(self.labels, args)
        self.extractor, self.kept_classes = begun.extractor, begun.kept_classes
        self.sampler = make_sampler(
            train,
            args,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        self.loader = self._make_loader(train)
        crops = args.batch_size * accelerator.num_processes * args.accumulate
        rate = scaled_rate(args.rate, crops=crops, optimizer=args.optimizer)
        stage = STAGES[args.stage]
        self.rates = stage.rate_schedule(args.epochs, rate)
        self.margins = stage.margin_schedule(args.epochs, args.margin)
        self.model, self.optimizer = accelerator.prepare(
            begun.model, make_optimizer(begun.model, args)
        )
        self.counter, self.meter = StepCounter(), Meter()
        accelerator.register_for_checkpointing(self.counter, self.loader)
        self.log = RunLog(self.folder.path / LOG)
        accelerator.wait_for_everyone()  # all of them have read what is there
        if accelerator.is_main_process and not self.folder.is_begun:
            self.folder.begin({**settings_of(args), **counts}, self.labels)
        accelerator.wait_for_everyone()
        self.signals = StopSignals()

    def _make_loader(self, corpus: Corpus) -> TrainingLoader:
        dataset = UtteranceDataset(
            corpus,
            crop_seconds=self.args.crop_seconds,
            labels=self.labels,
            augment=make_augmentation(self.args),
            on_damaged=self.args.on_damaged,
        )
        return TrainingLoader(
            dataset,
            self.sampler,
            num_workers=self.args.workers,
            collate_fn=FeatureCollate(self.extractor),
            pin_memory=self.accelerator.device.type == "cuda",
            persistent_workers=self.args.workers > 0,
        )

    @property
    def epochs_done(self) -> float:
        """Epochs that are done, with the fraction of the present one."""
        return self.sampler.epochs_done

    def run(self) -> bool:
        """Train to the end or until a signal; return whether the end is reached."""
        with self.signals:
            self._resume()
            self.model.train()
            self.meter.restart()
            show = show_progress if self.accelerator.is_local_main_process else no_progress
            total = self.args.epochs * math.ceil(len(self.loader) / self.args.accumulate)
            with show("Training", unit="step", total=total, done=self.counter.step) as advance:
                while self.loader.epoch < self.args.epochs:
                    if not self._train_epoch(advance):
                        return False
            self._finish()
        return True

    def _resume(self) -> None:
        """Go on from the last checkpoint, or score the model that training begins with."""
        saved, main = self.folder.checkpoints(), self.accelerator.is_main_process
        if main:
            self.log.rewind(self.folder.last_step if saved else -1)
        # Without the steps after the checkpoint, which are done again.
        self.accelerator.init_trackers(
            "log", init_kwargs={"tensorboard": {"purge_step": self.folder.last_step + 1}}
        )
        if saved:
            self.accelerator.load_state(str(saved[-1]))
            self.accelerator.print(
                f"Resuming at step {self.counter.step:,}, after {self.epochs_done:.2f} of "
                f"{self.args.epochs} epochs."
            )
            return
        if self.args.stage != "pretrain":
            self.accelerator.print(
                f"Beginning with {self.args.origin}: {self.kept_classes:,} of the "
                f"{self.labels.classes:,} classes have a row in its head, the others are new."
            )
        self.score()

    def _train_epoch(self, advance: AdvanceWithNote) -> bool:
        """Train the rest of an epoch; return whether its end is reached."""
        epoch = self.loader.epoch
        for batches in grouped(self.meter.timed(self.loader), self.args.accumulate):
            self._step(batches)
            step = self.counter.step
            is_logged = step % self.args.log_every == 0
            advance(1, note=f"loss {self._log():.3f}" if is_logged else "")
            if self.loader.epoch > epoch:
                self._save_epoch(epoch)
            if step % self.args.score_every == 0 and self.loader.epoch < self.args.epochs:
                self.score()
            if step % self.args.save_every == 0:
                self.folder.save_checkpoint(self.accelerator, step)
            if self.signals.must_stop(step):
                self.folder.save_checkpoint(self.accelerator, step)
                return False
        return True

    def _step(self, batches: list[dict[str, torch.Tensor]]) -> None:
        """Change the weights once, by the mean gradient of some batches."""
        done = self.epochs_done
        self.accelerator.unwrap_model(self.model).head.margin = self.margins.at(done)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates.at(done)
        losses = [
            self._backward(batch, len(batches), is_last=batch is batches[-1]) for batch in batches
        ]
        self.accelerator.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.counter.step += 1
        crops = sum(len(batch["labels"]) for batch in batches)
        self.meter.count(sum(losses), crops * self.accelerator.num_processes)

    def _backward(
        self, batch: dict[str, torch.Tensor], batches: int, *, is_last: bool
    ) -> torch.Tensor:
        """Add the gradient of a batch; processes exchange theirs with the last one only."""
        device = self.accelerator.device
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        once = contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.model)
        with once:
            with self.accelerator.autocast():
                loss: torch.Tensor = self.model(**inputs).loss / batches
            self.accelerator.backward(loss)
        return loss.detach()

    def _log(self) -> float:
        """Log what happened since the last time; return the mean loss."""
        done = self.epochs_done
        values = {"epoch": done, "rate": self.rates.at(done), "margin": self.margins.at(done)}
        values |= self.meter.summary()
        if not math.isfinite(values["loss"]):
            raise TrainingError(
                f"The loss at step {self.counter.step:,} is {values['loss']}. Go on from the last "
                f"checkpoint in another --out with a lower --rate; it was {self.args.rate:g}."
            )
        if self.accelerator.is_main_process:
            self.log.append("train", self.counter.step, **values)
        self.accelerator.log(values, step=self.counter.step)
        self.meter.restart()
        return values["loss"]

    def score(self, kind: Literal["score", "final"] = "score") -> None:
        """Score the held-out trials; all processes embed, the main one reports."""
        network = self.accelerator.unwrap_model(self.model)
        ranks = self.accelerator.process_index, self.accelerator.num_processes
        scores = score_trials_held_out(
            network,
            self.extractor,
            self.held_out,
            share=Share(*ranks, gather_object),
            progress=show_progress if self.accelerator.is_main_process else no_progress,
        )
        if self.accelerator.is_main_process:
            self._report(TrialScores.of(self.held_out, scores), kind)
        self.meter.restart()

    def _report(self, trials: TrialScores, kind: Literal["score", "final"]) -> None:
        trials.save(self.folder.path / HELD_OUT)
        rates = {"eer": eer(trials.sweep).eer, "min_dcf": trials.min_dcf}
        step, epoch = self.counter.step, self.epochs_done
        self.log.append(kind, step, epoch=epoch, **rates)
        self.accelerator.log(rates, step=step)
        tqdm.write(f"step {step:,}: held out {trials.text}")
        write_run_report(self.folder.path)

    def _save_epoch(self, epoch: int) -> None:
        """Keep the weights of one of the last epochs, which are averaged."""
        if self.accelerator.is_main_process and epoch >= self.args.epochs - self.args.average:
            weights = self.accelerator.unwrap_model(self.model).state_dict()
            self.folder.save_epoch(epoch, weights, keep=self.args.average)

    def _finish(self) -> None:
        """Average the last epochs, score, and write the model, which appears last."""
        self.accelerator.wait_for_everyone()
        network = self.accelerator.unwrap_model(self.model)
        network.load_state_dict(self.folder.average())
        self.score("final")
        if self.accelerator.is_main_process:
            self.folder.save_model(network, self.extractor)
        self.accelerator.wait_for_everyone()


def grouped(batches: Iterator[Any], count: int) -> Iterator[list[Any]]:
    """Yield lists of so many batches; the last one may be shorter."""
    while group := list(itertools.islice(batches, count)):
        yield group


def evaluate(args: argparse.Namespace, *, device: str) -> None:
    """Score the list of trials, if one is named, with the finished model; write the report."""
    folder = RunFolder(Path(args.out))
    if args.trials:
        trials = score_list(
            args.trials, args.audio, model=folder.model, device=device, progress=show_progress
        )
        trials.save(folder.path / TRIALS)
        print(f"{args.trials}: {trials.text}")
    print(f"Model: {folder.model}. Report: {write_run_report(folder.path)}")


# -- Command line ----------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> bool:
    """Run the stage; return whether its end is reached."""
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision, log_with="tensorboard", project_dir=args.out
    )
    set_seed(args.seed)
    finished = Training(args, accelerator).run()
    accelerator.end_training()
    if finished and accelerator.is_main_process:
        evaluate(args, device=accelerator.device.type)
    if not finished:
        accelerator.print("Stopped; run the same command to resume.")
    return finished


def main() -> int:
    try:
        args = complete(parser(__doc__ or "").parse_args())
        folder = RunFolder(Path(args.out))
        folder.check_settings(settings_of(args))
        if folder.is_finished:
            print(f"The stage in {args.out} is finished; nothing is repeated.")
            evaluate(args, device="cuda" if torch.cuda.is_available() else "cpu")
            return 0
        return 0 if train(args) else STOPPED
    except VoxBlink2Error as error:
        print(f"train_speaker: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
