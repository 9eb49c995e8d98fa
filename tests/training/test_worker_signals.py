"""Workers of a loader end with their parent, and not by a signal to the whole group."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from support import cli_process, shard_builder
from torch.utils import data

from voxblink2_lib.training import Corpus, ShuffleSampler, TrainingLoader
from voxblink2_lib.training.worker_signals import WorkerStart, signals_held


def _send_signals_to_oneself(connection: Connection) -> None:
    started: list[int] = []
    WorkerStart(started.append)(3)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        os.kill(os.getpid(), number)
    while signal.SIGTERM in signal.sigpending():  # another one meanwhile would be lost
        os.sched_yield()
    connection.send(started)
    connection.recv()  # nothing comes


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_worker_obeys_its_parent_only(method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    here, there = context.Pipe()
    worker = context.Process(target=_send_signals_to_oneself, args=(there,), daemon=True)
    with signals_held(method):
        worker.start()
    assert here.poll(cli_process.DEADLINE_SECONDS)
    assert here.recv() == [3]
    assert worker.is_alive()
    worker.terminate()
    worker.join(cli_process.DEADLINE_SECONDS)
    assert worker.exitcode == 0


def test_signals_that_are_held_come_afterwards() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: received.append(number))
    try:
        with signals_held():
            # To this thread: another one of this process would take what is sent to the process.
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            assert received == []
        assert received == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


class _Numbers(data.Dataset[int]):
    """Examples that are the rows themselves."""

    def __getitem__(self, row: int) -> int:
        return int(row)


def _be_killed_amid_an_epoch(corpus: Corpus, here: Connection, there: Connection) -> None:
    here.close()
    sampler = ShuffleSampler(corpus, batch_size=1)
    for _ in TrainingLoader(_Numbers(), sampler, num_workers=2, collate_fn=list):
        there.send(len(multiprocessing.active_children()))
        os.kill(os.getpid(), signal.SIGKILL)


def test_workers_end_when_their_parent_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers look every five seconds whether their parent is still there; here more often.
    monkeypatch.setattr("torch.utils.data._utils.worker.MP_STATUS_CHECK_INTERVAL", 0.1)
    shard_builder.seal(tmp_path / "0.arrow", [shard_builder.clip(0), shard_builder.clip(1)])
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    parent = context.Process(
        target=_be_killed_amid_an_epoch, args=(Corpus.open(tmp_path), here, there)
    )
    parent.start()
    there.close()
    assert here.poll(cli_process.DEADLINE_SECONDS)
    assert here.recv() == 2
    parent.join(cli_process.DEADLINE_SECONDS)
    assert parent.exitcode == -signal.SIGKILL
    # The end of the pipe: workers have its other side as well.
    assert here.poll(cli_process.DEADLINE_SECONDS)
    with pytest.raises(EOFError):
        here.recv()
