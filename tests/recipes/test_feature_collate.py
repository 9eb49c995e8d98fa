"""Batches of a model's inputs: masks of each example, features wherever they are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from support import shard_builder
from support.model_oracle import golden_waveform, small_extractor, small_model

from voxblink2_lib.errors import ModelError
from voxblink2_lib.models import SpeakerFeatureExtractor
from voxblink2_lib.recipes.device_inputs import DeviceInputs
from voxblink2_lib.recipes.training import FeatureCollate
from voxblink2_lib.training import (
    Corpus,
    Example,
    ShuffleSampler,
    SpecAugment,
    TrainingLoader,
    UtteranceDataset,
)

EXTRACTOR = small_extractor()
MASKS = SpecAugment(0.7, time_masks=2, frames=20, frequency_masks=2, bands=5)
LENGTHS = {"equal": (8_000, 8_000, 8_000), "several": (8_000, 3_000, 12_345)}


def examples(lengths: Sequence[int]) -> list[Example]:
    return [
        Example(torch.from_numpy(golden_waveform(row, samples)), row % 2, row, seed=100 + row)
        for row, samples in enumerate(lengths)
    ]


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("masks", [None, MASKS])
def test_on_a_device_the_inputs_are_the_same(kind: str, masks: SpecAugment | None) -> None:
    made = examples(LENGTHS[kind])
    expected = FeatureCollate(EXTRACTOR, masks=masks)(made)
    batch = FeatureCollate(EXTRACTOR, masks=masks, on_device=True)(made)
    assert "input_features" not in batch
    inputs = DeviceInputs(EXTRACTOR)(batch)
    assert inputs.keys() == expected.keys()
    assert ("attention_mask" in inputs) == (kind == "several")
    for name, tensor in expected.items():
        torch.testing.assert_close(inputs[name], tensor, rtol=1e-4, atol=1e-4, msg=name)
    losses = [small_model("basic-gsp", num_speakers=2)(**each).loss for each in (inputs, expected)]
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)


def test_masks_are_of_the_example_and_not_of_its_batch() -> None:
    collate = FeatureCollate(EXTRACTOR, masks=MASKS)
    made = examples([8_000] * 6)
    whole = collate(made)["input_features"]
    plain = FeatureCollate(EXTRACTOR)(made)["input_features"]
    assert torch.equal(collate(made[::-1])["input_features"].flip(0), whole)
    for place, each in enumerate(made):
        assert torch.equal(collate([each])["input_features"][0], whole[place])
    is_masked = (whole == 0) & (plain != 0)
    assert torch.equal(whole, plain.masked_fill(is_masked, 0))
    assert len({tuple(flags.flatten().tolist()) for flags in is_masked}) > 3
    shares = is_masked.float().mean(dim=(1, 2))
    assert 0 < float(shares.max()) <= 0.75


def test_masks_stay_within_the_frames_of_an_utterance() -> None:
    (long, short) = FeatureCollate(EXTRACTOR, masks=SpecAugment(1.0, frames=1_000), on_device=True)(
        examples((16_000, 3_000))
    )["masked_frames"]
    assert long.shape == short.shape == (101,)
    assert not short[1 + 3_000 // 160 :].any()
    assert int(short.sum()) <= (1 + 3_000 // 160) // 2


def test_a_restarted_run_has_the_same_masks(tmp_path: Path) -> None:
    clips = [shard_builder.clip(row, frames=40, speaker=f"id{row % 3:06}") for row in range(12)]
    shard_builder.seal(tmp_path / "0.arrow", clips)
    corpus = Corpus.open(tmp_path)

    def loader(workers: int) -> TrainingLoader:
        dataset = UtteranceDataset(corpus, crop_seconds=0.5)
        sampler = ShuffleSampler(corpus, batch_size=4, seed=3)
        collate = FeatureCollate(EXTRACTOR, masks=MASKS)
        return TrainingLoader(dataset, sampler, num_workers=workers, collate_fn=collate)

    first, batches = loader(0), []
    for batch in first:
        batches.append(batch["input_features"])
        if len(batches) == 1:
            state = first.state_dict()
    again = loader(1)
    again.load_state_dict(state)
    rest = [batch["input_features"] for batch in again]
    assert len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(rest, batches[1:], strict=True))
    assert sum(int((batch == 0).sum()) for batch in rest) > 100
    next_epoch = next(iter(again))["input_features"]
    assert not any(torch.equal(next_epoch, batch) for batch in batches)


def test_seeds_of_examples_differ(tmp_path: Path) -> None:
    shard_builder.seal(tmp_path / "0.arrow", [shard_builder.clip(row) for row in range(6)])
    corpus = Corpus.open(tmp_path)
    dataset = UtteranceDataset(corpus, crop_seconds=0.5)
    sampler = ShuffleSampler(corpus, batch_size=3, seed=1)
    rows = [row for _ in range(3) for batch in sampler for row in batch]
    items = [dataset[row] for row in rows]
    seeds = [item.seed for item in items if isinstance(item, Example)]
    assert seeds == [dataset[row].seed for row in rows]  # type: ignore[union-attr]  # none is damaged
    assert len(set(seeds)) == len({row.key for row in rows}) == len(seeds) > 0


def test_silence_is_made_audible_on_a_device_too() -> None:
    silent = Example(torch.zeros(8_000), 0, 7)
    expected = FeatureCollate(EXTRACTOR)([silent])
    inputs = DeviceInputs(EXTRACTOR)(FeatureCollate(EXTRACTOR, on_device=True)([silent]))
    torch.testing.assert_close(inputs["input_features"], expected["input_features"])


def test_what_the_extractor_refuses_is_refused_for_a_device_too() -> None:
    short = Example(torch.from_numpy(golden_waveform(1, 1_599)), 0, 0)
    broken = torch.from_numpy(golden_waveform(1, 8_000))
    broken[5] = np.nan
    for on_device in (False, True):
        collate = FeatureCollate(SpeakerFeatureExtractor(), on_device=on_device)
        with pytest.raises(ModelError, match=r"waveform 1 has 1599 samples; a model needs at le"):
            collate([*examples([8_000]), short])
        with pytest.raises(ModelError, match="waveform 0 has a sample that is not finite"):
            collate([Example(broken, 0, 0)])
