"""Error rates by condition of trials, and with every condition of the same weight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.scoring.condition_files import Condition
from voxblink2_lib.scoring.condition_intervals import mean_intervals
from voxblink2_lib.scoring.contamination import Overlap
from voxblink2_lib.scoring.costs import EQUAL_COSTS, Costs
from voxblink2_lib.scoring.det import ErrorCounts, Sweep
from voxblink2_lib.scoring.evaluation import VerificationReport, measure_trials
from voxblink2_lib.scoring.intervals import Intervals
from voxblink2_lib.scoring.trials import ScoredTrials, TrialList, check_labelled
from voxblink2_lib.scoring.validation import Flags, Rows, finite_or_none
from voxblink2_lib.scoring.verification import EqualErrorRate, MinDcf, min_dcf
from voxblink2_lib.scoring.weighted import WeightedSweep

# What is shared within the list is looked for once, in all of it.
_CHECKED = Overlap()

_RESAMPLES = 1000


@dataclass(frozen=True)
class ConditionRow:
    """The trials of one value of a condition.

    Attributes:
        value: the value.
        trials: trials of the list with this value.
        scored: those that could be scored.
        targets: target trials among the scored ones.
        report: their error rates; ``None`` if they are not of both classes.
        no_interval: why there are no intervals, though they were requested.
    """

    value: str
    trials: int
    scored: int
    targets: int
    report: VerificationReport | None
    no_interval: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        report = self.report
        if report is None:
            counts = {"trials": self.trials, "scored": self.scored, "targets": self.targets}
            return {"value": self.value, **counts, "eer": None, "min_dcf": None}
        record = report.as_dict()
        for of_all in ("missing", "normalization"):
            del record[of_all]
        return {"value": self.value, **record, "no_interval": self.no_interval}


@dataclass(frozen=True)
class ConditionReport:
    """Error rates by the values of a condition.

    The mean is that of the rows, each with its own threshold. The equalized rates have one
    threshold: of the miss rates of all rows the mean, and so of the false acceptance rates. Both
    leave out rows without error rates.

    Attributes:
        name: the condition.
        rows: one for each value.
        mean_eer: mean of the equal error rates.
        mean_min_dcf: mean of the minimum costs at each prior.
        equalized_eer: equal error rate of the equalized rates.
        equalized_min_dcf: minimum cost of the equalized rates at each prior.
        equalized_errors: the fewest misses and the fewest false acceptances of a row at its
            threshold.
        equalized_min_dcf_errors: the same at that of each minimum cost.
        intervals: of the means, if requested.
        equalized_intervals: of the equalized rates, from the same resamples.
        no_interval: why there are none, though they were requested.
    """

    name: str
    rows: Sequence[ConditionRow]
    mean_eer: float
    mean_min_dcf: dict[float, float]
    equalized_eer: EqualErrorRate
    equalized_min_dcf: dict[float, MinDcf]
    equalized_errors: ErrorCounts
    equalized_min_dcf_errors: dict[float, ErrorCounts]
    intervals: Intervals | None = None
    equalized_intervals: Intervals | None = None
    no_interval: str | None = None

    def few(self, prior: float | None = None) -> bool:
        """Return whether EER, or minDCF at a prior, of any row has too few errors of a kind."""
        reports = [row.report for row in self.rows if row.report is not None]
        if prior is None:
            return any(report.errors.few for report in reports)
        return any(report.min_dcf_errors[prior].few for report in reports)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        equalized = [
            {
                "p_target": prior,
                "min_dcf": cost.min_dcf,
                "threshold": finite_or_none(cost.threshold),
                "few_errors": self.equalized_min_dcf_errors[prior].few,
            }
            for prior, cost in self.equalized_min_dcf.items()
        ]
        return {
            "condition": self.name,
            "values": [row.as_dict() for row in self.rows],
            "mean": {
                "eer": self.mean_eer,
                "eer_few_errors": self.few(),
                "min_dcf": [
                    {"p_target": prior, "min_dcf": cost, "few_errors": self.few(prior)}
                    for prior, cost in self.mean_min_dcf.items()
                ],
                "intervals": self.intervals and self.intervals.as_dict(),
            },
            "equalized": {
                "eer": self.equalized_eer.eer,
                "eer_threshold": self.equalized_eer.threshold,
                "eer_few_errors": self.equalized_errors.few,
                "min_dcf": equalized,
                "intervals": self.equalized_intervals and self.equalized_intervals.as_dict(),
            },
            "no_interval": self.no_interval,
        }


def measure_conditions(
    trials: TrialList,
    scored: ScoredTrials,
    conditions: Iterable[Condition],
    *,
    p_target: Sequence[float] = (0.01,),
    costs: Costs = EQUAL_COSTS,
    interval: Literal["trials", "speakers"] | None = None,
    speakers: npt.NDArray[Any] | None = None,
    progress: Progress = no_progress,
) -> list[ConditionReport]:
    """Return the error rates of each value of each condition, and of all with the same weight.

    NIST's evaluations weight trials so that every partition of them (by gender, language, channel
    ...) counts the same, however many trials it has (NIST 2016 Speaker Recognition Evaluation
    Plan): these are the equalized rates.

    Args:
        trials: the list.
        scored: its scores.
        conditions: the value of each trial of the list.
        p_target: priors of minDCF.
        costs: of a miss and of a false acceptance.
        interval: what to resample for 95% confidence intervals of each row, of their mean, and of
            the equalized rates.
        speakers: the speaker of each name of the list, for ``"speakers"``. Shape: [names].
        progress: shows the progress of resampling.

    Raises:
        ScoringError: there are no labels; a condition does not fit the list; or none of its values
            has target and non-target trials.
    """
    check_labelled(trials)
    reports = []
    for condition in conditions:
        if len(condition.codes) != len(trials.enrolment):
            raise ScoringError(
                f"condition {condition.name!r} has {len(condition.codes):,} trials, the list "
                f"{len(trials.enrolment):,}; both must agree."
            )
        rows = [
            _row(
                trials,
                scored,
                condition,
                code,
                p_target=p_target,
                costs=costs,
                interval=interval,
                speakers=speakers,
                progress=progress,
            )
            for code in range(len(condition.values))
        ]
        report = _summary(condition, rows, scored, p_target, costs)
        if interval is not None:
            codes, sides = condition.codes[scored.rows], None
            if interval == "speakers" and speakers is not None:
                sides = (
                    speakers[trials.enrolment[scored.rows]],
                    speakers[trials.test[scored.rows]],
                )
            report = _with_intervals(report, scored, codes, sides, costs, progress=progress)
        reports.append(report)
    return reports


def _row(
    trials: TrialList,
    scored: ScoredTrials,
    condition: Condition,
    code: int,
    *,
    interval: Literal["trials", "speakers"] | None,
    **options: Any,
) -> ConditionRow:
    part = _part(scored, condition.codes[scored.rows] == code)
    targets = int(np.count_nonzero(np.asarray(part.labels)))
    count = int(np.count_nonzero(condition.codes == code))
    value, size = condition.values[code], len(part.scores)
    if targets in {0, size}:
        return ConditionRow(value, count, size, targets, None)
    no_interval = None
    try:
        report = measure_trials(trials, part, interval=interval, overlap=_CHECKED, **options)
    except ScoringError as error:
        if interval is None:
            raise
        # A condition may have too few speakers for intervals, where all together have enough.
        report = measure_trials(trials, part, overlap=_CHECKED, **options)
        no_interval = str(error)
    return ConditionRow(value, count, size, targets, replace(report, trials=count), no_interval)


def _part(scored: ScoredTrials, kept: Flags) -> ScoredTrials:
    return ScoredTrials(
        scores=scored.scores[kept],
        rows=scored.rows[kept],
        enrolment=scored.enrolment[kept],
        test=scored.test[kept],
        labels=None if scored.labels is None else scored.labels[kept],
        missing=[],
    )


def _summary(
    condition: Condition,
    rows: Sequence[ConditionRow],
    scored: ScoredTrials,
    p_target: Sequence[float],
    costs: Costs,
) -> ConditionReport:
    reports = [row.report for row in rows if row.report is not None]
    if not reports:
        raise ScoringError(
            f"condition {condition.name!r}: none of its {len(rows):,} values has target and "
            "non-target trials, so there are no error rates."
        )
    sweep = WeightedSweep.equalized(scored.scores, scored.labels, condition.codes[scored.rows])
    crossing = sweep.crossing()
    least = {prior: min_dcf(sweep, p_target=prior, **costs._asdict()) for prior in p_target}
    sweeps = [report.sweep for report in reports]
    return ConditionReport(
        name=condition.name,
        rows=rows,
        mean_eer=float(np.mean([report.eer.eer for report in reports])),
        mean_min_dcf={
            prior: float(np.mean([report.min_dcf[prior].min_dcf for report in reports]))
            for prior in p_target
        },
        equalized_eer=EqualErrorRate(*crossing),
        equalized_min_dcf=least,
        equalized_errors=_fewest(sweeps, crossing.threshold),
        equalized_min_dcf_errors={
            prior: _fewest(sweeps, float(cost.threshold))  # type: ignore[arg-type]  # one prior each
            for prior, cost in least.items()
        },
    )


def _fewest(sweeps: Sequence[Sweep], threshold: float) -> ErrorCounts:
    """Return the fewest errors of each kind at a threshold that several sweeps share."""
    misses, accepts = zip(*(sweep.errors(threshold) for sweep in sweeps), strict=True)
    return ErrorCounts(min(misses), min(accepts))


def _with_intervals(
    report: ConditionReport,
    scored: ScoredTrials,
    codes: Rows,
    speakers: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None,
    costs: Costs,
    *,
    progress: Progress,
) -> ConditionReport:
    """Return a report with intervals of its means, or with the reason why there are none."""
    try:
        with progress("Resampling", unit="resample", total=_RESAMPLES) as advance:
            means, equalized = mean_intervals(
                scored.scores,
                scored.labels,
                codes,
                speakers=speakers,
                p_target=next(iter(report.mean_min_dcf)),
                **costs._asdict(),
                resamples=_RESAMPLES,
                progress=advance,
            )
    except ScoringError as error:
        return replace(report, no_interval=str(error))
    return replace(report, intervals=means, equalized_intervals=equalized)
