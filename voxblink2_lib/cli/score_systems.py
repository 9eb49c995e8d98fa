"""Files of scores of several systems, for commands that take them together."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from voxblink2_lib.cli.terminal import write_message

if TYPE_CHECKING:
    from voxblink2_lib.scoring.same_trials import ScoredSystems
    from voxblink2_lib.scoring.score_files import ScoreFile

FORMS = (
    "lines 'enrol test score', 'enrol test score label', 'score enrol test'; or columns named "
    "enrol, test, score, label: CSV, TSV, Parquet"
)


def add_key_argument(parser: argparse.ArgumentParser) -> None:
    """Add the list that labels and trials are of."""
    parser.add_argument(
        "--trials", metavar="KEY", help="list with labels; default: the labels beside the scores"
    )


def read_files(options: argparse.Namespace) -> list[ScoreFile]:
    """Read the files of scores and print their names."""
    from voxblink2_lib.scoring.score_files import read_scores

    files = []
    for path in options.scores:
        write_message(f"Reading {path}")
        files.append(read_scores(path))
    return files


def read_systems(options: argparse.Namespace, *, is_labelled: bool = True) -> ScoredSystems:
    """Return the scores of all systems for the same trials, which have labels if they must.

    Raises:
        ScoringError: there are no labels, or the trials differ.
    """
    from voxblink2_lib.scoring.same_trials import systems_of
    from voxblink2_lib.scoring.trial_lists import read_trials
    from voxblink2_lib.scoring.trials import check_labelled

    files, trials = read_files(options), None
    if options.trials:
        write_message(f"Reading {options.trials}")
        trials = read_trials(options.trials)
    systems = systems_of(files, trials, source=options.trials or "")
    if is_labelled:
        check_labelled(systems.trials, options.trials or options.scores[0])
    return systems


def other_lines(options: argparse.Namespace, systems: ScoredSystems) -> list[str]:
    """Return a line for each file that also has scores of other trials."""
    return [
        f"Others    {count:,} scores of {path} are of no trial of the list"
        for path, count in zip(options.scores, systems.others, strict=True)
        if count
    ]
