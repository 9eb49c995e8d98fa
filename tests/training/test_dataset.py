"""Examples are the right samples with the right class; batches of them; what is refused."""

from __future__ import annotations

import itertools
import json
import pickle
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import shard_builder
from support.shard_builder import RATE, Array
from torch.utils import data

from voxblink2_lib.errors import ClipDamagedError, TrainingError
from voxblink2_lib.media.encoding import encode
from voxblink2_lib.records import SAMPLES_PER_FRAME
from voxblink2_lib.training import (
    Corpus,
    DamagedClip,
    Example,
    Reader,
    SeededRow,
    ShuffleSampler,
    SpeakerLabels,
    TrainingLoader,
    UtteranceDataset,
    collate,
)

# Frames of each of the utterances, and which of three speakers says it.
FRAMES = (25, 40, 60, 25, 75, 30)
SAMPLES = [SAMPLES_PER_FRAME * frames for frames in FRAMES]
SPEAKERS = (2, 0, 1, 1, 0, 2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Six utterances of three speakers in two shards."""
    folder = tmp_path_factory.mktemp("shards")
    sound = [
        shard_builder.clip(row, frames=frames, speaker=f"id{speaker:06}")
        for row, (frames, speaker) in enumerate(zip(FRAMES, SPEAKERS, strict=True))
    ]
    shard_builder.seal(folder / "0.arrow", sound[:4])
    shard_builder.seal(folder / "1.arrow", sound[4:])
    return Corpus.open(folder)


@pytest.fixture(scope="module")
def whole(corpus: Corpus) -> list[Array]:
    """The utterances from beginning to end."""
    reader = Reader(corpus)
    return [reader.read(row).numpy() for row in range(len(corpus))]


def example(dataset: UtteranceDataset, row: int) -> Example:
    item = dataset[row]
    assert isinstance(item, Example)
    assert item.waveform.dtype == torch.float32
    assert item.row == row
    assert (type(item.row), type(item.label)) == (int, int)
    return item


def place_of(part: Array, of: Array) -> int:
    """Return where a stretch lies in an utterance."""
    for start in np.flatnonzero(of[: len(of) - len(part) + 1] == part[0]).tolist():
        if np.array_equal(of[start : start + len(part)], part):
            return int(start)
    raise AssertionError("It is no stretch of the utterance.")


def draws(row: int, count: int) -> list[SeededRow]:
    return [SeededRow(row, (7, epoch, row)) for epoch in range(count)]


# -- Crops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop_seconds", [0.5, 0.9, 0.33337])
def test_a_crop_is_a_stretch_of_the_utterance(
    crop_seconds: float, corpus: Corpus, whole: list[Array]
) -> None:
    dataset = UtteranceDataset(corpus, crop_seconds=crop_seconds)
    assert len(dataset) == 6
    size = round(crop_seconds * RATE)
    for row in range(6):
        for draw in draws(row, 20):
            crop = example(dataset, draw).waveform
            assert crop.shape == (size,)
            place_of(crop.numpy(), whole[row])


def test_crops_come_from_everywhere(corpus: Corpus, whole: list[Array]) -> None:
    dataset = UtteranceDataset(corpus, crop_seconds=0.5)
    room = SAMPLES[4] - RATE // 2
    places = [
        place_of(example(dataset, row).waveform.numpy(), whole[4]) / room for row in draws(4, 200)
    ]
    tenths = Counter(int(10 * place) for place in places)
    assert all(tenths[tenth] >= 5 for tenth in range(10))


def test_both_ends_of_an_utterance_are_reached(corpus: Corpus, whole: list[Array]) -> None:
    dataset = UtteranceDataset(corpus, crop_seconds=(SAMPLES[0] - 2) / RATE)
    places = {place_of(example(dataset, row).waveform.numpy(), whole[0]) for row in draws(0, 40)}
    assert places == {0, 1, 2}


@pytest.mark.parametrize("samples", [SAMPLES[0], SAMPLES[0] + 1, 2 * SAMPLES[0], 40_000])
def test_a_short_utterance_is_repeated(samples: int, corpus: Corpus, whole: list[Array]) -> None:
    dataset = UtteranceDataset(corpus, crop_seconds=samples / RATE)
    crop = example(dataset, 0).waveform.numpy()
    assert crop.shape == (samples,)
    for start in range(0, samples, SAMPLES[0]):
        rest = crop[start : start + SAMPLES[0]]
        assert np.array_equal(rest, whole[0][: len(rest)])


def test_utterances_are_whole_by_default(corpus: Corpus, whole: list[Array]) -> None:
    dataset = UtteranceDataset(corpus)
    for row in range(6):
        for draw in draws(row, 3):
            assert np.array_equal(example(dataset, draw).waveform.numpy(), whole[row])


def test_a_selection_has_numbers_of_its_own(corpus: Corpus, whole: list[Array]) -> None:
    dataset = UtteranceDataset(corpus.select([5, 1]))
    assert np.array_equal(example(dataset, 0).waveform.numpy(), whole[5])
    assert np.array_equal(example(dataset, 1).waveform.numpy(), whole[1])
    assert [example(dataset, row).label for row in (0, 1)] == [1, 0]


# -- The same again --------------------------------------------------------------------------------


def _shifted(waveform: Array, generator: np.random.Generator) -> Array:
    """An augmentation that shows what it drew."""
    return waveform + np.float32(generator.uniform(0.1, 0.2))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_plain_loader_draws_anew_in_each_epoch(
    workers: int, persistent: bool, corpus: Corpus
) -> None:
    dataset = UtteranceDataset(
        corpus,
        crop_seconds=0.5,
        labels=SpeakerLabels.of(corpus, speeds=(1.0, 0.9, 1.1)),
        augment=_shifted,
    )

    def epochs() -> list[dict[int, bytes]]:
        torch.manual_seed(5)
        loader = data.DataLoader(
            dataset,
            batch_size=2,
            shuffle=True,
            num_workers=workers,
            collate_fn=list,
            persistent_workers=persistent and workers > 0,
        )
        passes = [list(itertools.chain(*loader)) for _ in range(3)]
        return [{item.row: item.waveform.numpy().tobytes() for item in items} for items in passes]

    first, again = epochs(), epochs()
    assert first == again  # after the same seed
    for row in range(6):
        assert len({epoch[row] for epoch in first}) == 3


def test_rows_of_any_whole_number_and_of_all(corpus: Corpus) -> None:
    dataset = UtteranceDataset(corpus)
    whole = example(dataset, 3).waveform
    assert torch.equal(example(dataset, np.int64(3)).waveform, whole)  # type: ignore[arg-type]
    assert [item.row for item in dataset] == list(range(6))  # type: ignore[attr-defined]


def test_a_draw_decides_all_that_is_random(corpus: Corpus) -> None:
    labels = SpeakerLabels.of(corpus, speeds=(1.0, 0.9))
    dataset = UtteranceDataset(corpus, crop_seconds=0.5, labels=labels, augment=_shifted)
    keys = [(seed, epoch, place) for seed in (0, 1) for epoch in (0, 1) for place in (0, 1)]
    examples = [example(dataset, SeededRow(4, key)) for key in keys]
    again = [example(dataset, pickle.loads(pickle.dumps(SeededRow(4, key)))) for key in keys]
    for first, other in zip(examples, again, strict=True):
        assert first.label == other.label
        assert torch.equal(first.waveform, other.waveform)
    assert len({first.waveform.numpy().tobytes() for first in examples}) == len(keys)


def test_augmentation_gets_what_was_cropped(corpus: Corpus, whole: list[Array]) -> None:
    seen: list[Array] = []

    def silence(waveform: Array, _: np.random.Generator) -> Array:
        seen.append(waveform.copy())
        return np.zeros_like(waveform)

    dataset = UtteranceDataset(corpus, crop_seconds=0.5, augment=silence)
    for row in range(6):
        assert not example(dataset, row).waveform.any()
    assert len(seen) == 6
    for row, crop in enumerate(seen):
        assert crop.dtype == np.float32
        assert crop.shape == (8_000,)
        place_of(crop, whole[row])


@pytest.mark.parametrize(
    "augment",
    [
        lambda waveform, _: 0.5 * waveform.astype(np.float64),
        lambda waveform, _: (0.5 * waveform)[::-1],
    ],
)
def test_an_augmentation_may_give_any_array(augment: Any, corpus: Corpus) -> None:
    plain = UtteranceDataset(corpus)[3]
    assert isinstance(plain, Example)
    augmented = example(UtteranceDataset(corpus, augment=augment), 3).waveform
    assert augmented.dtype == torch.float32
    expected = augment(plain.waveform.numpy(), None)
    assert np.array_equal(augmented.numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("row", [-1, 6, 1_000])
def test_a_number_that_is_not_there(row: int, corpus: Corpus) -> None:
    with pytest.raises(IndexError, match=rf"Row {row} was requested; expected is 0 to 5\."):
        UtteranceDataset(corpus)[row]


# -- Classes and speeds ----------------------------------------------------------------------------


def test_labels_are_the_speakers(corpus: Corpus) -> None:
    dataset = UtteranceDataset(corpus)
    assert dataset.labels.speakers == ("id000000", "id000001", "id000002")
    assert [example(dataset, row).label for row in range(6)] == list(SPEAKERS)


SPEEDS = (1.0, 0.9, 1.1, 1.25)


def test_each_speed_is_a_class_and_as_likely(corpus: Corpus) -> None:
    labels = SpeakerLabels.of(corpus, speeds=SPEEDS)
    assert labels.classes == 12
    dataset = UtteranceDataset(corpus, crop_seconds=0.1, labels=labels)
    for row, speaker in enumerate(SPEAKERS):
        counts = Counter(example(dataset, seeded).label for seeded in draws(row, 200))
        assert set(counts) == {speaker + 3 * number for number in range(4)}
        assert all(25 <= count <= 75 for count in counts.values())  # 50, and four deviations


@pytest.mark.parametrize("crop_seconds", [0.5, None, 3.0])
def test_a_class_sounds_as_its_speed_says(crop_seconds: float | None, tmp_path: Path) -> None:
    sound = np.sin(2 * np.pi * 500 * np.arange(SAMPLES_PER_FRAME * 50) / RATE) / 2
    data = encode(np.asarray(sound, np.float32), audio_format="wav")
    shard_builder.seal(tmp_path / "0.arrow", [shard_builder.clip(0, frames=50, data=data)])
    corpus = Corpus.open(tmp_path)
    labels = SpeakerLabels.of(corpus, speeds=SPEEDS)
    dataset = UtteranceDataset(corpus, crop_seconds=crop_seconds, labels=labels)
    heard = set()
    for draw in draws(0, 40):
        item = example(dataset, draw)
        speed = SPEEDS[item.label]
        seconds = 2 / speed if crop_seconds is None else crop_seconds
        assert len(item.waveform) == round(seconds * RATE)
        tone = item.waveform.numpy() * np.hanning(len(item.waveform))
        loudest = np.abs(np.fft.rfft(tone, 1 << 18)).argmax() * RATE / (1 << 18)
        assert loudest == pytest.approx(500 * speed, rel=0.005)
        heard.add(speed)
    assert heard == set(SPEEDS)


def test_labels_of_another_corpus_keep_their_numbers(corpus: Corpus) -> None:
    labels = SpeakerLabels(("a", "id000000", "id000001", "id000002", "z"), speeds=(1.0, 0.9))
    part = corpus.select([0, 1])
    assert labels.of_rows(part).tolist() == [3, 1]
    dataset = UtteranceDataset(part, labels=labels)
    drawn = {example(dataset, seeded).label for row in (0, 1) for seeded in draws(row, 30)}
    assert drawn == {3, 1, 8, 6}


def test_a_speaker_without_a_label(corpus: Corpus) -> None:
    labels = SpeakerLabels.of(corpus.select([0, 5]))
    words = (
        r"2 speakers of the corpus have no label, the first is id000000\. "
        r"Were the labels saved with another corpus\?"
    )
    with pytest.raises(TrainingError, match=words):
        UtteranceDataset(corpus, labels=labels)


def test_labels_come_back_as_they_were_saved(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "labels.json"
    for labels in (
        SpeakerLabels.of(corpus, speeds=(1, 0.9, 1.1)),
        SpeakerLabels(("a b", 'ü"\n'), speeds=(1 / 3 + 1 / 2,)),
    ):
        labels.save(path)
        assert SpeakerLabels.load(str(path)) == labels
    assert json.loads(path.read_text("utf-8"))["speakers"] == ["a b", 'ü"\n']


@pytest.mark.parametrize("speakers", [(), ("b", "a"), ("a", "a")])
def test_speakers_that_are_no_classes(speakers: tuple[str, ...]) -> None:
    with pytest.raises(TrainingError, match="must be sorted, each once, at least one"):
        SpeakerLabels(speakers)


@pytest.mark.parametrize("speeds", [(), (1.0, 1.0), (0.4,), (1.0, 2.1), (float("nan"),)])
def test_speeds_that_are_none(speeds: tuple[float, ...]) -> None:
    words = r"speeds are \[.*\]; expected are different factors from 0\.5 to 2\."
    with pytest.raises(TrainingError, match=words):
        SpeakerLabels(("a",), speeds=speeds)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "No such file"),
        (b"junk", "Expecting value"),
        (b"\xff\xfe", "can't decode"),
        (b"[1]", "indices must be"),
        (b'{"speakers": ["a"]}', "speeds"),
        (b'{"speakers": 3, "speeds": [1]}', "its speakers are 3, not a list"),
        (b'{"speakers": "abc", "speeds": [1]}', "its speakers are 'abc', not a list"),
        (b'{"speakers": ["a"], "speeds": ["fast"]}', "could not convert"),
        (b'{"speakers": ["b", "a"], "speeds": [1]}', "must be sorted"),
        (b'{"speakers": ["a"], "speeds": [3]}', r"speeds are \[3\.0\]"),
    ],
)
def test_files_that_are_no_labels(data: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    if data is not None:
        path.write_bytes(data)
    match = rf"labels\.json cannot be read as labels of speakers: .*{words}"
    with pytest.raises(TrainingError, match=match):
        SpeakerLabels.load(path)


# -- What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("crop_seconds", [0, 1e-5, -1.0, 60.5, float("nan")])
def test_lengths_that_are_none(crop_seconds: float, corpus: Corpus) -> None:
    words = rf"crop_seconds is {crop_seconds:g}; expected is at least one sample, 6.25e-05, and at"
    with pytest.raises(TrainingError, match=words):
        UtteranceDataset(corpus, crop_seconds=crop_seconds)


def test_a_way_with_damage_that_nobody_knows(corpus: Corpus) -> None:
    with pytest.raises(TrainingError, match=r"on_damaged is 'ignore'; expected is 'raise' or 'sk"):
        UtteranceDataset(corpus, on_damaged="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"shuffle": True}, "shuffle"),
        ({"batch_size": 8}, "batch_size"),
        ({"shuffle": False, "batch_size": 1}, "batch_size, shuffle"),
        ({"drop_last": True}, "drop_last"),
        ({"batch_sampler": [[0]]}, "batch_sampler"),
    ],
)
def test_a_loader_leaves_the_order_to_the_sampler(
    options: dict[str, Any], named: str, corpus: Corpus
) -> None:
    sampler = ShuffleSampler(corpus, batch_size=2)
    words = rf"^{named}: set by the sampler; give it to the sampler\.$"
    with pytest.raises(TrainingError, match=words):
        TrainingLoader(UtteranceDataset(corpus), sampler, **options)


def test_a_loader_that_is_left_is_gone_at_once(corpus: Corpus) -> None:
    # Were it part of a circle, its workers would be there until Python looks for one.
    loader = TrainingLoader(UtteranceDataset(corpus), ShuffleSampler(corpus, batch_size=2))
    left = weakref.ref(loader)
    del loader
    assert left() is None


def test_batches_that_overtake_each_other_are_refused(corpus: Corpus) -> None:
    words = r"^in_order is False; expected is True\. Batches that overtake each other cannot be "
    with pytest.raises(TrainingError, match=words):
        TrainingLoader(
            UtteranceDataset(corpus),
            ShuffleSampler(corpus, batch_size=2),
            num_workers=2,
            in_order=False,
        )


# -- Batches ---------------------------------------------------------------------------------------


def test_whole_utterances_are_padded_with_zeros(corpus: Corpus, whole: list[Array]) -> None:
    dataset = UtteranceDataset(corpus)
    rows = [3, 4, 0, 2]
    batch = collate([dataset[row] for row in rows])
    assert list(batch) == ["waveforms", "lengths", "labels", "rows"]
    assert batch["waveforms"].shape == (4, SAMPLES[4])
    assert batch["waveforms"].dtype == torch.float32
    assert all(batch[name].dtype == torch.int64 for name in ("lengths", "labels", "rows"))
    assert batch["lengths"].tolist() == [SAMPLES[row] for row in rows]
    assert batch["labels"].tolist() == [SPEAKERS[row] for row in rows]
    assert batch["rows"].tolist() == rows
    for waveform, row in zip(batch["waveforms"].numpy(), rows, strict=True):
        assert np.array_equal(waveform[: SAMPLES[row]], whole[row])
        assert not waveform[SAMPLES[row] :].any()


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_are_stacked(workers: int, corpus: Corpus) -> None:
    dataset = UtteranceDataset(corpus, crop_seconds=0.5)
    sampler = ShuffleSampler(corpus, batch_size=3, seed=5)
    drawn = list(ShuffleSampler(corpus, batch_size=3, seed=5))
    batches = list(TrainingLoader(dataset, sampler, num_workers=workers))
    assert len(batches) == len(drawn) == 2
    for batch, rows in zip(batches, drawn, strict=True):
        assert batch["rows"].tolist() == rows
        assert batch["lengths"].tolist() == [8_000] * 3
        expected = torch.stack([example(dataset, row).waveform for row in rows])
        assert torch.equal(batch["waveforms"], expected)


def test_what_was_damaged_is_beside_a_batch(corpus: Corpus) -> None:
    dataset = UtteranceDataset(corpus)
    damaged = [DamagedClip(8, "Shard x row 8"), DamagedClip(9, "Shard x row 9")]
    assert damaged[0].message == damaged[0].words == "Shard x row 8"  # an earlier version's name
    batch = collate([damaged[0], dataset[3], damaged[1], dataset[0]])
    assert batch["rows"].tolist() == [3, 0]
    assert batch["waveforms"].shape == (2, SAMPLES[0])
    assert batch["damaged"] == damaged
    with pytest.raises(ClipDamagedError, match=r"None of the 2 clips .* decoded\. Shard x row 8"):
        collate(damaged)


# -- Another function that makes batches -----------------------------------------------------------


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Six utterances, of which the second and the fifth cannot be decoded."""
    folder = tmp_path_factory.mktemp("damaged")
    sound = [shard_builder.clip(row, data=b"junk" if row in (1, 4) else None) for row in range(6)]
    shard_builder.seal(folder / "0.arrow", sound)
    return Corpus.open(folder)


def _named(examples: Sequence[Example]) -> dict[str, Any]:
    assert all(isinstance(example, Example) for example in examples)
    return {
        "x": torch.stack([example.waveform for example in examples]),
        "r": [e.row for e in examples],
    }


def _paired(examples: Sequence[Example]) -> tuple[torch.Tensor, list[int]]:
    batch = _named(examples)
    return batch["x"], batch["r"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [3, 6])
def test_a_function_of_the_user_sees_good_clips_only(
    workers: int, batch_size: int, damaged: Corpus
) -> None:
    dataset = UtteranceDataset(damaged, crop_seconds=0.5, on_damaged="skip")
    sampler = ShuffleSampler(damaged, batch_size=batch_size)
    loader = TrainingLoader(dataset, sampler, num_workers=workers, collate_fn=_named)
    batches = list(loader)
    assert all(list(batch) == ["x", "r"] for batch in batches)
    assert all(batch["x"].shape == (len(batch["r"]), 8_000) for batch in batches)
    assert sorted(row for batch in batches for row in batch["r"]) == [0, 2, 3, 5]
    assert sorted(skipped.row for skipped in loader.damaged) == [1, 4]
    assert all("cannot be decoded" in clip.message for clip in loader.damaged)


def test_a_function_of_the_user_may_return_anything(damaged: Corpus) -> None:
    good = damaged.select([0, 2, 3, 5])
    loader = TrainingLoader(
        UtteranceDataset(good, on_damaged="skip"),
        ShuffleSampler(good, batch_size=2),
        collate_fn=_paired,
    )
    assert sorted(row for _, rows in loader for row in rows) == [0, 1, 2, 3]


def test_pairs_of_a_function_of_the_user_with_damage(damaged: Corpus) -> None:
    dataset = UtteranceDataset(damaged, on_damaged="skip")
    sampler = ShuffleSampler(damaged, batch_size=6)
    loader = TrainingLoader(dataset, sampler, collate_fn=_paired)
    assert sorted(row for _, rows in loader for row in rows) == [0, 2, 3, 5]
    assert sorted(clip.row for clip in loader.damaged) == [1, 4]


def test_a_function_of_the_user_is_not_called_for_nothing(damaged: Corpus) -> None:
    bad = damaged.select([1, 4])
    loader = TrainingLoader(
        UtteranceDataset(bad, on_damaged="skip"),
        ShuffleSampler(bad, batch_size=2),
        collate_fn=_named,
    )
    with pytest.raises(ClipDamagedError, match=r"None of the 2 clips of a batch can be decoded"):
        list(loader)


def test_a_damaged_clip_raises_by_default(damaged: Corpus) -> None:
    words = r"Shard 0\.arrow row 4 \(id000001/abcdefghijk/00004\) cannot be decoded"
    with pytest.raises(ClipDamagedError, match=words):
        UtteranceDataset(damaged, crop_seconds=0.5)[4]
    clip = UtteranceDataset(damaged, crop_seconds=0.5, on_damaged="skip")[4]
    assert isinstance(clip, DamagedClip)
    assert clip.row == 4
    assert clip.message.startswith("Shard 0.arrow row 4 ")
