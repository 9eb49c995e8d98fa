"""Workers decode into memory again that the training loop has dropped, and into no other."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from support import shard_builder
from torch import Tensor
from torch.utils import data

from voxblink2_lib.training import (
    Corpus,
    Example,
    ShuffleSampler,
    TrainingLoader,
    UtteranceDataset,
    collate,
    lent_memory,
)
from voxblink2_lib.training.lent_memory import NOTHING_KNOWN, KnownBlocks, LentMemory

ROWS, SAMPLES = 40, 200


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> LentMemory:
    """The memory of a worker that lends."""
    monkeypatch.setattr(data, "get_worker_info", lambda: "a worker")
    memory = LentMemory()
    memory.lend({}, NOTHING_KNOWN)
    return memory


def sent(
    memory: LentMemory, rows: int = ROWS, samples: int = SAMPLES, known: int = NOTHING_KNOWN
) -> tuple[int, Tensor]:
    """Return the address of a batch of a worker, and the batch in the main process."""
    batch = memory.empty(rows, samples).fill_(1.5)
    message = ForkingPickler.dumps(memory.lend({"waveforms": batch}, known))
    return batch.data_ptr(), pickle.loads(message)["waveforms"]


def test_a_block_is_used_again_when_its_tensor_is_dropped(memory: LentMemory) -> None:
    first, batch = sent(memory)
    assert batch.shape == (ROWS, SAMPLES)
    assert batch.eq(1.5).all()
    second, other = sent(memory)
    assert second != first
    del batch
    assert sent(memory)[0] == first
    assert other.eq(1.5).all()


@pytest.mark.parametrize("view", [lambda x: x[3], lambda x: x.numpy(), lambda x: x.T.detach()])
def test_a_view_keeps_its_block(view: Any, memory: LentMemory) -> None:
    first, batch = sent(memory)
    kept = view(batch)
    del batch
    assert sent(memory)[0] != first
    del kept
    assert sent(memory)[0] == first


def test_a_loop_that_keeps_everything_gets_new_memory(memory: LentMemory) -> None:
    kept = [sent(memory) for _ in range(20)]
    assert len({address for address, _ in kept[:8]}) == 8
    assert len(memory._blocks) == 8
    for number, (_, batch) in enumerate(kept):
        batch.fill_(number)
    assert [float(batch.mean()) for _, batch in kept] == [*map(float, range(20))]


def test_a_smaller_batch_fits_a_larger_block(memory: LentMemory) -> None:
    first = sent(memory)[0]
    assert sent(memory, ROWS - 1)[0] == first
    assert sent(memory, ROWS + 1)[0] != first


def test_a_block_that_was_not_sent_is_not_used_again(memory: LentMemory) -> None:
    left = memory.empty(ROWS, SAMPLES)
    assert sent(memory)[0] != left.data_ptr()


def test_small_tensors_are_copied(memory: LentMemory) -> None:
    labels = torch.arange(5)
    message = ForkingPickler.dumps(memory.lend({"labels": labels, "damaged": []}, NOTHING_KNOWN))
    batch = pickle.loads(message)
    assert torch.equal(batch["labels"], labels)
    assert batch["damaged"] == []
    batch["labels"][0] = 7
    assert labels[0] == 0


def test_a_known_block_is_not_handed_over_again(
    memory: LentMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = KnownBlocks()
    for rows in (ROWS, ROWS, ROWS - 1):
        address, batch = sent(memory, rows, known=blocks.number)
        assert batch.shape == (rows, SAMPLES)
        assert batch.eq(1.5).all()
        with monkeypatch.context() as patched:  # a block that is handed over fails
            patched.setattr(torch.UntypedStorage, "_share_fd_cpu_", None)
            del batch
            assert sent(memory, rows, known=blocks.number)[0] == address
    assert len(blocks) == len(memory._blocks) == 1
    _, kept = sent(memory, known=blocks.number)
    del blocks
    assert kept.eq(1.5).all()  # the last batch of a pass outlives it


# -- Loaders ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Forty utterances of a second."""
    folder = tmp_path_factory.mktemp("shards")
    sound = [shard_builder.clip(row, frames=25, audio_format="flac") for row in range(40)]
    shard_builder.seal(folder / "0.arrow", sound)
    return Corpus.open(folder)


