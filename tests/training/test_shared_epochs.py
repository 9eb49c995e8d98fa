"""Ranks of one machine map one file with the order of a large epoch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import corpus_builder
from support.corpus_builder import Make, keyed

from voxblink2_lib.store.catalogue import Catalogue
from voxblink2_lib.training import Corpus, EpochSampler, epoch_sampler, shared_epochs
from voxblink2_lib.training.shared_epochs import Epoch, shared_epoch

MAKES: dict[str, Make] = {
    "full": corpus_builder.shuffle(32),
    "mixed": corpus_builder.shuffle(32, order="mixed-20"),
    "speakers": corpus_builder.by_speaker(8, 3),
    "balanced": corpus_builder.balanced(32),
    "buckets": corpus_builder.bucket(40.0, 6),
}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """A corpus with a file, for which orders are shared though it is small."""
    path = tmp_path / "audio.arrow"
    corpus_builder.large_catalogue(40, 20, rows_per_shard=300).write(path)
    monkeypatch.setattr(epoch_sampler, "_LEAST_SHARED_ROWS", 1)
    return Corpus(Catalogue.read(path), Path("nowhere"))


def files() -> list[Path]:
    """Return the files of epochs."""
    return sorted(Path(os.environ["VOXBLINK2_HOME"]).glob("epochs/*.npy"))


def never(*_: Any) -> Epoch:
    """Take the place of a function that must not be called."""
    raise AssertionError("the epoch was made again")


@pytest.mark.parametrize("kind", MAKES)
def test_one_rank_makes_an_epoch_and_the_others_map_it(
    kind: str, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = MAKES[kind](corpus, 3, 0, 1).epoch_batches(0)
    assert not files()
    first, second = (MAKES[kind](corpus, 3, rank, 2) for rank in range(2))
    made = first.epoch_batches(0)
    monkeypatch.setattr(type(second), "_batches", never)
    mapped = second.epoch_batches(0)
    assert len(files()) == 1
    for epoch in (made, mapped):
        assert isinstance(epoch.rows, np.memmap)
        for values, expected in zip(epoch, alone, strict=True):
            assert np.array_equal(values, expected)
    monkeypatch.undo()
    assert keyed(list(second))  # of what is mapped, batches are made as of any other


def test_what_is_of_another_order_is_in_another_file(corpus: Corpus) -> None:
    samplers: list[EpochSampler] = [
        corpus_builder.shuffle(32)(corpus, 0, 0, 2),
        corpus_builder.shuffle(32)(corpus, 0, 1, 2),  # the same, for another rank
        corpus_builder.shuffle(32)(corpus, 0, 2, 3),  # and for another number of ranks
        corpus_builder.shuffle(32)(corpus, 1, 0, 2),
        corpus_builder.shuffle(31)(corpus, 0, 0, 2),
        corpus_builder.shuffle(32, order="mixed-9")(corpus, 0, 0, 2),
        corpus_builder.balanced(32)(corpus, 0, 0, 2),
        corpus_builder.shuffle(32)(corpus.select(np.arange(799)), 0, 0, 2),
        corpus_builder.shuffle(32)(corpus.select(np.arange(1, 800)), 0, 0, 2),
    ]
    for sampler in samplers:
        sampler.epoch_batches(0)
    assert len(files()) == len(samplers) - 2


def test_a_corpus_with_a_new_catalogue_has_another_identity(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "audio.arrow"
    corpus_builder.large_catalogue(20, 40, rows_per_shard=300).write(path)
    later = Corpus(Catalogue.read(path), Path("nowhere"))
    assert len(later) == len(corpus)
    assert later.identity != corpus.select(np.arange(800)).identity


def test_only_the_latest_epochs_are_kept_and_one_that_is_mapped_stays_readable(
    corpus: Corpus,
) -> None:
    sampler = MAKES["full"](corpus, 0, 0, 2)
    first = sampler.epoch_batches(0)
    rows = np.array(first.rows)
    for epoch in range(1, 12):
        sampler.epoch_batches(epoch)
    assert len(files()) == shared_epochs._KEPT
    assert np.array_equal(first.rows, rows)


def _epoch() -> Epoch:
    return Epoch(np.arange(10, dtype=np.int32), np.array([0, 4, 10]))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_made_again(damage: str) -> None:
    shared_epoch("a", _epoch)
    (path,) = files()
    content = bytearray(path.read_bytes())
    content[140] ^= 1
    damaged: dict[str, bytes | bytearray] = {"cut": content[:150], "flipped": content, "empty": b""}
    damaged["text"] = b"not an array"
    path.write_bytes(damaged[damage])
    assert np.array_equal(shared_epoch("a", _epoch).rows, np.arange(10))
    assert np.array_equal(shared_epoch("a", never).rows, np.arange(10))


def test_where_no_file_can_be_written_each_rank_makes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "file"
    home.touch()  # where a folder should be
    monkeypatch.setenv("VOXBLINK2_HOME", str(home))
    assert np.array_equal(shared_epoch("a", _epoch).rows, np.arange(10))


def test_a_full_disk_leaves_no_part_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(file: Any, values: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", save)
    assert np.array_equal(shared_epoch("a", _epoch).rows, np.arange(10))
    assert not files()
    assert not list(Path(os.environ["VOXBLINK2_HOME"]).glob("epochs/.*.tmp"))
