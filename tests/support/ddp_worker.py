"""Ranks of a training run as processes that are killed and restarted.

    python tests/support/ddp_worker.py JOB.json

One process loads torch and the library and forks all ranks, so that hundreds of them are cheap.
Ranks do not train: they write their batches to a file, and save the state of their loader.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed

from voxblink2_lib.training import (
    AddNoise,
    BalancedSampler,
    BucketSampler,
    Corpus,
    EpochSampler,
    ShuffleSampler,
    SpeakerLabels,
    SpeakerSampler,
    TrainingLoader,
    UtteranceDataset,
)

EPOCHS = 2
# From (corpus, rank, world_size).
ORDERS: dict[str, Callable[[Corpus, int | None, int | None], EpochSampler]] = {
    "shuffle": lambda corpus, rank, world: ShuffleSampler(
        corpus, batch_size=5, seed=3, rank=rank, world_size=world
    ),
    "speaker": lambda corpus, rank, world: SpeakerSampler(
        corpus, speakers=2, utterances=2, seed=3, rank=rank, world_size=world
    ),
    "balanced": lambda corpus, rank, world: BalancedSampler(
        corpus, batch_size=5, seed=3, rank=rank, world_size=world
    ),
    "bucket": lambda corpus, rank, world: BucketSampler(
        corpus,
        batch_seconds=5 * float(corpus.samples.max()) / 16_000,
        buckets=4,
        seed=3,
        rank=rank,
        world_size=world,
    ),
}


class Run(NamedTuple):
    """A run of all ranks.

    Attributes:
        name: of the training; each of its runs continues from the state of the one before.
        order: name of the sampler.
        world: number of ranks.
        workers: of each rank's loader.
        steps: number of batches after which all ranks are killed; None for a run to the end.
        saves_last: whether the state after the last of them was saved.
    """

    name: str
    order: str
    world: int
    workers: int
    steps: int | None = None
    saves_last: bool = True


def dataset_of(store: Path, noises: Path) -> UtteranceDataset:
    """Return examples with all that is random: crops, speeds, and noise."""
    corpus = Corpus.open(store)
    labels = SpeakerLabels.of(corpus, speeds=(1.0, 0.9, 1.1))
    return UtteranceDataset(corpus, crop_seconds=0.5, labels=labels, augment=AddNoise(noises))


def written(batch: dict[str, Any]) -> list[Any]:
    """Return what is compared of a batch: row, label and digest of the audio of each example."""
    sums = [
        hashlib.sha256(waveform.numpy().tobytes()).hexdigest() for waveform in batch["waveforms"]
    ]
    return [
        list(waveform)
        for waveform in zip(batch["rows"].tolist(), batch["labels"].tolist(), sums, strict=True)
    ]


def train(
    dataset: UtteranceDataset, run: Run, rank: int, folder: Path, saved: dict[str, int] | None
) -> None:
    """Run a rank: write each batch, and save the state after it, until it ends or is killed."""
    loader = TrainingLoader(
        dataset, ORDERS[run.order](dataset.corpus, rank, run.world), num_workers=run.workers
    )
    if saved is not None:
        loader.load_state_dict(saved)
    state = folder / f"{rank}.state"
    steps = 0
    with open(folder / f"{rank}.lines", "a") as lines:
        while loader.epoch < EPOCHS:
            for batch in loader:
                steps += 1
                dies = steps == run.steps
                if dies and not run.saves_last:
                    os.killpg(0, signal.SIGKILL)
                lines.write(json.dumps(written(batch)) + "\n")
                lines.flush()
                half = state.with_suffix(".half")
                half.write_text(json.dumps(loader.state_dict()))
                half.replace(state)
                if dies:  # with its workers, as a scheduler kills a job
                    os.killpg(0, signal.SIGKILL)


def forked(job: Callable[[], None]) -> int:
    """Run something in a process group of its own; return the process."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setpgid(0, 0)
        job()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(processes: list[int]) -> list[int]:
    """Wait for processes; return their exit codes, negative for signals."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def run_ranks(dataset: UtteranceDataset, run: Run, results: Path) -> list[int]:
    """Run all ranks to their end; return their exit codes."""
    folder = results / run.name
    folder.mkdir(exist_ok=True)
    states = [json.loads(path.read_text()) for path in folder.glob("*.state")]
    assert all(state == states[0] for state in states)  # whatever the rank
    saved = states[0] if states else None
    return ended(
        [
            forked(functools.partial(train, dataset, run, rank, folder, saved))
            for rank in range(run.world)
        ]
    )


# -- Accelerate ------------------------------------------------------------------------------------


def accelerated(dataset: UtteranceDataset, rank: int, world: int, results: Path) -> None:
    """Run one of several processes of accelerate: write the rows of two epochs."""
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"},  # required, but not used
    }
    # Meeting in a file needs no free port.
    distributed.init_process_group(
        "gloo", init_method=f"file://{results / 'meeting'}", rank=rank, world_size=world
    )
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    assert (accelerator.process_index, accelerator.num_processes) == (rank, world)
    rows: dict[str, Any] = {}
    for order, make in ORDERS.items():
        loader = accelerator.prepare(TrainingLoader(dataset, make(dataset.corpus, None, None)))
        rows[order] = [[batch["rows"].tolist() for batch in loader] for _ in range(EPOCHS)]
    (results / f"accelerate-{rank}.json").write_text(json.dumps(rows))
    distributed.destroy_process_group()


def main() -> None:
    """Run a job: all its runs, one after the other."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    results = Path(job["results"])
    dataset = dataset_of(Path(job["store"]), Path(job["noises"]))
    codes = [run_ranks(dataset, Run(*run), results) for run in job["runs"]]
    if job["accelerated"]:
        ranks = range(job["accelerated"])
        codes.append(
            ended(
                [
                    forked(functools.partial(accelerated, dataset, rank, len(ranks), results))
                    for rank in ranks
                ]
            )
        )
    (results / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main()
