"""From lists and embeddings by name to results: coverage first, then rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.scoring.det import Sweep
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.intervals import Intervals, bootstrap_intervals
from voxblink2_lib.scoring.normalization import as_norm
from voxblink2_lib.scoring.open_set import (
    Enrolment,
    Method,
    OpenSetResult,
    open_set_identification,
)
from voxblink2_lib.scoring.trials import (
    Missing,
    TrialList,
    read_labelled,
    score_trials,
    speakers_of,
)
from voxblink2_lib.scoring.validation import Flags, Rows, check_choice
from voxblink2_lib.scoring.verification import (
    EqualErrorRate,
    MinDcf,
    eer,
    min_cllr,
    min_dcf,
)


@dataclass(frozen=True)
class VerificationReport:
    """What a list of trials says about embeddings.

    Attributes:
        trials: trials of the list.
        scored: trials that could be scored; the rates are theirs.
        targets: target trials among these.
        missing: names without an embedding.
        eer: equal error rate, interpolated.
        hull_eer: the same on the convex hull of the ROC.
        min_dcf: least detection cost for each prior.
        min_cllr: in bits.
        intervals: of EER and of minDCF at the first prior, if asked for.
        sweep: the sorted scores.
    """

    trials: int
    scored: int
    targets: int
    missing: list[str]
    eer: EqualErrorRate
    hull_eer: float
    min_dcf: dict[float, MinDcf]
    min_cllr: float
    intervals: Intervals | None
    sweep: Sweep = field(repr=False, compare=False)


def evaluate_trials(
    trials: TrialList,
    embeddings: Embeddings,
    *,
    missing: Missing = "error",
    p_target: Sequence[float] = (0.01,),
    cohort: Embeddings | None = None,
    top_n: int = 300,
    interval: Literal["trials", "speakers"] | None = None,
    progress: Progress = no_progress,
) -> VerificationReport:
    """Score trials by cosine and return the metrics of verification.

    Args:
        trials: the list.
        embeddings: embeddings with their names.
        missing: ``"error"``, or ``"skip"`` to leave out trials without an embedding.
        p_target: priors of minDCF.
        cohort: embeddings of other speakers, for adaptive s-norm.
        top_n: how many of the cohort count.
        interval: draw this for 95% confidence intervals; ``"speakers"`` needs names that tell them.
        progress: shows progress of what takes long.

    Raises:
        ScoringError: see :func:`~voxblink2_lib.scoring.trials.score_trials` and the metrics.
    """
    check_choice("interval", interval, (None, "trials", "speakers"))
    found = score_trials(trials, embeddings, missing=missing)
    scores = found.scores
    if cohort is not None:
        there = len(trials.names) - len(found.missing)  # fewer are used where trials were skipped
        with progress("Normalising", unit="utterance", total=there) as advance:
            scores = as_norm(
                scores,
                enrolment_rows=found.enrolment,
                test_rows=found.test,
                embeddings=embeddings.vectors,
                cohort=cohort.vectors,
                top_n=top_n,
                progress=advance,
            )
    sweep = Sweep.of(scores, found.labels)
    intervals = None
    if interval is not None:
        speakers = None
        if interval == "speakers":
            spoken = np.array(speakers_of(trials.names))
            sides = (trials.enrolment[found.rows], trials.test[found.rows])
            speakers = (spoken[sides[0]], spoken[sides[1]])
        resamples = 1000
        with progress("Resampling", unit="resample", total=resamples) as advance:
            intervals = bootstrap_intervals(
                scores,
                found.labels,
                speakers=speakers,
                p_target=p_target[0],
                resamples=resamples,
                progress=advance,
            )
    return VerificationReport(
        trials=len(trials.labels),
        scored=len(scores),
        targets=len(sweep.target),
        missing=found.missing,
        eer=eer(sweep),
        hull_eer=eer(sweep, method="hull").eer,
        min_dcf={prior: min_dcf(sweep, p_target=prior) for prior in p_target},
        min_cllr=min_cllr(sweep),
        intervals=intervals,
        sweep=sweep,
    )


@dataclass(frozen=True)
class OpenSetProtocol:
    """An open-set protocol: labelled lists of enrolled utterances and of probes.

    Attributes:
        name: such as ``Small_120/perspk1``.
        gallery: names of enrolled utterances.
        gallery_labels: their speakers.
        probes: names of probes.
        probe_labels: their speakers; one that is not in the gallery is unknown.
    """

    name: str
    gallery: list[str]
    gallery_labels: list[str]
    probes: list[str]
    probe_labels: list[str]


@dataclass(frozen=True)
class OpenSetReport:
    """What an open-set protocol says about embeddings.

    Attributes:
        protocol: its name.
        gallery: enrolled utterances of the list.
        enrolled: those with an embedding.
        probes: probes of the list.
        scored: probes that could be scored; the rates are theirs.
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


