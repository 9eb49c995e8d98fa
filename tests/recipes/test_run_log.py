"""The log has each step once, whatever was killed; waiting is counted as waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from voxblink2_lib.recipes.run_log import Meter, RunLog


def steps(log: RunLog) -> list[int]:
    return [record["step"] for record in log.records()]


def test_a_resumed_run_continues_the_log_at_its_checkpoint(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    assert log.records() == []
    log.append("score", 0, eer=0.4)
    for step in (20, 40, 60):
        log.append("train", step, loss=1.5)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"kind": "train", "st')  # as a kill leaves it
    assert steps(log) == [0, 20, 40, 60]
    log.rewind(40)
    log.append("train", 60, loss=1.25)
    assert steps(log) == [0, 20, 40, 60]
    assert [record["loss"] for record in log.records("train")] == [1.5, 1.5, 1.25]
    assert [record["eer"] for record in log.records("score", "final")] == [0.4]


def test_the_scores_of_an_end_come_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    log.append("train", 20, loss=1.0)
    log.append("final", 20, eer=0.1)
    log.rewind(20)
    assert [record["kind"] for record in log.records()] == ["train"]
    log.rewind(-1)
    assert log.records() == []


def test_the_meter_counts_the_time_without_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def batches() -> Iterator[str]:
        for name in "ab":
            now[0] += 3
            yield name

    meter = Meter()
    meter.restart()
    for _ in meter.timed(batches()):
        now[0] += 1
        meter.count(2.0, 64)
    assert meter.summary() == {
        "loss": 2.0,
        "utterances_per_second": pytest.approx(16.0),
        "waiting": pytest.approx(0.75),
    }
    meter.restart()
    now[0] += 1
    assert meter.summary()["utterances_per_second"] == 0
