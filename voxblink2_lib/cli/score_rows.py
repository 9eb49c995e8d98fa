"""Results of ``score`` as rows of a table for a paper, in LaTeX or Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from voxblink2_lib.foreign_text import visible
from voxblink2_lib.progress import counted

if TYPE_CHECKING:
    from voxblink2_lib.scoring.conditions import ConditionReport
    from voxblink2_lib.scoring.det import ErrorCounts
    from voxblink2_lib.scoring.evaluation import VerificationReport
    from voxblink2_lib.scoring.intervals import Interval
    from voxblink2_lib.scoring.open_set_report import OpenSetReport

# What LaTeX would act upon; "[" and "*" only behind the end of a row.
_LATEX = str.maketrans(
    {
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
        **{"[": "{[}", "]": "{]}", "*": "{*}"},
    }
)
_MARKDOWN = str.maketrans({mark: f"\\{mark}" for mark in r"\`*_[]<>|~&#$"})


class PaperTable(NamedTuple):
    """A table of plain texts.

    Attributes:
        header: names of the columns, of which the first is to the left, others to the right.
        rows: the cells of each row.
        notes: what marks and brackets mean.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def table_lines(table: PaperTable, form: Literal["latex", "markdown"]) -> list[str]:
    """Return a table as lines, with all texts escaped."""
    if form == "latex":
        header, *rows = (
            _joined(row, " & ", _LATEX) + r" \\" for row in (table.header, *table.rows)
        )
        return [header, r"\hline", *rows, *(f"% {visible(note)}" for note in table.notes)]
    header, *rows = (f"| {_joined(row, ' | ', _MARKDOWN)} |" for row in (table.header, *table.rows))
    line = "|".join(["", "---", *["---:"] * (len(table.header) - 1), ""])
    notes = [text for note in table.notes for text in ("", visible(note).translate(_MARKDOWN))]
    return [header, line, *rows, *notes]


def _joined(row: Iterable[str], separator: str, escapes: dict[int, str]) -> str:
    return separator.join(visible(cell).translate(escapes) for cell in row)


# -- Rows of reports -------------------------------------------------------------------------------


def system_name(options: argparse.Namespace) -> str:
    """Return what a row calls the system: its model, or the file of its embeddings or scores."""
    if model := getattr(options, "model", None):
        return Path(model).name
    return Path(getattr(options, "embeddings", None) or options.scores).stem


def verification_table(
    name: str, report: VerificationReport, conditions: Sequence[ConditionReport] = ()
) -> PaperTable:
    """Return a row of EER and minDCF, and one for each value of each condition."""
    header = ["System", "EER (%)", *(f"minDCF ({prior:g})" for prior in report.min_dcf)]
    rows = [[name, *_rates(report)]]
    for condition in conditions:
        for row in condition.rows:
            cells = _rates(row.report) if row.report else ["-"] * (len(header) - 1)
            rows.append([f"{name}, {condition.name} {row.value}", *cells])
        rows += [[f"{name}, {condition.name}, {kind}", *_means(condition, kind)] for kind in _KINDS]
    return PaperTable(header, rows, _notes(rows, report))


_KINDS: tuple[Literal["mean", "equalized"], ...] = ("mean", "equalized")


def _means(condition: ConditionReport, kind: Literal["mean", "equalized"]) -> list[str]:
    rate, costs = condition.mean_eer, [*condition.mean_min_dcf.values()]
    marks = [condition.few(), *map(condition.few, condition.mean_min_dcf)]
    intervals = condition.intervals
    if kind == "equalized":
        rate = condition.equalized_eer.eer
        costs = [cost.min_dcf for cost in condition.equalized_min_dcf.values()]
        errors = condition.equalized_errors, *condition.equalized_min_dcf_errors.values()
        marks, intervals = [each.few for each in errors], condition.equalized_intervals
    cells = [f"{100 * rate:.3f}{_ends(intervals.eer if intervals else None, 100, 3)}"]
    for place, cost in enumerate(costs):
        interval = intervals.min_dcf if intervals and place == 0 else None
        cells.append(f"{cost:.4f}{_ends(interval, 1, 4)}")
    return [cell + "*" * mark for cell, mark in zip(cells, marks, strict=True)]


def _rates(report: VerificationReport) -> list[str]:
    intervals = report.intervals
    cells = [
        f"{100 * report.eer.eer:.3f}"
        + _ends(intervals.eer if intervals else None, 100, 3)
        + _mark(report.errors)
    ]
    for place, (prior, cost) in enumerate(report.min_dcf.items()):
        # The intervals are those of the first prior.
        interval = intervals.min_dcf if intervals and place == 0 else None
        cells.append(
            f"{cost.min_dcf:.4f}{_ends(interval, 1, 4)}{_mark(report.min_dcf_errors[prior])}"
        )
    return cells


def _ends(interval: Interval | None, factor: float, digits: int) -> str:
    if interval is None:
        return ""
    return f" [{factor * interval.low:.{digits}f}, {factor * interval.high:.{digits}f}]"


def _mark(errors: ErrorCounts) -> str:
    return "*" if errors.few else ""


def _notes(rows: Sequence[Sequence[str]], report: VerificationReport) -> list[str]:
    from voxblink2_lib.scoring.intervals import other_marks

    notes = [f"{report.scored:,} of {counted(report.trials, 'trial')}."]
    if report.intervals:
        intervals = report.intervals
        notes.append(
            f"In brackets: {100 * intervals.confidence:g} % intervals, {intervals.resamples:,} "
            f"resamples of {intervals.over}."
        )
        if marks := other_marks([intervals.eer, intervals.min_dcf]):
            notes.append(f"Intervals may not hold: {', '.join(marks)}.")
    return [*notes, *_star_note(rows)]


def _star_note(rows: Sequence[Sequence[str]]) -> list[str]:
    from voxblink2_lib.scoring.det import FEWEST_ERRORS

    if not any("*" in cell for row in rows for cell in row[1:]):
        return []
    return [f"* Fewer than {FEWEST_ERRORS} errors of a kind: too few to rely on the rate."]


def open_set_table(name: str, reports: Sequence[OpenSetReport]) -> PaperTable:
    """Return a row of DIR at each FAR for each protocol."""
    from voxblink2_lib.scoring.intervals import other_marks
    from voxblink2_lib.scoring.open_set import far_text

    first = reports[0].result
    rates = [f"DIR (%) at FAR {far_text(far)}" for far in first.dir]
    rows = [_open_set_row(name, report) for report in reports]
    intervals = [each for report in reports for each in (report.result.intervals or {}).values()]
    notes = [f"Method {first.method}, enrolment {first.enrolment}."]
    notes += ["In brackets: 95 % intervals, 1,000 resamples."] if intervals else []
    if marks := other_marks(intervals):
        notes.append(f"Intervals may not hold: {', '.join(marks)}.")
    header = ["System", "Protocol", *rates, "AUC", "Rank-1 (%)"]
    return PaperTable(header, rows, [*notes, *_star_note(rows)])


def _open_set_row(name: str, report: OpenSetReport) -> list[str]:
    result = report.result
    cells = [
        f"{100 * rate:.2f}"
        + _ends(result.intervals[far] if result.intervals else None, 100, 2)
        + _mark(result.errors[far])
        for far, rate in result.dir.items()
    ]
    return [name, report.protocol, *cells, f"{result.auc:.4f}", f"{100 * result.rank1:.2f}"]
