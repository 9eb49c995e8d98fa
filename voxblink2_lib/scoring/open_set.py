"""Open-set identification: which speaker of the gallery a probe is of, if any.

Every probe is compared with all enrolled speakers; the nearest one and its score decide. A probe is
*known* when its label is in the gallery. At a threshold t::

    DIR(t)  known probes whose nearest speaker is the right one, with a score > t / known probes
    FAR(t)  unknown probes with a highest score > t / unknown probes

The false positive identification rate (FPIR) is FAR, the false negative identification rate (FNIR)
is 1 - DIR; rank-1 is DIR without a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.blockwise import MEMORY_BYTES, cosines, nearest, unit
from voxblink2_lib.scoring.det import ErrorCounts
from voxblink2_lib.scoring.intervals import Interval
from voxblink2_lib.scoring.open_set_intervals import (
    IdentifiedProbes,
    Resampled,
    identification_intervals,
)
from voxblink2_lib.scoring.validation import (
    Floats,
    Rows,
    as_array,
    as_embeddings,
    as_speaker_labels,
    check_choice,
    norms_of,
)

Enrolment = Literal["mean", "normalized-mean", "max"]
Method = Literal["exact", "voxblink2"]

# Of the published script: number of thresholds, and the rates below which it ignores a point.
_GRID, _MIN_RATE_OF_AREA = 1000, 1e-5

# Speakers whose embeddings are summed at once; bounds the memory of the float64 sums.
_SPEAKERS = 4096


@dataclass(frozen=True)
class OpenSetResult:
    """Rates of open-set identification, as fractions.

    Attributes:
        dir: detection and identification rate at each requested FAR.
        thresholds: threshold at each of them; a probe is accepted when its score is above it.
        auc: area under DIR over FAR, both from 0 to 1.
        rank1: share of known probes whose nearest speaker is the right one.
        speakers: number of speakers in the gallery.
        known: number of their probes.
        unknown: number of other probes.
        method: ``"exact"`` or ``"voxblink2"``.
        enrolment: how a speaker's embeddings become a model.
        errors: known probes that are not identified, and unknown probes that are accepted, at the
            threshold of each requested FAR.
        intervals: 95% intervals of DIR at each of them, if requested.
        curve: FAR, DIR and thresholds, in order of falling thresholds. Shape of each: [points].
    """

    dir: dict[float, float]
    thresholds: dict[float, float]
    auc: float
    rank1: float
    speakers: int
    known: int
    unknown: int
    method: str
    enrolment: str
    errors: dict[float, ErrorCounts]
    intervals: dict[float, Interval] | None
    curve: tuple[Floats, Floats, Floats] = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, float]:
        """Return ``dir@far=...`` for each requested FAR, ``auc`` and ``rank1``."""
        rates = {f"dir@far={far_text(far)}": rate for far, rate in self.dir.items()}
        return {**rates, "auc": self.auc, "rank1": self.rank1}

    @property
    def fnir(self) -> dict[float, float]:
        """False negative identification rate at each requested FPIR (FAR)."""
        return {far: 1 - rate for far, rate in self.dir.items()}


def open_set_identification(
    gallery: object,
    gallery_labels: object,
    probes: object,
    probe_labels: object,
    *,
    far: Sequence[float] = (0.1, 0.01, 0.001),
    enrolment: Enrolment = "mean",
    method: Method = "exact",
    interval: Resampled | None = None,
    probe_speakers: object = None,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
    progress: Advance | None = None,
) -> OpenSetResult:
    """Identify each probe among the gallery's speakers, and return DIR at given FARs.

    Args:
        gallery: embeddings. Shape: [enrolled, dimensions].
        gallery_labels: their speakers, integers or strings. Shape: [enrolled].
        probes: embeddings. Shape: [probes, dimensions].
        probe_labels: their speakers; one that is not in the gallery is unknown. Shape: [probes].
        far: false acceptance rates to report DIR at, each from 0 to 1.
        enrolment: a speaker's model. ``"mean"``: mean of its embeddings, as published.
            ``"normalized-mean"``: mean of its embeddings scaled to length 1. ``"max"``: all of
            them; the nearest counts.
        method: ``"exact"``: the largest DIR whose FAR does not exceed the requested one, over all
            thresholds, equal scores as one step; the area under the whole curve.
            ``"voxblink2"``: as in the published script, for comparison with published numbers:
            1,000 thresholds evenly spaced between the lowest and the highest score of an unknown
            probe, at the FAR nearest to the requested one (which may exceed it), and the area over
            points whose DIR and FAR are both at least 1e-5.
        interval: what to resample for intervals of the exact DIR, ``"probes"`` or ``"speakers"``.
        probe_speakers: with ``"speakers"``, those of the probes, of unknown ones too. Shape:
            [probes].
        memory_bytes: bound of the memory in addition to arguments, models and scores.
        device: a PyTorch device such as ``"cuda"``; by default CUDA for large products where it is
            available, else NumPy.
        progress: called with the number of probes done since the last call.

    Raises:
        ScoringError: empty, non-finite, zero or mis-shaped embeddings, labels of another length or
            kind, no known or no unknown probe, or a FAR outside 0 to 1.

    Example:
        >>> gallery, probes = [[1, 0], [0, 1]], [[2, 1], [1, 3], [-1, 1], [-1, -1]]
        >>> result = open_set_identification(gallery, [0, 1], probes, [0, 0, 7, 8], far=[0.5])
        >>> result.dir, result.rank1, result.auc
        ({0.5: 0.5}, 0.5, 0.5)
    """
    rates = checked_far(far)
    check_choice("enrolment", enrolment, get_args(Enrolment))
    check_choice("method", method, get_args(Method))
    check_choice("interval", interval, (None, *get_args(Resampled)))
    if interval is not None and method != "exact":
        raise ScoringError(f"intervals are of exact rates; method is {method!r}, leave it out.")
    enrolled = as_embeddings(gallery, "gallery")
    labels = as_speaker_labels(gallery_labels, "gallery_labels", rows=len(enrolled), of="gallery")
    probe_vectors = as_embeddings(probes, "probes", dimensions=enrolled.shape[1])
    count = len(probe_vectors)
    truth_labels = as_speaker_labels(probe_labels, "probe_labels", rows=count, of="probes")
    if {labels.dtype.kind, truth_labels.dtype.kind} == {"i", "u"}:
        # As strings: NumPy would compare signed with unsigned integers in float64.
        labels, truth_labels = labels.astype(str), truth_labels.astype(str)
    resampled = _speakers_of_probes(interval, probe_speakers, count)
    speakers, rows = np.unique(labels, return_inverse=True)
    truth = _speaker_rows(speakers, truth_labels)
    if enrolment == "max":
        models, owner = unit(enrolled, "gallery"), rows
    else:
        models, owner = mean_models(enrolled, rows, enrolment), np.arange(len(speakers))
    norms = norms_of(probe_vectors, "probes"), np.ones(len(models), np.float32)
    best = nearest(
        probe_vectors, models, memory_bytes=memory_bytes, device=device, progress=progress
    )
    scores = cosines(probe_vectors, models, np.arange(count), best, norms)
    result = _rates(
        scores,
        truth,
        owner[best],
        far=rates,
        method=method,
        enrolment=enrolment,
        speakers=len(speakers),
    )
    if interval is None:
        return result
    identified = IdentifiedProbes.of(scores, truth >= 0, truth == owner[best], resampled)
    return replace(result, intervals=identification_intervals(identified, rates))


def _speakers_of_probes(
    interval: Resampled | None, probe_speakers: object, count: int
) -> Rows | None:
    """Return the speakers of the probes as numbers, if these are resampled. Shape: [probes]."""
    if interval != "speakers":
        return None
    if probe_speakers is None:
        raise ScoringError("probe_speakers is missing; interval='speakers' resamples them.")
    spoken = as_speaker_labels(probe_speakers, "probe_speakers", rows=count, of="probes")
    return np.unique(spoken, return_inverse=True)[1]


def far_text(far: float) -> str:
    """Return a rate as short text; different rates have different texts."""
    return f"{far:g}" if float(f"{far:g}") == far else repr(float(far))


def checked_far(far: object) -> tuple[float, ...]:
    """Return one or several false acceptance rates as numbers.

    Raises:
        ScoringError: there is none, or one does not lie between 0 and 1.
    """
    rates = np.atleast_1d(as_array(far, "far"))
    if not rates.size:
        raise ScoringError("far is empty; name at least one false acceptance rate.")
    if rates.ndim != 1 or rates.dtype.kind not in "iuf":
        raise ScoringError(f"far must be false acceptance rates from 0 to 1, got {far!r}.")
    if (wrong := rates[~((rates >= 0) & (rates <= 1))]).size:
        raise ScoringError(f"far must lie between 0 and 1, got {wrong[0]}.")
    return tuple(map(float, rates))


def _speaker_rows(speakers: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Rows:
    """Return the row of each label among the sorted speakers, -1 where it is not."""
    if (speakers.dtype.kind == "U") != (labels.dtype.kind == "U"):
        raise ScoringError(
            f"gallery_labels are {speakers.dtype} and probe_labels {labels.dtype}; both must be "
            "integers or both strings, or every probe would be unknown."
        )
    rows = np.minimum(np.searchsorted(speakers, labels), len(speakers) - 1)
    truth = np.where(speakers[rows] == labels, rows, -1)
    if (truth < 0).all():
        raise ScoringError("probe_labels: none of them is in the gallery; DIR needs known probes.")
    if (truth >= 0).all():
        raise ScoringError(
            "probe_labels: all of them are in the gallery; FAR needs unknown probes."
        )
    return truth


def mean_models(gallery: Floats, rows: Rows, enrolment: str) -> Floats:
    """Return the mean of each speaker's rows, scaled to length 1. Shape: [speakers, dimensions]."""
    if enrolment == "normalized-mean":
        gallery = unit(gallery, "gallery")
    else:
        norms_of(gallery, "gallery")  # a mean would hide a zero row
    order = np.argsort(rows, kind="stable")
    starts = np.flatnonzero(np.diff(rows[order], prepend=-1))
    counts = np.diff(np.append(starts, len(order)))
    models = np.empty((len(starts), gallery.shape[1]), np.float32)
    for first in range(0, len(starts), _SPEAKERS):
        block = slice(first, first + _SPEAKERS)
        sums = _sums(gallery, order, starts[block], counts[block])
        lengths = np.linalg.norm(sums, axis=1)
        if (zero := np.flatnonzero(lengths == 0)).size:
            row = int(order[starts[first + zero[0]]])
            raise ScoringError(
                f"gallery: the mean of the speaker of row {row} is zero; its embeddings cancel."
            )
        models[block] = sums / lengths[:, None]
    return models


