"""Frameworks that take a loader train on each row once an epoch, and resume where they were."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import cli_process, shard_builder

from voxblink2_lib.training import Corpus, ShuffleSampler

WORLD = 2
EPOCHS = 3
BATCHES = 5  # of a rank in an epoch
ROWS = 35
WORKER = Path(__file__).parents[1] / "support" / "framework_worker.py"
TRAININGS = ("accelerate", "trainer", "lightning", "SIGTERM", "SIGUSR1")
Batches = list[list[int]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frameworks") / "shards"
    folder.mkdir()
    clips = [shard_builder.clip(row, data=b"not read") for row in range(ROWS)]
    shard_builder.seal(folder / "0.arrow", clips)
    return folder


class Results:
    """What both ranks of each training wrote."""

    def __init__(self, folder: Path, errors: str) -> None:
        self._folder = folder
        self._errors = errors

    def of(self, training: str) -> list[dict[str, Any]]:
        codes = json.loads((self._folder / "codes.json").read_text())
        assert codes[training] == [0, 0], self._errors
        paths = [self._folder / f"{training}-{rank}.json" for rank in range(WORLD)]
        return [json.loads(path.read_text()) for path in paths]


@pytest.fixture(scope="module")
def results(store: Path) -> Results:
    folder = store.parent / "results"
    folder.mkdir()
    job = folder / "job.json"
    words = {"store": str(store), "results": str(folder), "trainings": TRAININGS}
    job.write_text(json.dumps(words))
    with open(folder / "errors", "w+") as errors:
        done = subprocess.run(
            [sys.executable, WORKER, job],
            stdout=errors,
            stderr=errors,
            env=cli_process.environment({"PYTHONPATH": str(WORKER.parents[1])}),
            timeout=3 * cli_process.DEADLINE_SECONDS,
            check=False,
        )
        errors.seek(0)
        text = errors.read()
    assert done.returncode == 0, text
    return Results(folder, text)


@pytest.fixture(scope="module")
def expected(store: Path) -> list[Batches]:
    """The batches of each rank, of all epochs."""
    corpus = Corpus.open(store)
    ranks = []
    for rank in range(WORLD):
        sampler = ShuffleSampler(corpus, batch_size=4, seed=3, rank=rank, world_size=WORLD)
        batches: Batches = []
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            batches += [list(map(int, batch)) for batch in sampler]
        ranks.append(batches)
    return ranks


def test_what_is_expected_has_each_row_once_an_epoch(expected: list[Batches]) -> None:
    assert [len(batches) for batches in expected] == [EPOCHS * BATCHES] * WORLD
    epochs = []
    for epoch in range(EPOCHS):
        part = slice(epoch * BATCHES, (epoch + 1) * BATCHES)
        rows = [row for batches in expected for batch in batches[part] for row in batch]
        assert sorted(rows) == list(range(ROWS))
        epochs.append(rows)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@pytest.mark.parametrize("training", ["accelerate", "trainer", "lightning"])
def test_each_rank_trains_on_its_batches(
    training: str, results: Results, expected: list[Batches]
) -> None:
    for rank, written in enumerate(results.of(training)):
        assert written["whole"] == expected[rank]


@pytest.mark.parametrize(
    ("training", "saved", "batches"),
    [
        *(("accelerate", batches, batches) for batches in (2, 5, 8)),
        *(("lightning", batches, batches) for batches in (2, 5, 8)),
        # Of three updates an epoch, the first two take two batches.
        *(("trainer", updates, batches) for updates, batches in ((2, 4), (3, 5), (5, 9))),
    ],
)
def test_a_training_resumes_at_the_next_batch(
    training: str, saved: int, batches: int, results: Results, expected: list[Batches]
) -> None:
    for rank, written in enumerate(results.of(training)):
        assert written[str(saved)] == expected[rank][batches:]


def test_lightning_resumes_a_loader_by_itself_if_nothing_asks_for_steps(
    results: Results, expected: list[Batches]
) -> None:
    for rank, written in enumerate(results.of("lightning")):
        assert written["without"] == expected[rank][2:]


def test_accumulation_of_accelerate_ends_an_epoch_with_a_step(results: Results) -> None:
    for written in results.of("accelerate"):
        assert written["synced"] == EPOCHS * [False, True, False, True, True]
        assert written["steps_left"] == list(reversed(range(EPOCHS * BATCHES)))


def test_batches_that_accelerate_skips_are_skipped_once(
    results: Results, expected: list[Batches]
) -> None:
    for rank, written in enumerate(results.of("accelerate")):
        assert written["skipped"] == expected[rank][BATCHES + 1 :]


def test_a_prepared_loader_counts_damage(results: Results, expected: list[Batches]) -> None:
    for rank, written in enumerate(results.of("accelerate")):
        first = expected[rank][:BATCHES]
        batches = [{"rows": [row for row in batch if row != 7]} for batch in first]
        assert written["damaged"] == {
            "batches": batches,
            "damaged": [7] if 7 in itertools.chain(*first) else [],
            "others": batches[1:],
        }


def test_what_would_be_dealt_twice_or_not_at_all_is_refused(results: Results) -> None:
    for rank, written in enumerate(results.of("accelerate")):
        dealt_twice, to_all = written["refused"]
        assert "something is about to deal them out once more" in dealt_twice
        assert "Make a TrainingLoader(dataset, sampler) without rank and world_size" in dealt_twice
        assert to_all == (
            f"The sampler was made for rank 0 of 1; this process is {rank} of 2. "
            "Leave out rank and world_size."
        )


def test_a_trainer_that_would_count_other_steps_is_refused(results: Results) -> None:
    for written in results.of("trainer"):
        assert written["refused"].startswith(
            "The checkpoint was saved with other numbers: batches of a step 2, now 1. A trainer "
            "counts steps"
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_a_process_group_leaves_time_to_save(
    number: signal.Signals, results: Results
) -> None:
    first, second = results.of(number.name)
    assert (first["received"], second["received"]) == (True, False)
    assert first["step"] == second["step"] == 40
    assert first["batches"] >= BATCHES