def loader(
    corpus: Corpus, workers: int, kind: type[UtteranceDataset] = UtteranceDataset, **options: Any
) -> TrainingLoader:
    sampler = ShuffleSampler(corpus, batch_size=2, seed=3)
    dataset = kind(corpus, crop_seconds=0.5)
    return TrainingLoader(dataset, sampler, num_workers=workers, **options)


def copies(batches: Iterator[Any]) -> list[dict[str, Tensor]]:
    return [{name: value.clone() for name, value in batch.items()} for batch in batches]


def test_batches_of_workers_are_those_of_this_process(corpus: Corpus) -> None:
    expected = copies(iter(loader(corpus, 0)))
    dropped, kept = copies(iter(loader(corpus, 2))), list(loader(corpus, 2))
    gc.collect()
    for batches in (dropped, kept):
        assert len(batches) == len(expected) == 20
        for batch, own in zip(batches, expected, strict=True):
            assert list(batch) == list(own)
            assert all(torch.equal(batch[name], own[name]) for name in own)


class _Keeps(UtteranceDataset):
    """What people derive: examples that are kept for later epochs."""

    kept: list[Any]

    def __getitems__(self, rows: Any) -> Any:
        examples = super().__getitems__(rows)
        self.kept = [*getattr(self, "kept", []), *examples]
        return examples


def _first_of_all(examples: Any) -> Any:
    return collate(examples), examples[0]


@pytest.mark.parametrize(
    ("kind", "options"),
    [(_Keeps, {}), (UtteranceDataset, {"collate_fn": _first_of_all})],
)
def test_where_others_see_examples_no_memory_is_lent(
    kind: type[UtteranceDataset], options: dict[str, Any], corpus: Corpus
) -> None:
    dataset = kind(corpus, crop_seconds=0.5)
    of = loader(corpus, 1, kind, **options)
    collator: Any = of.collate_fn
    assert not collator._lends
    for batch in of:
        values = batch[0] if isinstance(batch, tuple) else batch
        row = int(values["rows"][0])
        example = dataset[row]
        assert isinstance(example, Example)
        assert len(values["waveforms"][0]) == len(example.waveform)


def test_blocks_are_forgotten_when_their_pass_ends(corpus: Corpus) -> None:
    before = len(lent_memory._KNOWN)
    of, kept = loader(corpus, 2), loader(corpus, 2, persistent_workers=True)
    for either in (of, kept):
        batches = iter(either)
        next(batches)
        batches.close()  # type: ignore[attr-defined]  # a generator
    assert len(lent_memory._KNOWN) == before + 1
    expected = copies(iter(of))  # the rest of the epoch
    assert len(expected) == 19
    for batch, own in zip(copies(iter(kept)), expected, strict=True):
        assert all(torch.equal(batch[name], own[name]) for name in own)
    del batches, either, kept
    gc.collect()
    assert len(lent_memory._KNOWN) == before


def test_a_loader_that_is_copied_knows_blocks_of_its_own(corpus: Corpus) -> None:
    of = loader(corpus, 1, persistent_workers=True)
    copied = copy.deepcopy(of)
    del of
    expected = copies(iter(loader(corpus, 0)))
    for batch, own in zip(copies(iter(copied)), expected, strict=True):
        assert all(torch.equal(batch[name], own[name]) for name in own)


def test_another_reader_with_this_collate_function_is_handed_every_block(corpus: Corpus) -> None:
    of = loader(corpus, 1)
    first = copies(iter(of))
    of.set_epoch(0)
    again = data.DataLoader(
        of.dataset, batch_sampler=of.order.whole(), collate_fn=of.collate_fn, num_workers=1
    )
    for batch, own in zip(copies(iter(again)), first, strict=True):
        assert all(torch.equal(batch[name], own[name]) for name in own)
