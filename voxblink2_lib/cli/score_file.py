"""The command ``score file``: evaluate scores that exist."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.score_conditions import (
    condition_lines,
    condition_record,
    condition_reports,
    read_condition_file,
)
from voxblink2_lib.cli.score_costs import primary_lines, primary_record, settle_costs
from voxblink2_lib.cli.score_result import ScoreResult, run_score
from voxblink2_lib.cli.score_rows import system_name, verification_table
from voxblink2_lib.cli.score_sv import add_rate_arguments, report_lines, trial_speakers
from voxblink2_lib.cli.terminal import add_command, write_message
from voxblink2_lib.progress import counted

if TYPE_CHECKING:
    from voxblink2_lib.scoring.conditions import ConditionReport
    from voxblink2_lib.scoring.evaluation import VerificationReport


def _file(options: argparse.Namespace) -> ScoreResult:
    from voxblink2_lib.scoring.plots import plot_det

    _check(options)
    report, conditions, others = _evaluate(options)
    if options.plot:
        points = {prior: cost.threshold for prior, cost in report.min_dcf.items()}
        plot_det(report.sweep, options.plot, min_dcf=points)  # type: ignore[arg-type]  # one prior each
    lines = report_lines(report)
    if others:
        lines.insert(1, f"Others    {counted(others, 'score', 'are')} of no trial of the list")
    record = report.as_dict() | {"other_scores": others}
    record |= primary_record(options, report) | condition_record(conditions)
    lines += [*primary_lines(options, report), *condition_lines(report, conditions)]
    return ScoreResult(record, lines, verification_table(system_name(options), report, conditions))


def _check(options: argparse.Namespace) -> None:
    """Check all that can be checked before anything is read."""
    from voxblink2_lib.scoring.plots import check_plot_path

    settle_costs(options)
    if options.plot:
        check_plot_path(options.plot)


def _evaluate(
    options: argparse.Namespace,
) -> tuple[VerificationReport, list[ConditionReport], int]:
    """Return the report, those by condition, and how many scores are of no trial of the list."""
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.scoring.contamination import check_trials
    from voxblink2_lib.scoring.evaluation import measure_trials
    from voxblink2_lib.scoring.score_files import match_scores, read_scores
    from voxblink2_lib.scoring.trial_lists import read_trials
    from voxblink2_lib.scoring.trials import check_labelled

    write_message(f"Reading {options.scores}")
    scores = read_scores(options.scores)
    trials, scored, others = scores.trials, scores.scored(), 0
    if options.trials:
        write_message(f"Reading {options.trials}")
        trials = read_trials(options.trials)
        scored, others = match_scores(scores, trials, missing=options.missing)
    check_labelled(trials, options.trials or options.scores)
    speakers = trial_speakers(options, trials)
    conditions = read_condition_file(options, trials)
    report = measure_trials(
        trials,
        scored,
        p_target=options.p_target,
        costs=options.costs,
        interval=options.interval,
        speakers=speakers,
        overlap=check_trials(trials, allow_overlap=options.allow_overlap),
        progress=show_progress,
    )
    return report, condition_reports(options, trials, scored, conditions, speakers), others


def add_file_command(group: Any) -> None:
    """Add the command ``score file``."""
    does = "evaluate scores that exist, also of other tools: EER, minDCF, actDCF, Cllr"
    example = "voxblink2 score file scores.txt --trials vox1_o.txt --p-target 0.01 0.001"
    parser = add_command(group, "file", run_score, does, example)
    parser.set_defaults(score=_file, keeps_work=False)
    parser.add_argument(
        "scores",
        metavar="SCORES",
        help="lines 'enrol test score', 'enrol test score label', 'score enrol test'; or columns "
        "named enrol, test, score, label: CSV, TSV, Parquet",
    )
    parser.add_argument(
        "--trials", metavar="KEY", help="list with labels; default: the labels beside the scores"
    )
    parser.add_argument(
        "--missing",
        choices=("error", "skip"),
        default="error",
        help="what to do about trials of the list without a score; default: %(default)s",
    )
    add_rate_arguments(parser)
