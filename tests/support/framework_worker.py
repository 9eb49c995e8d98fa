"""Two processes that train together, through each of the frameworks.

    python tests/support/framework_worker.py JOB.json

One process loads the frameworks and forks both ranks of each training. Models have one weight; each
rank writes which rows it trained on, step by step.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from accelerate import Accelerator, skip_first_batches
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, distributed, nn
from torch.utils import data
from transformers import TrainingArguments

from support.ddp_worker import ended, forked
from voxblink2_lib.errors import TrainingError
from voxblink2_lib.recipes.lightning import LoaderCallback
from voxblink2_lib.recipes.stopping import StopSignals
from voxblink2_lib.recipes.trainer import LoaderTrainer
from voxblink2_lib.training import Corpus, DamagedClip, ShuffleSampler, TrainingLoader

WORLD = 2
EPOCHS = 3
ACCUMULATED = 2
DAMAGED = 7
# Batches and updates after which trainings are resumed, of 5 and 3 of an epoch: within the first,
# at its end, within the second.
BATCHES = (2, 5, 8)
UPDATES = (2, 3, 5)


class Numbers(data.Dataset[Any]):
    """Examples that are the rows themselves; one of them may be damaged."""

    def __init__(self, corpus: Corpus, damaged: int = -1) -> None:
        self.corpus = corpus
        self._damaged = damaged

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, row: int) -> Any:
        return DamagedClip(int(row), "damaged") if row == self._damaged else int(row)


def collate(rows: Sequence[int]) -> dict[str, Tensor]:
    """Return a batch that is a model's input."""
    return {"rows": torch.tensor(rows)}


def sampler(
    corpus: Corpus, rank: int | None = None, world_size: int | None = None
) -> ShuffleSampler:
    """Return the sampler of all trainings."""
    return ShuffleSampler(corpus, batch_size=4, seed=3, rank=rank, world_size=world_size)


def loader_of(corpus: Corpus, damaged: int = -1, **options: Any) -> TrainingLoader:
    """Return a loader of the rank that this process is."""
    dataset = Numbers(corpus, damaged)
    return TrainingLoader(dataset, sampler(corpus), collate_fn=collate, **options)


class Weight(nn.Module):
    """A model that writes down what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """Return a loss."""
        self.seen.append(rows.tolist())
        return {"loss": ((self.weight - rows.float().mean()) ** 2)}


# -- accelerate ------------------------------------------------------------------------------------


def accelerate(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Train with accelerate: three epochs, saved after some batches; go on from each."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATED)
    written: dict[str, Any] = {"whole": [], "synced": [], "steps_left": []}
    loader = loader_of(corpus)
    model = Weight()
    wrapped, optimizer, prepared = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), 0.1), loader
    )
    assert prepared is loader
    for _ in range(EPOCHS):
        for batch in prepared:
            with accelerator.accumulate(wrapped):
                accelerator.backward(wrapped(**batch)["loss"])
                optimizer.step()
                optimizer.zero_grad()
            written["synced"].append(accelerator.sync_gradients)
            written["steps_left"].append(loader.steps_left(EPOCHS))
            if len(model.seen) in BATCHES:
                accelerator.save_state(str(folder / f"state-{len(model.seen)}"))
    written["whole"] = model.seen
    for batches in BATCHES:
        accelerator.load_state(str(folder / f"state-{batches}"))
        written[str(batches)] = _rows(loader, EPOCHS)
    written["skipped"] = _skipped(loader)
    written["damaged"] = _damaged(accelerator.prepare(loader_of(corpus, DAMAGED)))
    written["refused"] = _refusals(accelerator, corpus)
    return written


def _rows(loader: TrainingLoader, epochs: int) -> list[list[int]]:
    """Return the rows of the batches to the end of so many epochs."""
    return list(_until(loader, epochs))


def _until(loader: TrainingLoader, epochs: int) -> Iterator[list[int]]:
    while loader.epoch < epochs:
        for batch in loader:
            yield batch["rows"].tolist()


def _skipped(loader: TrainingLoader) -> list[list[int]]:
    """Skip a batch of the second epoch as accelerate documents it, and go on with the third."""
    loader.set_epoch(1)
    next(iter(loader))  # a state amid the epoch does not count twice
    skipped = skip_first_batches(loader, 1)
    return [batch["rows"].tolist() for batch in skipped] + [
        batch["rows"].tolist() for batch in loader
    ]


def _damaged(loader: Any) -> dict[str, Any]:
    batches = _as_numbers(loader)
    damaged = [clip.row for clip in loader.damaged]
    loader.order.set_epoch(0)
    others = _as_numbers(skip_first_batches(loader, 1))  # by a loader of accelerate
    return {"batches": batches, "damaged": damaged, "others": others}


def _as_numbers(loader: Any) -> list[dict[str, list[int]]]:
    return [{name: tensor.tolist() for name, tensor in batch.items()} for batch in loader]


def _refusals(accelerator: Accelerator, corpus: Corpus) -> list[str]:
    """Return what is told where batches would be dealt out twice, or all to each."""
    plain = data.DataLoader(Numbers(corpus), batch_sampler=sampler(corpus))
    alone = accelerator.prepare(
        TrainingLoader(Numbers(corpus), sampler(corpus, rank=0, world_size=1), collate_fn=collate)
    )
    return [
        _refused(lambda: accelerator.prepare(plain)),
        _refused(lambda: next(iter(alone))),
    ]


def _refused(call: Callable[[], object]) -> str:
    try:
        call()
    except TrainingError as error:
        return str(error)
    return "accepted"


# -- transformers ----------------------------------------------------------------------------------


def trainer(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Train with a trainer, saving after each step; go on after some of them."""
    return {
        "whole": _trainer_rows(corpus, folder, None),
        **{str(step): _trainer_rows(corpus, folder, step) for step in UPDATES},
        "refused": _refused(lambda: _trainer_rows(corpus, folder, 2, accumulated=1)),
    }


