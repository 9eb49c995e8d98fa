"""Batches from sealed shards: random access, exact resume, augmentation.

Batches of random crops of a store:

    corpus = Corpus.open("store")
    labels = SpeakerLabels.of(corpus, speeds=(1.0, 0.9, 1.1))
    dataset = UtteranceDataset(corpus, crop_seconds=2.0, labels=labels)
    loader = TrainingLoader(dataset, ShuffleSampler(corpus, batch_size=64, seed=1), num_workers=2)
    for batch in loader:
        batch["waveforms"], batch["labels"]  # float32 (64, 32000), int64 (64,)
        loader.state_dict()  # three numbers, from which the next run continues
"""

from __future__ import annotations

from voxblink2_lib.training.augment import RandomChoice, Sequential
from voxblink2_lib.training.codecs import Codec
from voxblink2_lib.training.corpus import Corpus
from voxblink2_lib.training.dataset import DamagedClip, Example, UtteranceDataset, collate
from voxblink2_lib.training.epoch_sampler import EpochSampler
from voxblink2_lib.training.labels import SpeakerLabels
from voxblink2_lib.training.loader import TrainingLoader
from voxblink2_lib.training.noise import AddNoise
from voxblink2_lib.training.reader import Reader
from voxblink2_lib.training.rooms import Reverberate
from voxblink2_lib.training.samplers import (
    BalancedSampler,
    BucketSampler,
    ShuffleSampler,
    SpeakerSampler,
)
from voxblink2_lib.training.seeded_row import SeededRow
from voxblink2_lib.training.shared_epochs import Epoch
from voxblink2_lib.training.spectral import DropChunks, DropFrequencies, SpecAugment

# Names of an earlier version.
Draw = SeededRow
Damaged = DamagedClip
Maybe = RandomChoice

__all__ = [
    "Corpus",
    "Reader",
    "ShuffleSampler",
    "SpeakerSampler",
    "BalancedSampler",
    "BucketSampler",
    "EpochSampler",
    "Epoch",
    "SeededRow",
    "Draw",
    "UtteranceDataset",
    "Example",
    "DamagedClip",
    "Damaged",
    "SpeakerLabels",
    "collate",
    "TrainingLoader",
    "AddNoise",
    "Reverberate",
    "Codec",
    "DropChunks",
    "DropFrequencies",
    "SpecAugment",
    "Sequential",
    "RandomChoice",
    "Maybe",
]
