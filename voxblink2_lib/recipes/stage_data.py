"""What a stage trains on, by its options: utterances, their order, and what is done to crops."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from voxblink2_lib.recipes.holdout import HeldOut, hold_out_speakers, hold_out_videos
from voxblink2_lib.recipes.validation import held_out_by, held_out_by_file, split_of
from voxblink2_lib.training import (
    AddNoise,
    BalancedSampler,
    Codec,
    Corpus,
    EpochSampler,
    RandomChoice,
    Reverberate,
    ShuffleSampler,
    SpeakerSampler,
)


def hold_out(corpus: Corpus, args: argparse.Namespace) -> HeldOut:
    """Hold out videos, the speakers of a split's file, or those of a rule.

    Args:
        corpus: all utterances.
        args: the options of the script.
    """
    if args.hold_out == "videos":
        return hold_out_videos(corpus)
    if args.validation:
        return hold_out_speakers(corpus, held_out_by_file(corpus, Path(args.validation)))
    split = split_of(corpus, speakers=args.held_out_speakers)
    return hold_out_speakers(corpus, held_out_by(corpus, split))


def make_sampler(
    corpus: Corpus, args: argparse.Namespace, *, rank: int, world_size: int
) -> EpochSampler:
    """Return the order of the utterances, for one of some processes.

    Args:
        corpus: the utterances to train on.
        args: the options of the script.
        rank: of this process.
        world_size: number of processes.
    """
    ranks: dict[str, Any] = {"rank": rank, "world_size": world_size}
    if args.sampler == "balanced":
        return BalancedSampler(
            corpus,
            batch_size=args.batch_size,
            per_speaker=args.per_speaker,
            seed=args.seed,
            **ranks,
        )
    if args.sampler == "speakers":
        return SpeakerSampler(
            corpus, speakers=args.batch_size // 2, utterances=2, seed=args.seed, **ranks
        )
    # Batch normalization needs more than the one utterance that a last batch may have.
    return ShuffleSampler(
        corpus, batch_size=args.batch_size, seed=args.seed, drop_last=True, **ranks
    )


def make_augmentation(args: argparse.Namespace) -> RandomChoice | None:
    """Return the usual augmentation with MUSAN, rooms and codecs, as far as they are given.

    Args:
        args: the options of the script.
    """
    choices: list[Any] = []
    if args.noise:
        choices.append(AddNoise(args.noise, snr_db=(0, 15)))
    if args.music:
        choices.append(AddNoise(args.music, snr_db=(5, 15)))
    if args.babble:
        choices.append(AddNoise(args.babble, snr_db=(13, 20), files=(3, 7)))
    if args.rooms:
        choices.append(Reverberate(args.rooms))
    if args.codecs:
        choices.append(Codec())
    return RandomChoice(0.6, *choices) if choices else None
