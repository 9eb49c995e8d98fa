"""Measure what augmentation and features add to a crop of 2 s, against reading the crop.

The store is synthetic: utterances of 6 s as FLAC. A crop is read as in training; then each
augmentation is applied to such crops, and features are made of batches of 64. All is processor time
of one process, with one thread of PyTorch.

Example:
    python benchmarks/augment.py
    python benchmarks/augment.py --quick
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from export import make_store
from figures import Figure, cpu_seconds_of, figure, run_benchmark
from inputs import speech_like

from voxblink2_lib.models import SpeakerFeatureExtractor
from voxblink2_lib.recipes.training import FeatureCollate
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training import (
    AddNoise,
    Codec,
    Corpus,
    DropChunks,
    DropFrequencies,
    Example,
    RandomChoice,
    Reverberate,
    SeededRow,
    Sequential,
    SpecAugment,
    UtteranceDataset,
)
from voxblink2_lib.training.augment import Augmentation, Waveform, change_speed
from voxblink2_lib.training.codecs import CODECS

CROP_SECONDS, BATCH = 2.0, 64
UTTERANCES, ROUNDS, QUICK_ROUNDS = 60, 7, 1
FILES, NOISE_SECONDS = 16, 20
RT60_SECONDS = 0.5

Work = Callable[[], object]


def make_sounds(folder: Path) -> tuple[Path, Path]:
    """Write noises of 20 s and responses of 1 s, as WAV of 16 bits; return their folders."""
    generator = np.random.default_rng(1)
    noises, rooms = folder / "noises", folder / "rooms"
    noises.mkdir()
    rooms.mkdir()
    for number in range(FILES):
        speech = speech_like(rate_hz=SAMPLE_RATE_HZ, seed=number)
        noise = speech[: NOISE_SECONDS * SAMPLE_RATE_HZ]
        soundfile.write(noises / f"{number}.wav", noise, SAMPLE_RATE_HZ, subtype="PCM_16")
        at = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
        response = 0.05 * generator.standard_normal(len(at)) * 10 ** (-3 * at / RT60_SECONDS)
        response[0] = 0.9
        soundfile.write(rooms / f"{number}.wav", response, SAMPLE_RATE_HZ, subtype="PCM_16")
    return noises, rooms


def augmentations(noises: Path, rooms: Path) -> dict[str, Augmentation]:
    """Return what is measured by its name."""
    noise, babble = AddNoise(noises), AddNoise(noises, files=(3, 7), snr_db=(13, 20))
    reverberate = Reverberate(rooms)
    every: dict[str, Augmentation] = {"noise": noise, "babble of 3 to 7 files": babble}
    every["room of 1 s"] = reverberate
    for name in CODECS:
        every[f"codec {name}"] = Codec([name])
    every |= {"dropped chunks": DropChunks(), "dropped frequencies": DropFrequencies()}
    every["one of noise, babble, room in 0.6"] = RandomChoice(0.6, noise, babble, reverberate)
    every["chain of room 0.5, noise 0.6, codec 0.2"] = Sequential(
        RandomChoice(0.5, reverberate), RandomChoice(0.6, noise, babble), RandomChoice(0.2, Codec())
    )
    return every


def make_works(dataset: UtteranceDataset, folder: Path) -> dict[str, Work]:
    """Return what is measured by its name; each is done to a batch of crops."""
    rows = [SeededRow(number % UTTERANCES, (1, 0, number)) for number in range(BATCH)]
    examples = [item for item in (dataset[row] for row in rows) if isinstance(item, Example)]
    crops: list[Waveform] = [example.waveform.numpy() for example in examples]
    longer = [np.resize(crop, round(1.1 * len(crop))) for crop in crops]
    extractor = SpeakerFeatureExtractor()
    collates = {
        "features": FeatureCollate(extractor),
        "features with masks": FeatureCollate(extractor, masks=SpecAugment()),
        "batch for features on a device": FeatureCollate(extractor, on_device=True),
    }

    def augmented(augment: Augmentation) -> Work:
        return lambda: [
            augment(crop, row.generator()) for crop, row in zip(crops, rows, strict=True)
        ]

    def collated(collate: FeatureCollate) -> Work:
        return lambda: collate(examples)

    works: dict[str, Work] = {"reading the crop": lambda: [dataset[row] for row in rows]}
    works["speed 1.1"] = lambda: [change_speed(each, 1.1, len(crops[0])) for each in longer]
    works |= {name: augmented(each) for name, each in augmentations(*make_sounds(folder)).items()}
    return works | {name: collated(collate) for name, collate in collates.items()}


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    """Yield milliseconds of each augmentation for a crop, and its ratio to reading the crop."""
    torch.set_num_threads(1)
    store = make_store(folder, UTTERANCES)
    dataset = UtteranceDataset(Corpus.open(store.root), crop_seconds=CROP_SECONDS)
    works = make_works(dataset, folder)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        for name, work in works.items():
            seconds[name].append(cpu_seconds_of(work) / BATCH)
    reading, *_ = seconds.values()
    for name, values in seconds.items():
        yield figure(name, [1_000 * value for value in values], unit="ms")
        if values is not reading:
            ratios = [value / read for value, read in zip(values, reading, strict=True)]
            yield figure(f"{name} / reading the crop", ratios)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
