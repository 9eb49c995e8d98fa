"""The cohort of ``score sv``, for normalized scores."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from voxblink2_lib.cli.score_inputs import read_file
from voxblink2_lib.errors import ScoringError

if TYPE_CHECKING:
    from voxblink2_lib.scoring.embeddings import Embeddings

# They mean nothing without a cohort.
_OPTIONS = ("cohort_names", "cohort_utt2spk", "cohort_corpus", "corpus", "same_ids")


def check_cohort_options(options: argparse.Namespace) -> None:
    """Refuse options that need a cohort if there is none.

    Raises:
        ScoringError: names the option.
    """
    if options.top_n < 2:
        raise ScoringError(f"--top-n must be at least 2, got {options.top_n}.")
    for name in _OPTIONS:
        if getattr(options, name) and not options.cohort:
            option = name.replace("_", "-")
            raise ScoringError(f"--{option} goes with --cohort, which is missing.")


def read_cohort(options: argparse.Namespace) -> Embeddings:
    """Return the embeddings of the cohort, perhaps one for each speaker."""
    from voxblink2_lib.scoring.enrolment import read_speakers, speaker_means

    cohort = read_file(options.cohort, options.cohort_names, options.cohort_corpus)
    if not options.cohort_utt2spk:
        return cohort
    speakers = read_speakers(options.cohort_utt2spk)
    return speaker_means(cohort, speakers, options.cohort_utt2spk)


def add_cohort_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the cohort, what it is of, and how it counts."""
    parser.add_argument(
        "--cohort", metavar="FILE", help="embeddings of other speakers: normalize scores (AS-norm)"
    )
    parser.add_argument("--cohort-names", metavar="FILE", help="as --names, for a cohort in .npy")
    parser.add_argument(
        "--cohort-utt2spk",
        metavar="FILE",
        help="speaker of each utterance of the cohort: take the mean of each speaker",
    )
    parser.add_argument(
        "--corpus",
        metavar="NAME",
        help="corpus of the trials, such as VoxCeleb1, whose people the ids are; default: what "
        "embed --corpus wrote",
    )
    parser.add_argument("--cohort-corpus", metavar="NAME", help="the same, of the cohort")
    parser.add_argument(
        "--same-ids",
        action="store_true",
        help="equal ids of trials and cohort are equal speakers, whatever their corpora",
    )
    parser.add_argument(
        "--top-n",
        type=int,
        default=300,
        metavar="N",
        help="nearest members of the cohort that count; default: %(default)s, or all if fewer",
    )
