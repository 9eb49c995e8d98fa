"""Crops of a batch are decoded into one tensor, which is the batch, and stay right in any list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import shard_builder

from voxblink2_lib.training import (
    Corpus,
    DamagedClip,
    Example,
    SeededRow,
    ShuffleSampler,
    SpeakerLabels,
    TrainingLoader,
    UtteranceDataset,
    collate,
)

ROWS = [SeededRow(row, (1, 2, row)) for row in (3, 0, 2, 1)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Four utterances of a second, a second and a half, and so on."""
    folder = tmp_path_factory.mktemp("shards")
    sound = [shard_builder.clip(row, frames=25 + 12 * row, audio_format="flac") for row in range(4)]
    shard_builder.seal(folder / "0.arrow", sound)
    return Corpus.open(folder)


def singly(dataset: UtteranceDataset) -> dict[str, Any]:
    """Return the batch of examples that were asked for one by one."""
    return collate([dataset[row] for row in ROWS])


def assert_equal(batch: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(batch) == list(expected)
    for name, values in expected.items():
        assert torch.equal(batch[name], values), name


@pytest.mark.parametrize("speeds", [(1.0,), (1.0, 0.9, 1.1)])
@pytest.mark.parametrize("crop_seconds", [0.5, 1.7, None])  # of shorter ones, and whole ones
def test_a_batch_has_the_examples(
    crop_seconds: float | None, speeds: tuple[float, ...], corpus: Corpus
) -> None:
    labels = SpeakerLabels.of(corpus, speeds=speeds)
    dataset = UtteranceDataset(corpus, crop_seconds=crop_seconds, labels=labels)
    assert_equal(collate(dataset.__getitems__(ROWS)), singly(dataset))


def test_crops_are_not_copied(corpus: Corpus) -> None:
    examples = UtteranceDataset(corpus, crop_seconds=0.5).__getitems__(ROWS)
    waveforms = collate(examples)["waveforms"]
    pointers = [item.waveform.data_ptr() for item in examples if isinstance(item, Example)]
    assert [row.data_ptr() for row in waveforms] == pointers


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [0, 1, 2], [0, 1, 1, 3], [2]])
def test_a_list_may_be_changed_before_it_is_a_batch(order: list[int], corpus: Corpus) -> None:
    examples = UtteranceDataset(corpus, crop_seconds=0.5).__getitems__(ROWS)
    examples[:] = [examples[index] for index in order]
    assert_equal(collate(examples), collate(list(examples)))


def test_an_example_may_be_changed_before_it_is_in_a_batch(corpus: Corpus) -> None:
    examples = UtteranceDataset(corpus, crop_seconds=0.5).__getitems__(ROWS)
    first = examples[0]
    assert isinstance(first, Example)
    examples[0] = first._replace(waveform=first.waveform[:100])
    batch = collate(examples)
    assert batch["lengths"].tolist() == [100, 8_000, 8_000, 8_000]
    assert not batch["waveforms"][0, 100:].any()


class _Doubled(UtteranceDataset):
    """What people derive: other examples, by the method that all datasets have."""

    def __getitem__(self, row: int) -> Example | DamagedClip:
        item = super().__getitem__(row)
        assert isinstance(item, Example)
        return item._replace(waveform=2 * item.waveform)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_derived_dataset_is_asked_for_its_examples(workers: int, corpus: Corpus) -> None:
    plain, doubled = (kind(corpus, crop_seconds=0.5) for kind in (UtteranceDataset, _Doubled))
    batches = [
        next(iter(TrainingLoader(dataset, ShuffleSampler(corpus, batch_size=4), num_workers=count)))
        for dataset, count in ((plain, 0), (doubled, workers))
    ]
    assert torch.equal(2 * batches[0]["waveforms"], batches[1]["waveforms"])


def test_an_augmentation_may_give_another_length(corpus: Corpus) -> None:
    def shorter(waveform: Any, _: np.random.Generator) -> Any:
        return waveform[: int(1_000 + 999 * abs(waveform[0]))]

    dataset = UtteranceDataset(corpus, crop_seconds=0.5, augment=shorter)
    assert_equal(collate(dataset.__getitems__(ROWS)), singly(dataset))


def test_damaged_clips_of_a_batch_are_left_out(tmp_path: Path) -> None:
    clips = [
        shard_builder.clip(row, data=b"junk" if row == 2 else None, audio_format="flac")
        for row in range(4)
    ]
    shard_builder.seal(tmp_path / "0.arrow", clips)
    dataset = UtteranceDataset(Corpus.open(tmp_path), crop_seconds=0.5, on_damaged="skip")
    batch, expected = collate(dataset.__getitems__(ROWS)), singly(dataset)
    assert [clip.row for clip in batch.pop("damaged")] == [2]
    assert len(expected.pop("damaged")) == 1
    assert_equal(batch, expected)


# -- What workers hand over ------------------------------------------------------------------------


def _is_shared(examples: Sequence[Any]) -> tuple[torch.Tensor, bool]:
    waveforms = collate(examples)["waveforms"]
    return waveforms, waveforms.is_shared()


def test_a_worker_decodes_into_shared_memory(corpus: Corpus) -> None:
    dataset = UtteranceDataset(corpus, crop_seconds=0.5)
    sampler = ShuffleSampler(corpus, batch_size=4)
    loader = TrainingLoader(dataset, sampler, num_workers=1, collate_fn=_is_shared)
    waveforms, is_shared = next(iter(loader))
    assert is_shared
    drawn = next(iter(ShuffleSampler(corpus, batch_size=4)))
    expected = collate([dataset[row] for row in drawn])["waveforms"]
    assert torch.equal(waveforms, expected)


# -- Random numbers --------------------------------------------------------------------------------

NUMBERS = st.integers(0, 2**64 - 1)


@given(seed=NUMBERS, epoch=NUMBERS, place=NUMBERS)
def test_the_numbers_of_a_row_are_those_of_philox(seed: int, epoch: int, place: int) -> None:
    # As earlier versions made it, so that a run goes on with the crops that it would have had.
    key = np.array([seed, epoch], np.uint64)
    counter = np.array([0, 0, 0, place], np.uint64)
    expected = np.random.Generator(np.random.Philox(key=key, counter=counter))
    generator = SeededRow(0, (seed, epoch, place)).generator()
    assert generator.random(5).tolist() == expected.random(5).tolist()
    assert (
        generator.integers(1 << 40, size=3).tolist() == expected.integers(1 << 40, size=3).tolist()
    )