def _sums(gallery: Floats, order: Rows, starts: Rows, counts: Rows) -> Floats:
    """Return the sum of each speaker's rows ``order[start : start + count]``."""
    # In float64, so that the order of the rows does not matter: the first utterance of each
    # speaker, then the second of those that have one, and so on.
    sums = gallery[order[starts]].astype(np.float64)
    for nth in range(1, counts.max()):
        speakers = np.flatnonzero(counts > nth)
        rows = gallery[order[starts[speakers] + nth]]
        if len(speakers) == len(sums):
            sums += rows
        else:
            sums[speakers] += rows
    return sums


def _rates(
    scores: Floats,
    truth: Rows,
    identified: Rows,
    *,
    far: tuple[float, ...],
    method: Method,
    enrolment: str,
    speakers: int,
) -> OpenSetResult:
    known = truth >= 0
    right = np.sort(scores[known & (truth == identified)])
    unknown = np.sort(scores[~known])
    count = int(np.count_nonzero(known))
    measure = _exact if method == "exact" else _published
    rates, thresholds, area, curve = measure(right, unknown, count, far)
    return OpenSetResult(
        dir=dict(zip(far, rates, strict=True)),
        thresholds=dict(zip(far, thresholds, strict=True)),
        auc=area,
        rank1=len(right) / count,
        speakers=speakers,
        known=count,
        unknown=len(unknown),
        method=method,
        enrolment=enrolment,
        errors={
            rate: ErrorCounts(count - int(_above(right, at)), int(_above(unknown, at)))
            for rate, at in zip(far, thresholds, strict=True)
        },
        intervals=None,
        curve=curve,
    )