def _trainer_rows(
    corpus: Corpus, folder: Path, step: int | None, accumulated: int = ACCUMULATED
) -> list[list[int]]:
    model = Weight()
    args = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        num_train_epochs=EPOCHS,
        gradient_accumulation_steps=accumulated,
        save_steps=1 if step is None else 1000,
        save_only_model=False,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_steps=1000,
        dataloader_pin_memory=False,
    )
    before = None if step is None else str(folder / f"checkpoint-{step}")
    training = LoaderTrainer(loader=loader_of(corpus), model=model, args=args)
    training.train(resume_from_checkpoint=before)
    return model.seen


# -- Lightning -------------------------------------------------------------------------------------


class _Module(lightning.LightningModule):
    """A model with our loader; its schedule asks for the number of steps, or not."""

    def __init__(self, corpus: Corpus, *, asks_for_steps: bool) -> None:
        super().__init__()
        self.model = Weight()
        self._corpus = corpus
        self._asks_for_steps = asks_for_steps

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        loss: Tensor = self.model(**batch)["loss"]
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self._asks_for_steps:  # which makes the loader, before there is a state for it
            assert self.trainer.estimated_stepping_batches == EPOCHS * 5
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self) -> TrainingLoader:
        return loader_of(self._corpus)


def lightning_ddp(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Train with Lightning on both ranks, saving after each batch; go on after some of them."""
    rows = functools.partial(_lightning_rows, corpus, folder)
    return {
        "whole": rows(None),
        **{str(step): rows(step) for step in BATCHES},
        "without": rows(2, with_callback=False),
    }


def _lightning_rows(
    corpus: Corpus, folder: Path, step: int | None, *, with_callback: bool = True
) -> list[list[int]]:
    saves = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    fitting = lightning.Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=WORLD,
        max_epochs=EPOCHS,
        logger=False,
        callbacks=[LoaderCallback(folder)] * with_callback + [saves] * (step is None),
        enable_checkpointing=step is None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = _Module(corpus, asks_for_steps=with_callback)
    fitting.fit(module, ckpt_path=None if step is None else folder / f"step={step}.ckpt")
    return module.model.seen


# -- Signals ---------------------------------------------------------------------------------------


def signalled(corpus: Corpus, folder: Path, number: int) -> dict[str, Any]:
    """Train for ever, with workers; when the process group is signalled, read on and then end."""
    rank = distributed.get_rank()
    pids = torch.zeros(WORLD, dtype=torch.int64)
    pids[rank] = os.getpid()
    distributed.all_reduce(pids)
    loader, step = loader_of(corpus, num_workers=2), 0
    with StopSignals() as signals:
        while True:
            for _ in loader:
                step += 1
                if signals.must_stop(step):
                    after = _rows(loader, loader.epoch + 2)  # by workers that must still be there
                    return {"step": step, "batches": len(after), "received": signals.received}
                if (step, rank) == (21, 1):
                    os.killpg(int(pids[0]), number)  # the first rank and its workers


# -- Ranks -----------------------------------------------------------------------------------------

TRAININGS: dict[str, Callable[[Corpus, Path], dict[str, Any]]] = {
    "accelerate": accelerate,
    "trainer": trainer,
    "lightning": lightning_ddp,
    "SIGTERM": functools.partial(signalled, number=signal.SIGTERM),
    "SIGUSR1": functools.partial(signalled, number=signal.SIGUSR1),
}


def run_rank(name: str, store: Path, results: Path, rank: int) -> None:
    """Run a rank of a training, and write what it returns."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    os.environ |= {key: str(value) for key, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # required, but not used
    folder = results / name
    folder.mkdir(exist_ok=True)
    # Meeting in a file needs no free port.
    distributed.init_process_group(
        "gloo", init_method=f"file://{results / name}.meeting", rank=rank, world_size=WORLD
    )
    written = TRAININGS[name](Corpus.open(store), folder)
    (results / f"{name}-{rank}.json").write_text(json.dumps(written))
    distributed.destroy_process_group()


def main() -> None:
    """Run all trainings of a job, one after the other."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    codes = {}
    for name in job["trainings"]:
        jobs = [
            functools.partial(run_rank, name, Path(job["store"]), Path(job["results"]), rank)
            for rank in range(WORLD)
        ]
        codes[name] = ended([forked(rank) for rank in jobs])
    (Path(job["results"]) / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main()
