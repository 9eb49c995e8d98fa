"""Evaluate embeddings on a trial list.

Find what has an embedding, refuse or count what has none, then measure the rates of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.scoring.contamination import Overlap, check_trials
from voxblink2_lib.scoring.costs import EQUAL_COSTS, Costs
from voxblink2_lib.scoring.det import ErrorCounts, Sweep
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.enrolment import EnrolmentMap, ModelScore, speakers_of_names
from voxblink2_lib.scoring.intervals import Intervals, bootstrap_intervals
from voxblink2_lib.scoring.normalization import checked_cohort
from voxblink2_lib.scoring.ratio_rates import RatioRates, measure_ratios
from voxblink2_lib.scoring.trial_scores import Norm, normalized_scores
from voxblink2_lib.scoring.trials import (
    Missing,
    ScoredTrials,
    TrialList,
    check_classes,
    check_labelled,
)
from voxblink2_lib.scoring.validation import (
    accept_renamed_keyword,
    check_choice,
    finite_or_none,
)
from voxblink2_lib.scoring.verification import (
    EqualErrorRate,
    MinDcf,
    eer,
    exact_costs,
    min_cllr,
    min_dcf,
)

_RESAMPLES = 1000


@dataclass(frozen=True)
class VerificationReport:
    """Coverage and error rates of a trial list.

    Attributes:
        trials: trials of the list.
        scored: trials that could be scored; all rates refer to them.
        targets: target trials among the scored ones.
        missing: names without an embedding.
        normalization: how scores were normalized, for people; ``None`` for raw cosines.
        eer: equal error rate, interpolated.
        hull_eer: the same on the convex hull of the ROC.
        min_dcf: minimum detection cost at each prior.
        errors: misses and false acceptances at the threshold of the EER.
        min_dcf_errors: the same at that of each minDCF.
        min_cllr: in bits.
        costs: of a miss and of a false acceptance.
        ratios: actual costs and Cllr, for scores that are log-likelihood ratios.
        intervals: of EER and of minDCF at the first prior, if requested.
        overlap: contamination that was allowed, and repeated trials.
        sweep: the sorted scores.
    """

    trials: int
    scored: int
    targets: int
    missing: list[str]
    normalization: str | None
    eer: EqualErrorRate
    hull_eer: float
    min_dcf: dict[float, MinDcf]
    errors: ErrorCounts
    min_dcf_errors: dict[float, ErrorCounts]
    min_cllr: float
    costs: Costs
    ratios: RatioRates
    intervals: Intervals | None
    overlap: Overlap
    sweep: Sweep = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON; a threshold is null where nothing is accepted."""
        return {
            "trials": self.trials,
            "scored": self.scored,
            "targets": self.targets,
            "missing": self.missing,
            "normalization": self.normalization,
            "eer": self.eer.eer,
            "eer_threshold": self.eer.threshold,
            "eer_errors": self.errors._asdict(),
            "eer_hull": self.hull_eer,
            "min_dcf": [
                {
                    "p_target": prior,
                    "min_dcf": cost,
                    "threshold": finite_or_none(threshold),
                    "errors": self.min_dcf_errors[prior]._asdict(),
                }
                for prior, (cost, threshold) in self.min_dcf.items()
            ],
            "min_cllr": self.min_cllr,
            **self.costs._asdict(),
            **self.ratios.as_dict(),
            "intervals": None if self.intervals is None else self.intervals.as_dict(),
            "overlap": self.overlap.as_dict(),
        }


