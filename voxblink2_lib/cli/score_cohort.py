"""The cohort of ``score sv``, for normalized scores, and what embeddings are centred by."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.score_inputs import read_file
from voxblink2_lib.errors import ScoringError

if TYPE_CHECKING:
    from voxblink2_lib.scoring.embeddings import Embeddings

# They mean nothing without a cohort.
_OPTIONS = (
    *("cohort_names", "cohort_utt2spk", "cohort_corpus", "corpus", "same_ids"),
    *("norm", "top_n"),
)

_TOP_N = 300

# Instead of a file of embeddings to centre by.
BY_COHORT = "cohort"


def check_cohort_options(options: argparse.Namespace) -> None:
    """Refuse options that need a cohort if there is none.

    Raises:
        ScoringError: names the option.
    """
    if options.top_n is not None and options.top_n < 2:
        raise ScoringError(f"--top-n must be at least 2, got {options.top_n}.")
    for name in _OPTIONS:
        if getattr(options, name) and not options.cohort:
            option = name.replace("_", "-")
            raise ScoringError(f"--{option} goes with --cohort, which is missing.")
    if options.norm == "s-norm" and options.top_n:
        raise ScoringError("--top-n goes with AS-norm; --norm s-norm takes the whole cohort.")
    if options.centre == BY_COHORT and not options.cohort:
        raise ScoringError("--centre cohort goes with --cohort, which is missing.")


def read_cohort(options: argparse.Namespace) -> Embeddings:
    """Return the embeddings of the cohort, perhaps one for each speaker."""
    from voxblink2_lib.scoring.enrolment import read_speakers, speaker_means

    cohort = read_file(options.cohort, options.cohort_names, options.cohort_corpus)
    if not options.cohort_utt2spk:
        return cohort
    speakers = read_speakers(options.cohort_utt2spk)
    return speaker_means(cohort, speakers, options.cohort_utt2spk)


def norm_arguments(options: argparse.Namespace, cohort: Embeddings | None) -> dict[str, Any]:
    """Return the cohort and how it counts, for the library."""
    if cohort is None:
        return {"cohort": None}
    return {
        "cohort": cohort,
        "norm": options.norm or "as-norm1",
        "top_n": min(options.top_n or _TOP_N, len(cohort.names)),
    }


def centred_if_asked(
    options: argparse.Namespace, embeddings: Embeddings, cohort: Embeddings | None
) -> tuple[Embeddings, Embeddings | None]:
    """Return embeddings and cohort without the mean that was named, if any was."""
    from voxblink2_lib.scoring.centring import centre_embeddings

    if not options.centre:
        return embeddings, cohort
    others = cohort if options.centre == BY_COHORT else read_file(options.centre, None)
    assert others is not None  # checked before anything was read
    return centre_embeddings(embeddings, others), cohort and centre_embeddings(cohort, others)


def add_cohort_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the cohort, what it is of, and how it counts."""
    parser.add_argument(
        "--cohort", metavar="FILE", help="embeddings of other speakers: normalize scores"
    )
    parser.add_argument(
        "--norm",
        choices=("s-norm", "as-norm1", "as-norm2"),
        help="with the whole cohort, with what is near each side of a trial, or near the other "
        "side; default: as-norm1",
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
        metavar="N",
        help=f"members of the cohort that are near; default: {_TOP_N}, or all if fewer",
    )
    parser.add_argument(
        "--centre",
        metavar=f"FILE|{BY_COHORT}",
        help="subtract the mean of these embeddings, or of the cohort, from all",
    )
