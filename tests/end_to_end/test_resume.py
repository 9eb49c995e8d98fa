"""Ranks that are killed and go on hear what undisturbed ones do; other loaders keep the order."""

from __future__ import annotations

import itertools
import json
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support import cli_process, ddp_worker
from support.ddp_worker import EPOCHS, ORDERS, Run, written

from voxblink2_lib.training import Corpus, TrainingLoader, UtteranceDataset, collate

WORLDS = (1, 2, 4)
WORKERS = (0, 1, 3)
# When all ranks are killed, first and then again: in steps of the run that is killed, as a function
# of the number of steps of an epoch; and whether the state after the last step was saved.
KILLS: dict[str, Callable[[int], list[tuple[int, bool]]]] = {
    "first batch": lambda steps: [(1, True), (steps // 2 + 1, False)],
    "last batch": lambda steps: [(steps, True)],
    "second epoch": lambda steps: [(steps // 2 + 1, True), (steps, True)],
    "before the last batch is saved": lambda steps: [(steps, False), (steps + 1, False)],
}
CASES = [
    (order, world, workers, list(KILLS)[number % len(KILLS)])
    for number, (order, world, workers) in enumerate(
        # Each kind of kill meets each number of workers and of ranks.
        itertools.product(ORDERS, WORLDS, WORKERS)
    )
]
CHANGES = [(4, 1), (1, 4), (2, 3), (3, 2)]


class Results:
    """What the ranks of all trainings wrote."""

    def __init__(self, folder: Path, steps: dict[tuple[str, int], int]) -> None:
        self.folder = folder
        self.steps = steps

    def lines(self, name: str, rank: int) -> list[Any]:
        """Return the batches of a rank, over all runs of a training."""
        path = self.folder / name / f"{rank}.lines"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def store(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shards, beside which a catalogue may be made."""
    folder = tmp_path_factory.mktemp("resume") / "store"
    shutil.copytree(undisturbed / "shards", folder / "shards")
    return folder


@pytest.fixture(scope="module")
def noises(store: Path) -> Path:
    """Three noises, longer and shorter than a crop."""
    folder = store.parent / "noises"
    folder.mkdir()
    for number, samples in enumerate((3_000, 16_000, 40_000)):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, samples)
        soundfile.write(folder / f"{number}.wav", noise, 16_000)
    return folder


@pytest.fixture(scope="module")
def dataset(store: Path, noises: Path) -> UtteranceDataset:
    return ddp_worker.dataset_of(store, noises)


@pytest.fixture(scope="module")
def results(dataset: UtteranceDataset, store: Path, noises: Path) -> Results:
    """All trainings of this file, undisturbed and killed."""
    folder = store.parent / "results"
    folder.mkdir()
    worlds = sorted({*WORLDS, *itertools.chain(*CHANGES)})
    steps = {
        (order, world): len(ORDERS[order](dataset.corpus, 0, world))
        for order, world in itertools.product(ORDERS, worlds)
    }
    planned = list(_plan(steps))
    job = folder / "job.json"
    job.write_text(
        json.dumps(
            {
                "results": str(folder),
                "store": str(store),
                "noises": str(noises),
                "runs": planned,
                "accelerated": 2,
            }
        )
    )
    # Into a file: a pipe would be waited for until the last process that has it is gone.
    with open(folder / "errors", "w+") as errors:
        done = subprocess.run(
            [sys.executable, ddp_worker.__file__, job],
            stdout=errors,
            stderr=errors,
            env=cli_process.environment(),
            timeout=cli_process.DEADLINE_SECONDS,
            check=False,
        )
        errors.seek(0)
        assert done.returncode == 0, errors.read()
        codes = json.loads((folder / "codes.json").read_text())
        for run, exit_codes in zip([*planned, None], codes, strict=True):
            dies = run is not None and run.steps is not None
            assert set(exit_codes) == {-signal.SIGKILL if dies else 0}, (run, errors.read())
    return Results(folder, steps)


def _plan(steps: dict[tuple[str, int], int]) -> Iterator[Run]:
    for order, world in itertools.product(ORDERS, WORLDS):
        yield Run(f"{order}-{world}", order, world, 0)
    for order, world, workers, kill in CASES:
        name = f"{order}-{world}-{workers}"
        # A restart has another number of workers.
        first = WORKERS.index(workers)
        others = itertools.cycle(WORKERS[first:] + WORKERS[:first])
        for killed_after, saves_last in KILLS[kill](steps[order, world]):
            yield Run(name, order, world, next(others), killed_after, saves_last)
        yield Run(name, order, world, next(others))
    for before, after in CHANGES:
        name = f"change-{before}-{after}"
        yield Run(name, "shuffle", before, 0, max(1, steps["shuffle", before] // 2))
        yield Run(name, "shuffle", after, 1)


@pytest.mark.parametrize(("order", "world", "workers", "kill"), CASES)
def test_ranks_that_were_killed_go_on_to_the_bit(
    order: str, world: int, workers: int, kill: str, results: Results
) -> None:
    for rank in range(world):
        expected = results.lines(f"{order}-{world}", rank)
        assert len(expected) == EPOCHS * results.steps[order, world]
        assert results.lines(f"{order}-{world}-{workers}", rank) == expected


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_compared_is_random_in_all_its_parts(order: str, results: Results) -> None:
    # Otherwise the test above would show little: speeds, crops and noises differ between epochs.
    lines = results.lines(f"{order}-1", 0)
    steps = results.steps[order, 1]
    epochs = [list(itertools.chain(*lines[at : at + steps])) for at in (0, steps)]
    assert [row for row, *_ in epochs[0]] != [row for row, *_ in epochs[1]]
    labels = [label for _, label, _ in epochs[0]]
    assert {label // 8 for label in labels} == {0, 1, 2}  # three speeds of eight speakers
    sums = [digest for *_, digest in itertools.chain(*epochs)]
    assert len(set(sums)) == len(sums)


@pytest.mark.parametrize("order", ["shuffle", "balanced", "bucket"])
def test_an_utterance_sounds_the_same_whatever_the_number_of_ranks(
    order: str, results: Results
) -> None:
    examples = [
        sorted(
            itertools.chain(
                *(
                    itertools.chain(*results.lines(f"{order}-{world}", rank))
                    for rank in range(world)
                )
            )
        )
        for world in WORLDS
    ]
    assert examples[0] == examples[1] == examples[2]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_another_number_of_ranks_goes_on_with_what_was_not_used(
    before: int, after: int, results: Results
) -> None:
    lines = [
        line
        for rank in range(max(before, after))
        for line in results.lines(f"change-{before}-{after}", rank)
    ]
    # Two epochs, each with every utterance once, and all as they are for one rank.
    expected = list(itertools.chain(*results.lines("shuffle-1", 0)))
    assert len(expected) == 2 * 48
    assert sorted(itertools.chain(*lines)) == sorted(expected)


# -- Loaders of others -----------------------------------------------------------------------------


def _stateful(dataset: UtteranceDataset, order: str, workers: int) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(
        dataset,
        batch_sampler=ORDERS[order](dataset.corpus, 0, 1),
        num_workers=workers,
        collate_fn=collate,
    )


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # of torch, in torchdata
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("order", ORDERS)
def test_a_stateful_loader_goes_on_to_the_bit(
    order: str, workers: int, dataset: UtteranceDataset, results: Results
) -> None:
    expected = results.lines(f"{order}-1", 0)
    steps = results.steps[order, 1]
    loader = _stateful(dataset, order, workers)
    states, batches = [], []
    for batch in loader:
        batches.append(written(batch))
        states.append(pickle.dumps(loader.state_dict()))
    assert batches == expected[:steps]
    for done in (1, steps // 2, steps - 1):
        other = _stateful(dataset, order, workers)
        other.load_state_dict(pickle.loads(states[done - 1]))
        assert [written(batch) for batch in other] == expected[done:steps]
        assert [written(batch) for batch in other] == expected[steps:]
    # In the same loader, too.
    loader.load_state_dict(pickle.loads(states[0]))
    assert [written(batch) for batch in loader] == expected[1:steps]
    assert [written(batch) for batch in loader] == expected[steps:]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # of torch, in torchdata
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_saved_at_the_end_of_an_epoch_goes_on_with_the_next(
    workers: int, dataset: UtteranceDataset, results: Results
) -> None:
    expected = results.lines("shuffle-1", 0)
    loader = _stateful(dataset, "shuffle", workers)
    for _ in loader:
        pass
    other = _stateful(dataset, "shuffle", workers)
    other.load_state_dict(pickle.loads(pickle.dumps(loader.state_dict())))
    assert [written(batch) for batch in other] == expected[results.steps["shuffle", 1] :]


@pytest.fixture
def accelerator() -> Iterator[Any]:
    """An accelerator of one process, which leaves no state in the tests' process."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_prepared_loader_of_one_process_has_the_same_batches(
    workers: int, accelerator: Any, dataset: UtteranceDataset, results: Results
) -> None:
    loader = accelerator.prepare(
        TrainingLoader(dataset, ORDERS["shuffle"](dataset.corpus, 0, 1), num_workers=workers)
    )
    batches = [written(batch) for _ in range(EPOCHS) for batch in loader]
    assert batches == results.lines("shuffle-1", 0)


def test_a_sampler_is_saved_and_restored_with_the_checkpoints_of_accelerate(
    accelerator: Any, dataset: UtteranceDataset, tmp_path: Path, results: Results
) -> None:
    expected = results.lines("shuffle-1", 0)
    sampler = ORDERS["shuffle"](dataset.corpus, 0, 1)
    loader = TrainingLoader(dataset, sampler)  # not prepared: its state counts what was used
    accelerator.register_for_checkpointing(sampler)
    for _ in itertools.islice(loader, 4):
        pass
    accelerator.save_state(str(tmp_path))
    saved = sampler.state_dict()
    for _ in loader:
        pass
    assert sampler.epoch == 1
    accelerator.load_state(str(tmp_path))
    assert sampler.state_dict() == saved
    assert saved == {"seed": 3, "epoch": 0, "position": 4, "order": "full"}
    batches = [written(batch) for _ in range(EPOCHS) for batch in loader]
    assert batches == expected[4:]


def _of_accelerate(results: Results, name: str) -> list[list[list[list[int]]]]:
    """Return the rows of both processes: for each its epochs, their batches."""
    return [
        json.loads((results.folder / f"accelerate-{rank}.json").read_text())[name]
        for rank in (0, 1)
    ]


@pytest.mark.parametrize("order", ORDERS)
def test_processes_of_accelerate_share_an_epoch(
    order: str, dataset: UtteranceDataset, results: Results
) -> None:
    for rank, epochs in enumerate(_of_accelerate(results, order)):
        sampler = ORDERS[order](dataset.corpus, rank, 2)
        expected = []
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            expected.append([list(map(int, batch)) for batch in sampler])
        assert epochs == expected


def test_the_stores_of_these_tests_have_what_they_count_on(store: Path) -> None:
    corpus = Corpus.open(store)
    assert (len(corpus), len(corpus.speakers)) == (48, 8)
