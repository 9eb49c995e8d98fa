"""Workers that are spawned map the rows of a selection; whoever saves one saves its rows."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from multiprocessing import context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import corpus_builder

from voxblink2_lib.training import Corpus, UtteranceDataset
from voxblink2_lib.training.shared_array import SharedArray

VALUES = np.arange(1_000_000, dtype=np.int32)


def _report(corpus: Corpus, queue: Any) -> None:
    rows = corpus._rows
    assert rows is not None
    queue.put((type(rows).__name__, rows.dtype.str, len(corpus), int(rows.sum()), corpus.place(7)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_new_process_maps_the_rows_of_a_selection(method: str) -> None:
    corpus = corpus_builder.corpus(np.arange(50)).select(np.arange(49, -1, -1))
    spawning = multiprocessing.get_context(method)
    queue = spawning.SimpleQueue()
    process = spawning.Process(target=_report, args=(corpus, queue))  # type: ignore[attr-defined]  # every context has it
    process.start()
    try:
        assert queue.get() == ("memmap", "<i4", 50, 1225, corpus.place(7))
    finally:
        process.join()


class _Spawning:
    """What multiprocessing has while it pickles for a new process."""

    def duplicate_for_child(self, handle: int) -> int:
        """Return the handle that the new process has."""
        return handle

    class DupFd:
        """A handle in the new process."""

        def __init__(self, handle: int) -> None:
            self.handle = handle

        def detach(self) -> int:
            """Return the handle, which is then of whoever called this."""
            return os.dup(self.handle)


def test_all_workers_are_given_the_same_file_and_not_the_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    array = SharedArray(VALUES)
    saved = pickle.dumps(array)
    monkeypatch.setattr(context, "get_spawning_popen", _Spawning)
    (make, first), (_, second) = array.__reduce__(), array.__reduce__()
    assert first[0].handle == second[0].handle
    assert first[1:] == ("<i4", (1_000_000,))
    monkeypatch.undo()
    mapped = make(*first).values
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, VALUES)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1
    assert np.array_equal(pickle.loads(saved).values, VALUES)
    assert len(saved) > VALUES.nbytes


def test_where_no_file_can_be_made_the_values_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(context, "get_spawning_popen", _Spawning)
    make, arguments = SharedArray(VALUES).__reduce__()
    assert make(*arguments).values is VALUES


def test_a_selection_of_a_selection_is_one_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "audio.arrow"
    corpus_builder.large_catalogue(4, 5).write(path)
    catalogue = type(corpus_builder.large_catalogue(1, 1)).read(path)
    corpus = Corpus(catalogue, Path("nowhere")).select(np.arange(20) % 2 == 0).select([9, 0])
    again = pickle.loads(pickle.dumps(corpus))
    for each in (corpus, again):
        assert [each.place(row).row for row in range(2)] == [18, 0]
        assert each.speakers == ["id000000", "id000003"]
        assert each.speaker.tolist() == [1, 0]
        assert each.stored_rows.tolist() == [1, 0]
        assert each.by_speaker.tolist() == [1, 0]


def test_a_new_process_is_sent_no_array_of_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audio.arrow"
    corpus_builder.large_catalogue(100, 1_000).write(path)
    catalogue = type(corpus_builder.large_catalogue(1, 1)).read(path)
    corpus = Corpus(catalogue, Path("nowhere")).select(np.arange(100_000)[::-1])
    dataset = UtteranceDataset(corpus, crop_seconds=1.0)
    monkeypatch.setattr(context, "get_spawning_popen", _Spawning)
    assert len(pickle.dumps(dataset)) < 10_000