def read_protocols(folder: str | Path) -> list[OpenSetProtocol]:
    """Read the open-set protocols at or below a folder, the smallest gallery first.

    A protocol is a folder with the files ``gallery`` and ``probe``, each line an utterance and its
    label.

    Raises:
        ScoringError: there is none, or a file is not such a list.
    """
    top = Path(folder)
    if not top.is_dir():
        raise ScoringError(f"{folder} is not a folder. The release has its protocols in data/ossi.")
    files = {
        file for name in ("gallery", "probe") for file in (top / name, *top.glob(f"**/{name}"))
    }
    found = []
    for one in sorted({file.parent for file in files if file.is_file()}):
        name = one.relative_to(top).as_posix() if one != top else top.resolve().name
        lists = (*read_labelled(one / "gallery"), *read_labelled(one / "probe"))
        found.append(OpenSetProtocol(name, *lists))
    if not found:
        raise ScoringError(
            f"{folder} holds no open-set protocol: a folder with the files 'gallery' and 'probe'. "
            "The release has them in data/ossi."
        )
    return sorted(found, key=lambda one: (len(set(one.gallery_labels)), len(one.gallery)))


def evaluate_protocol(
    protocol: OpenSetProtocol,
    embeddings: Embeddings,
    *,
    missing: Missing = "error",
    far: Sequence[float] = (0.1, 0.01, 0.001),
    enrolment: Enrolment = "mean",
    method: Method = "exact",
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
        device: see there.
        progress: shows progress of what takes long.

    Raises:
        ScoringError: an utterance has no embedding; or see there.
    """
    check_choice("missing", missing, get_args(Missing))
    gallery, probes = (embeddings.rows_of(names) for names in (protocol.gallery, protocol.probes))
    labels, truth = np.array(protocol.gallery_labels), np.array(protocol.probe_labels)
    absent = _absent(protocol.gallery, gallery) + _absent(protocol.probes, probes)
    if absent and missing == "error":
        raise ScoringError(
            f"{protocol.name}: {len(absent):,} of {len(gallery) + len(probes):,} utterances have "
            f"no embedding in {embeddings.source}, the first is {absent[0]!r}. Embeddings are "
            f"named like {embeddings.names[0]!r}. To leave such utterances out and have them "
            "counted: missing='skip' (--missing skip)."
        )
    enrolled: Flags = gallery >= 0
    lost = np.setdiff1d(labels, labels[enrolled])
    scored: Flags = (probes >= 0) & ~np.isin(truth, lost)
    if not enrolled.any() or not scored.any():
        raise ScoringError(
            f"{protocol.name}: no {'probe' if enrolled.any() else 'gallery utterance'} that could "
            f"be scored has an embedding in {embeddings.source}: the first that lacks one is "
            f"{absent[0]!r}, embeddings are named like {embeddings.names[0]!r}."
        )
    try:
        with progress(protocol.name, unit="probe", total=int(scored.sum())) as advance:
            result = open_set_identification(
                embeddings.vectors[gallery[enrolled]],
                labels[enrolled],
                embeddings.vectors[probes[scored]],
                truth[scored],
                far=far,
                enrolment=enrolment,
                method=method,
                device=device,
                progress=advance,
            )
    except ScoringError as error:
        raise ScoringError(
            f"{protocol.name}, {int(scored.sum()):,} of {len(probes):,} probes: {error}"
        ) from error
    return OpenSetReport(
        protocol=protocol.name,
        gallery=len(gallery),
        enrolled=int(enrolled.sum()),
        probes=len(probes),
        scored=int(scored.sum()),
        missing=absent,
        lost_speakers=lost.tolist(),
        lost_probes=int(np.isin(truth, lost).sum()),
        result=result,
    )


def _absent(names: Sequence[str], rows: Rows) -> list[str]:
    return [names[row] for row in np.flatnonzero(rows < 0).tolist()]
