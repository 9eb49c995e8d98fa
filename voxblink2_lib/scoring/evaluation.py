"""Evaluate embeddings on a trial list or an open-set protocol.

Both go the same way: find what has an embedding, refuse or count what has none, then measure the
rates of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.scoring.det import ErrorCounts, Sweep
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.enrolment import EnrolmentMap, ModelScore, speakers_of_names
from voxblink2_lib.scoring.intervals import Intervals, bootstrap_intervals
from voxblink2_lib.scoring.normalization import checked_cohort
from voxblink2_lib.scoring.open_set import (
    Enrolment,
    Method,
    OpenSetResult,
    far_text,
    open_set_identification,
)
from voxblink2_lib.scoring.open_set_intervals import Resampled
from voxblink2_lib.scoring.protocols import OpenSetProtocol, cover_protocol
from voxblink2_lib.scoring.trial_scores import normalized_scores
from voxblink2_lib.scoring.trials import (
    Missing,
    ScoredTrials,
    TrialList,
    check_labelled,
    speakers_of,
)
from voxblink2_lib.scoring.validation import (
    Flags,
    accept_renamed_keyword,
    check_choice,
    check_prior,
    finite_or_none,
)
from voxblink2_lib.scoring.verification import (
    EqualErrorRate,
    MinDcf,
    eer,
    min_cllr,
    min_dcf,
)

_RESAMPLES = 1000

# -- Verification ----------------------------------------------------------------------------------


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
        intervals: of EER and of minDCF at the first prior, if requested.
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
    intervals: Intervals | None
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
            "intervals": None if self.intervals is None else self.intervals.as_dict(),
        }


@accept_renamed_keyword("watch", "progress")
def evaluate_trials(
    trials: TrialList,
    embeddings: Embeddings,
    *,
    missing: Missing = "error",
    p_target: Sequence[float] = (0.01,),
    models: EnrolmentMap | None = None,
    enrolment: ModelScore = "mean",
    cohort: Embeddings | None = None,
    top_n: int = 300,
    interval: Literal["trials", "speakers"] | None = None,
    speakers: npt.NDArray[Any] | None = None,
    keep: Callable[[ScoredTrials], object] = lambda _: None,
    progress: Progress = no_progress,
) -> VerificationReport:
    """Score trials by cosine and return the metrics of verification.

    Args:
        trials: the list.
        embeddings: embeddings with their names.
        missing: ``"error"``, or ``"skip"`` to leave out trials without an embedding.
        p_target: priors of minDCF.
        models: the utterances of each model, if the enrolment side of trials are models.
        enrolment: how they count: see
            :func:`~voxblink2_lib.scoring.trial_scores.normalized_scores`.
        cohort: embeddings of other speakers, for adaptive s-norm.
        top_n: how many members of the cohort count.
        interval: what to resample for 95% confidence intervals.
        speakers: the speaker of each name of the list, for ``"speakers"``; by default, names
            contain it. Shape: [names].
        keep: called with the scores before they are measured, such as to write them to a file.
        progress: shows the progress of normalizing and resampling.

    Raises:
        ScoringError: see :func:`~voxblink2_lib.scoring.trials.score_trials` and the metrics.
    """
    check_choice("interval", interval, (None, "trials", "speakers"))
    for prior in p_target:
        check_prior(prior)
    check_labelled(trials)
    if models is None:
        _check_classes(trials, embeddings)
    if interval == "speakers" and speakers is None:
        speakers = speakers_of_names(trials, models=models)
    if cohort is not None:
        checked_cohort(cohort.vectors, dimensions=embeddings.vectors.shape[1], top_n=top_n)
    scored, normalization = normalized_scores(
        trials,
        embeddings,
        missing=missing,
        models=models,
        enrolment=enrolment,
        cohort=cohort,
        top_n=top_n,
        progress=progress,
    )
    keep(scored)
    return measure_trials(
        trials,
        scored,
        normalization=normalization,
        p_target=p_target,
        interval=interval,
        speakers=speakers,
        progress=progress,
    )


def measure_trials(
    trials: TrialList,
    scored: ScoredTrials,
    *,
    normalization: str | None = None,
    p_target: Sequence[float] = (0.01,),
    interval: Literal["trials", "speakers"] | None = None,
    speakers: npt.NDArray[Any] | None = None,
    progress: Progress = no_progress,
) -> VerificationReport:
    """Return the metrics of verification of trials that have scores.

    Args:
        trials: the list.
        scored: its scores.
        normalization: how scores were normalized, for people.
        p_target: priors of minDCF.
        interval: what to resample for 95% confidence intervals.
        speakers: the speaker of each name of the list, for ``"speakers"``. Shape: [names].
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
                resamples=_RESAMPLES,
                progress=advance,
            )
    crossing = sweep.crossing()
    costs = {prior: min_dcf(sweep, p_target=prior) for prior in p_target}
    return VerificationReport(
        trials=len(trials.enrolment),
        scored=len(scored.scores),
        targets=len(sweep.target),
        missing=scored.missing,
        normalization=normalization,
        eer=EqualErrorRate(*crossing),
        hull_eer=eer(sweep, method="hull").eer,
        min_dcf=costs,
        errors=sweep.errors(crossing.threshold),
        min_dcf_errors={
            prior: sweep.errors(float(cost.threshold))  # type: ignore[arg-type]  # one prior each
            for prior, cost in costs.items()
        },
        min_cllr=min_cllr(sweep),
        intervals=intervals,
        sweep=sweep,
    )