class _Rates(NamedTuple):
    """DIR and threshold at each requested FAR, the area under the curve, and the curve."""

    dir: list[float]
    thresholds: list[float]
    area: float
    curve: tuple[Floats, Floats, Floats]


def _exact(right: Floats, unknown: Floats, known: int, far: tuple[float, ...]) -> _Rates:
    """Return the rates over all thresholds.

    Args:
        right: scores of the known probes that are identified, ascending. Shape: [identified].
        unknown: scores of the unknown probes, ascending. Shape: [unknown].
        known: number of known probes.
        far: requested rates.
    """
    at_far = []
    shares = np.arange(len(unknown) + 1) / len(unknown)
    for rate in far:
        # The most unknown probes that may pass: k / n <= far in the caller's own arithmetic.
        passing = int(np.searchsorted(shares, rate, "right")) - 1
        at_far.append(float(unknown[-1 - passing]) if passing < len(unknown) else -np.inf)
    # The area is the probability that a known probe is identified with a higher score than that of
    # an unknown one; ties count half, as trapezoids over them do.
    above, reached = _above(right, unknown), len(right) - np.searchsorted(right, unknown)
    area = float((above + reached).mean()) / (2 * known)
    # FAR changes at the scores of unknown probes only; at each DIR is the largest with that FAR.
    thresholds = np.append(np.unique(unknown)[::-1], unknown.dtype.type(-np.inf))
    rates_far = _above(unknown, thresholds) / len(unknown)
    rates_dir = _above(right, thresholds) / known
    dir_at_far = [float(_above(right, threshold)) / known for threshold in at_far]
    return _Rates(dir_at_far, at_far, area, (rates_far, rates_dir, thresholds))


def _published(right: Floats, unknown: Floats, known: int, far: tuple[float, ...]) -> _Rates:
    """Return the rates as the published script does; arguments as in :func:`_exact`."""
    thresholds = np.linspace(unknown[0], unknown[-1], _GRID)[::-1]
    rates_far = _above(unknown, thresholds) / len(unknown)
    rates_dir = _above(right, thresholds) / known
    rows = []
    for rate in far:
        distances = np.abs(rates_far - rate)
        nearest_far = np.flatnonzero(distances == distances.min())
        rows.append(nearest_far[int(np.argmax(rates_dir[nearest_far]))])
    inside = (rates_far >= _MIN_RATE_OF_AREA) & (rates_dir >= _MIN_RATE_OF_AREA)
    area = float(np.trapezoid(rates_dir[inside], rates_far[inside]))
    curve = rates_far, rates_dir, thresholds
    return _Rates(rates_dir[rows].tolist(), thresholds[rows].tolist(), area, curve)


def _above(scores: Floats, thresholds: Any) -> Any:
    """Count sorted scores above each threshold."""
    return len(scores) - np.searchsorted(scores, thresholds, side="right")