@accept_renamed_keyword("watch", "progress")
def evaluate_trials(
    trials: TrialList,
    embeddings: Embeddings,
    *,
    missing: Missing = "error",
    p_target: Sequence[float] = (0.01,),
    costs: Costs = EQUAL_COSTS,
    models: EnrolmentMap | None = None,
    enrolment: ModelScore = "mean",
    cohort: Embeddings | None = None,
    norm: Norm = "as-norm1",
    top_n: int = 300,
    interval: Literal["trials", "speakers"] | None = None,
    speakers: npt.NDArray[Any] | None = None,
    same_ids: bool = False,
    allow_overlap: bool = False,
    keep: Callable[[ScoredTrials], object] = lambda _: None,
    progress: Progress = no_progress,
) -> VerificationReport:
    """Score trials by cosine and return the metrics of verification.

    Args:
        trials: the list.
        embeddings: embeddings with their names.
        missing: ``"error"``, or ``"skip"`` to leave out trials without an embedding.
        p_target: priors of minDCF.
        costs: of a miss and of a false acceptance.
        models: the utterances of each model, if the enrolment side of trials are models.
        enrolment: how they count: see
            :func:`~voxblink2_lib.scoring.trial_scores.normalized_scores`.
        cohort: embeddings of other speakers, to normalize scores.
        norm: how: see there.
        top_n: how many members of the cohort are near.
        interval: what to resample for 95% confidence intervals.
        speakers: the speaker of each name of the list, for ``"speakers"``; by default, names
            contain it. Shape: [names].
        same_ids: see :func:`~voxblink2_lib.scoring.contamination.check_trials`.
        allow_overlap: see there.
        keep: called with the scores before they are measured, such as to write them to a file.
        progress: shows the progress of normalizing and resampling.

    Raises:
        ScoringError: see :func:`~voxblink2_lib.scoring.trials.score_trials` and the metrics.
    """
    check_choice("interval", interval, (None, "trials", "speakers"))
    for prior in p_target:
        exact_costs(prior, *costs)
    near = None if norm == "s-norm" else top_n
    _check_inputs(trials, embeddings, models=models, cohort=cohort, top_n=near)
    if interval == "speakers" and speakers is None:
        speakers = speakers_of_names(trials, models=models)
    overlap = check_trials(
        trials,
        models=models,
        speakers=speakers,
        embeddings=embeddings,
        cohort=cohort,
        same_ids=same_ids,
        allow_overlap=allow_overlap,
    )
    scored, normalization = normalized_scores(
        trials,
        embeddings,
        missing=missing,
        models=models,
        enrolment=enrolment,
        cohort=cohort,
        norm=norm,
        top_n=top_n,
        progress=progress,
    )
    keep(scored)
    return measure_trials(
        trials,
        scored,
        normalization=normalization,
        p_target=p_target,
        costs=costs,
        interval=interval,
        speakers=speakers,
        overlap=overlap,
        progress=progress,
    )


def _check_inputs(
    trials: TrialList,
    embeddings: Embeddings,
    *,
    models: EnrolmentMap | None,
    cohort: Embeddings | None,
    top_n: int | None,
) -> None:
    """Refuse what can be seen to be wrong before anything is scored."""
    check_labelled(trials)
    if models is None:
        check_classes(trials, embeddings)
    if cohort is not None:
        checked_cohort(cohort.vectors, dimensions=embeddings.vectors.shape[1], top_n=top_n)


def measure_trials(
    trials: TrialList,
    scored: ScoredTrials,
    *,
    normalization: str | None = None,
    p_target: Sequence[float] = (0.01,),
    costs: Costs = EQUAL_COSTS,
    interval: Literal["trials", "speakers"] | None = None,
    speakers: npt.NDArray[Any] | None = None,
    overlap: Overlap | None = None,
    progress: Progress = no_progress,
) -> VerificationReport:
    """Return the metrics of verification of trials that have scores.

    Args:
        trials: the list.
        scored: its scores.
        normalization: how scores were normalized, for people.
        p_target: priors of minDCF.
        costs: of a miss and of a false acceptance.
        interval: what to resample for 95% confidence intervals.
        speakers: the speaker of each name of the list, for ``"speakers"``. Shape: [names].
        overlap: what :func:`~voxblink2_lib.scoring.contamination.check_trials` returned.
        progress: shows the progress of resampling.

    Raises:
        ScoringError: there are no labels, or of one class only; or see the metrics.
    """
    check_labelled(trials)
    sweep = Sweep.of(scored.scores, scored.labels)
    intervals = None
    if interval is not None:
        sides = None
        if interval == "speakers" and speakers is not None:
            sides = speakers[trials.enrolment[scored.rows]], speakers[trials.test[scored.rows]]
        with progress("Resampling", unit="resample", total=_RESAMPLES) as advance:
            intervals = bootstrap_intervals(
                scored.scores,
                scored.labels,
                speakers=sides,
                p_target=p_target[0],
                **costs._asdict(),
                resamples=_RESAMPLES,
                progress=advance,
            )
    crossing = sweep.crossing()
    least = {prior: min_dcf(sweep, p_target=prior, **costs._asdict()) for prior in p_target}
    return VerificationReport(
        trials=len(trials.enrolment),
        scored=len(scored.scores),
        targets=len(sweep.target),
        missing=scored.missing,
        normalization=normalization,
        eer=EqualErrorRate(*crossing),
        hull_eer=eer(sweep, method="hull").eer,
        min_dcf=least,
        errors=sweep.errors(crossing.threshold),
        min_dcf_errors={
            prior: sweep.errors(float(cost.threshold))  # type: ignore[arg-type]  # one prior each
            for prior, cost in least.items()
        },
        min_cllr=min_cllr(sweep),
        costs=costs,
        ratios=measure_ratios(sweep, p_target=p_target, costs=costs),
        intervals=intervals,
        overlap=overlap or check_trials(trials),
        sweep=sweep,
    )