def _check_classes(trials: TrialList, embeddings: Embeddings) -> None:
    """Refuse trials of one class, before anything is scored.

    Raises:
        ScoringError: of the trials with both embeddings, all are target or all non-target trials.
    """
    present = embeddings.rows_of(trials.names) >= 0
    covered: Flags = present[trials.enrolment] & present[trials.test]
    count, targets = (
        np.count_nonzero(covered),
        np.count_nonzero(covered & np.asarray(trials.labels)),
    )
    if count and targets in {0, count}:
        raise ScoringError(
            f"labels are all {int(targets > 0)}; error rates need target (1) and non-target (0) "
            f"trials, here among the {count:,} with both embeddings."
        )


# -- Open-set identification -----------------------------------------------------------------------


@dataclass(frozen=True)
class OpenSetReport:
    """Coverage and identification rates of an open-set protocol.

    Attributes:
        protocol: its name.
        gallery: enrolled utterances of the list.
        enrolled: those with an embedding.
        probes: probes of the list.
        scored: probes that could be scored; all rates refer to them.
        missing: names without an embedding.
        lost_speakers: speakers of the gallery without any embedding.
        lost_probes: their probes, which are left out: they are not unknown.
        result: the rates.
    """

    protocol: str
    gallery: int
    enrolled: int
    probes: int
    scored: int
    missing: list[str]
    lost_speakers: list[str]
    lost_probes: int
    result: OpenSetResult

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON; a threshold is null where every probe is accepted."""
        result = self.result
        return {
            "protocol": self.protocol,
            "gallery": self.gallery,
            "enrolled": self.enrolled,
            "speakers": result.speakers,
            "probes": self.probes,
            "scored": self.scored,
            "known": result.known,
            "unknown": result.unknown,
            "missing": self.missing,
            "lost_speakers": self.lost_speakers,
            "lost_probes": self.lost_probes,
            "method": result.method,
            "enrolment": result.enrolment,
            **result.as_dict(),
            **{
                f"threshold@far={far_text(far)}": finite_or_none(threshold)
                for far, threshold in result.thresholds.items()
            },
            "errors": {far_text(far): errors._asdict() for far, errors in result.errors.items()},
            "intervals": result.intervals
            and {
                far_text(far): {"low": each.low, "high": each.high, "mark": each.mark}
                for far, each in result.intervals.items()
            },
        }


@accept_renamed_keyword("watch", "progress")
def evaluate_protocol(
    protocol: OpenSetProtocol,
    embeddings: Embeddings,
    *,
    missing: Missing = "error",
    far: Sequence[float] = (0.1, 0.01, 0.001),
    enrolment: Enrolment = "mean",
    method: Method = "exact",
    interval: Resampled | None = None,
    device: str | None = None,
    progress: Progress = no_progress,
) -> OpenSetReport:
    """Return the rates of open-set identification of a protocol.

    Args:
        protocol: the lists.
        embeddings: embeddings with their names.
        missing: ``"error"``, or ``"skip"`` to leave out utterances without an embedding, and probes
            of speakers of whom no enrolled utterance is left.
        far: false acceptance rates to report DIR at.
        enrolment: see :func:`~voxblink2_lib.scoring.open_set.open_set_identification`.
        method: see there.
        interval: see there; ``"speakers"`` needs names that contain the speaker.
        device: see there.
        progress: shows the progress of scoring.

    Raises:
        ScoringError: an utterance has no embedding; or see there.
    """
    covered = cover_protocol(protocol, embeddings, missing=missing)
    scored = len(covered.probes)
    speakers = None
    if interval == "speakers":
        rows = embeddings.rows_of(protocol.probes)
        names = dict(zip(rows.tolist(), protocol.probes, strict=True))
        speakers = speakers_of([names[row] for row in covered.probes.tolist()])
    try:
        with progress(protocol.name, unit="probe", total=scored) as advance:
            result = open_set_identification(
                embeddings.vectors[covered.gallery],
                covered.gallery_labels,
                embeddings.vectors[covered.probes],
                covered.probe_labels,
                far=far,
                enrolment=enrolment,
                method=method,
                interval=interval,
                probe_speakers=speakers,
                device=device,
                progress=advance,
            )
    except ScoringError as error:
        raise ScoringError(
            f"{protocol.name}, {scored:,} of {len(protocol.probes):,} probes: {error}"
        ) from error
    return OpenSetReport(
        protocol=protocol.name,
        gallery=len(protocol.gallery),
        enrolled=len(covered.gallery),
        probes=len(protocol.probes),
        scored=scored,
        missing=covered.missing,
        lost_speakers=covered.lost_speakers,
        lost_probes=covered.lost_probes,
        result=result,
    )
