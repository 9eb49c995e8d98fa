"""The option ``--condition`` of ``score``: error rates by condition, as a table."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.terminal import columns, write_message
from voxblink2_lib.foreign_text import visible

if TYPE_CHECKING:
    import numpy.typing as npt

    from voxblink2_lib.scoring.condition_files import Condition
    from voxblink2_lib.scoring.conditions import ConditionReport, ConditionRow
    from voxblink2_lib.scoring.det import ErrorCounts
    from voxblink2_lib.scoring.enrolment import EnrolmentMap
    from voxblink2_lib.scoring.evaluation import VerificationReport
    from voxblink2_lib.scoring.intervals import Interval, Intervals
    from voxblink2_lib.scoring.trials import ScoredTrials, TrialList


def add_condition_argument(parser: argparse.ArgumentParser) -> None:
    """Add the file of conditions."""
    parser.add_argument(
        "--condition",
        nargs="+",
        metavar=("FILE", "COLUMN"),
        help="error rates by condition (gender, language ...): lines 'utterance value' or 'enrol "
        "test value', or columns below a header, of which all or some are conditions",
    )


def read_condition_file(
    options: argparse.Namespace, trials: TrialList, models: EnrolmentMap | None = None
) -> list[Condition]:
    """Return the conditions of the trials; none without the option."""
    from voxblink2_lib.scoring.condition_files import read_conditions

    if not options.condition:
        return []
    path, *names = options.condition
    write_message(f"Reading {path}")
    return read_conditions(path, trials, columns=names, models=models)


def condition_reports(
    options: argparse.Namespace,
    trials: TrialList,
    scored: ScoredTrials,
    conditions: Iterable[Condition],
    speakers: npt.NDArray[Any] | None,
) -> list[ConditionReport]:
    """Return the error rates by condition."""
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.scoring.conditions import measure_conditions

    return measure_conditions(
        trials,
        scored,
        conditions,
        p_target=options.p_target,
        costs=options.costs,
        interval=options.interval,
        speakers=speakers,
        progress=show_progress,
    )


def condition_record(reports: Sequence[ConditionReport]) -> dict[str, Any]:
    """Return what JSON has of conditions; nothing without any."""
    return {"conditions": [report.as_dict() for report in reports]} if reports else {}


# -- Text ------------------------------------------------------------------------------------------


def condition_lines(pooled: VerificationReport, reports: Sequence[ConditionReport]) -> list[str]:
    """Return a table for each condition."""
    return [line for report in reports for line in ("", *_table_lines(pooled, report))]


def _table_lines(pooled: VerificationReport, report: ConditionReport) -> list[str]:
    header = [visible(report.name), "trials", "targets", "EER", "errors"]
    for prior in report.mean_min_dcf:
        header += [f"minDCF({prior:g})", "errors"]
    equalized = {prior: cost.min_dcf for prior, cost in report.equalized_min_dcf.items()}
    equalized_errors = report.equalized_errors, *report.equalized_min_dcf_errors.values()
    marks = [report.few(), *map(report.few, report.mean_min_dcf)]
    table = [
        header,
        *(_row(row, len(header)) for row in report.rows),
        ["pooled", f"{pooled.scored:,}", f"{pooled.targets:,}", *_rates(pooled)],
        _mean("mean", report.mean_eer, report.mean_min_dcf, marks, report.intervals),
        _mean(
            "equalized",
            report.equalized_eer.eer,
            equalized,
            [errors.few for errors in equalized_errors],
            report.equalized_intervals,
        ),
    ]
    return [*columns(table), *_notes(report)]


def _mean(
    name: str,
    rate: float,
    costs: Mapping[float, float],
    marks: Sequence[bool],
    intervals: Intervals | None,
) -> list[str]:
    """Return a row of means, marked where any of their rows has few errors."""
    ends = _ends(intervals.eer, 100, 3) if intervals else ""
    cells = [name, "", "", f"{100 * rate:.3f} %{ends}", "*" * marks[0]]
    for place, cost in enumerate(costs.values()):
        ends = _ends(intervals.min_dcf, 1, 4) if intervals and place == 0 else ""
        cells += [f"{cost:.4f}{ends}", "*" * marks[place + 1]]
    return cells


def _ends(interval: Interval, factor: float, digits: int) -> str:
    return f" [{factor * interval.low:.{digits}f}, {factor * interval.high:.{digits}f}]"


def _row(row: ConditionRow, width: int) -> list[str]:
    cells = [visible(row.value), f"{row.scored:,}", f"{row.targets:,}"]
    rates = _rates(row.report) if row.report else ["-"] * (width - len(cells))
    return [*cells, *rates]


def _rates(report: VerificationReport) -> list[str]:
    intervals = report.intervals
    ends = _ends(intervals.eer, 100, 3) if intervals else ""
    cells = [f"{100 * report.eer.eer:.3f} %{ends}", _errors(report.errors)]
    for index, (prior, cost) in enumerate(report.min_dcf.items()):
        # The intervals are those of the first prior.
        shown = intervals.min_dcf if intervals and index == 0 else None
        ends = _ends(shown, 1, 4) if shown else ""
        cells += [f"{cost.min_dcf:.4f}{ends}", _errors(report.min_dcf_errors[prior])]
    return cells


def _errors(errors: ErrorCounts) -> str:
    return f"{errors.misses:,} + {errors.false_accepts:,}" + (" *" if errors.few else "  ")


def _notes(report: ConditionReport) -> list[str]:
    from voxblink2_lib.scoring.det import FEWEST_ERRORS
    from voxblink2_lib.scoring.intervals import other_marks

    lines = [
        "errors: misses + false acceptances; mean: of the rows; equalized: at one threshold, all "
        "rows of the same weight"
    ]
    few = [report.equalized_errors.few, *map(report.few, [None, *report.mean_min_dcf])]
    if any(few) or any(errors.few for errors in report.equalized_min_dcf_errors.values()):
        lines.append(f"* fewer than {FEWEST_ERRORS} errors of a kind, or a mean with such a row")
    if any(row.report is None for row in report.rows):
        lines.append("-: not both target and non-target trials; in no mean")
    for row in report.rows:
        if row.no_interval:
            lines.append(f"No intervals of {visible(row.value)}: {row.no_interval}")
        elif row.report and row.report.intervals:
            intervals = row.report.intervals
            if marks := other_marks([intervals.eer, intervals.min_dcf]):
                lines.append(f"Intervals of {visible(row.value)} may not hold: {', '.join(marks)}")
    if report.no_interval:
        lines.append(f"No intervals of the mean and of equalized: {report.no_interval}")
    for name, means in (("mean", report.intervals), ("equalized", report.equalized_intervals)):
        if means and (marks := other_marks([means.eer, means.min_dcf])):
            lines.append(f"Intervals of {name} may not hold: {', '.join(marks)}")
    return lines
