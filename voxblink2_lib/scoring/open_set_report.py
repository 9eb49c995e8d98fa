"""Evaluate embeddings on an open-set protocol.

Find what has an embedding, refuse or count what has none, then measure the rates of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.scoring.contamination import Overlap, check_protocol
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.open_set import (
    Enrolment,
    Method,
    OpenSetResult,
    far_text,
    open_set_identification,
)
from voxblink2_lib.scoring.open_set_intervals import Resampled
from voxblink2_lib.scoring.protocols import OpenSetProtocol, cover_protocol
from voxblink2_lib.scoring.trials import Missing, speakers_of
from voxblink2_lib.scoring.validation import accept_renamed_keyword, finite_or_none


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
        overlap: contamination that was allowed, and repeated lines.
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
    overlap: Overlap

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
            "overlap": self.overlap.as_dict(),
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
    allow_overlap: bool = False,
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
        allow_overlap: see :func:`~voxblink2_lib.scoring.contamination.check_protocol`.
        progress: shows the progress of scoring.

    Raises:
        ScoringError: an utterance has no embedding; or see there.
    """
    overlap = check_protocol(protocol, allow_overlap=allow_overlap)
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
        overlap=overlap,
    )
