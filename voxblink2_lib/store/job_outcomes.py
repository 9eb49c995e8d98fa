"""What is known of one job: its shard, and of each of its videos all that the ledger has.

It is read from the ledger, written beside the shard (:mod:`~voxblink2_lib.store.outcome_files`),
and read from there to make a ledger again (:mod:`~voxblink2_lib.store.rebuild`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args, get_type_hints

from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.outcomes import STATUSES, MissingUtterance
from voxblink2_lib.records import UTTERANCE_ID, SealedShard, VideoKey, is_speaker_id, is_video_id
from voxblink2_lib.store.shard_names import is_shard_name
from voxblink2_lib.store.tail import JobKind

_KINDS: tuple[str, ...] = get_args(JobKind)
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Of a video in the ledger; the sources' verdicts have classes of the same list.
_VIDEO_STATUSES = frozenset({*STATUSES, "planned"})


class VideoRow(NamedTuple):
    """The columns of a video in the ledger, but for its configuration and its job."""

    speaker_id: str
    video_id: str
    status: str
    reason: str
    attempts: int
    next_at: float | None
    clips: int
    samples: int
    bytes_fetched: int
    seconds_taken: float
    digest: int
    updated_at: float | None


class VerdictRow(NamedTuple):
    """The answer of a source, which is here by its name."""

    source: str
    status: str
    reason: str
    tries: int
    next_at: float | None
    since: float | None
    address: str
    updated_at: float


class AttemptRow(NamedTuple):
    """One attempt."""

    attempt: int
    at: float
    status: str
    reason: str
    address: str
    bytes: int
    seconds: float
    facts: str


class WitnessRow(NamedTuple):
    """The last video that came by a route of a source."""

    source: str
    address: str
    speaker_id: str
    video_id: str
    at: float


_RECORDS = (VideoRow, VerdictRow, AttemptRow, WitnessRow, MissingUtterance)
_TYPES: dict[type, tuple[Any, ...]] = {
    record: tuple(get_type_hints(record).values()) for record in _RECORDS
}


@dataclass(frozen=True, slots=True)
class VideoOutcomes:
    """All that the ledger has of one video.

    Attributes:
        row: its row.
        verdicts: what each source answered, by the name of the source.
        missing: utterances that could not be cropped, sorted.
        attempts: in order.

    Raises:
        ValueError: a value cannot be of a ledger.
    """

    row: VideoRow
    verdicts: tuple[VerdictRow, ...] = ()
    missing: tuple[MissingUtterance, ...] = ()
    attempts: tuple[AttemptRow, ...] = ()

    def __post_init__(self) -> None:
        row = self.row
        for record in (row, *self.verdicts, *self.missing, *self.attempts):
            _check_types(record)
        _check(is_speaker_id(row.speaker_id), "speaker id", row.speaker_id)
        _check(is_video_id(row.video_id), "video id", row.video_id)
        _check(row.status in _VIDEO_STATUSES, "class of a video", row.status)
        if min(row.attempts, row.clips, row.samples, row.bytes_fetched) < 0:
            for name in ("attempts", "clips", "samples", "bytes_fetched"):
                _check(getattr(row, name) >= 0, f"number of {name}", getattr(row, name))
        for status in [row.status for row in self.verdicts] + [row.status for row in self.attempts]:
            _check(status in STATUSES, "class of an answer", status)
        for utterance_id, _ in self.missing:
            _check(UTTERANCE_ID.fullmatch(utterance_id), "utterance id", utterance_id)

    @property
    def key(self) -> VideoKey:
        """Ids of the video."""
        return VideoKey(self.row.speaker_id, self.row.video_id)


@dataclass(frozen=True, slots=True)
class JobOutcomes:
    """All that the ledger has of one job.

    Attributes:
        config: the configuration.
        job: its number.
        kind: see :mod:`~voxblink2_lib.store.tail`.
        shard: what it was sealed into, without a name if no video has a clip; ``None`` while it is
            open.
        videos: those that the job was the last one of, sorted.
        settings: what the ledger remembers of the configuration, by the names of its settings.
        sources: names of all sources, in the order of their numbers in the ledger.
        witnesses: of all sources.
        written_at: Unix time at which this was true.

    Raises:
        ValueError: a value cannot be of a ledger.
    """

    config: str
    job: int
    kind: JobKind
    shard: SealedShard | None
    videos: tuple[VideoOutcomes, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    witnesses: tuple[WitnessRow, ...] = ()
    written_at: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        _check(self.kind in _KINDS, "kind of a job", self.kind)
        _check(type(self.job) is int and self.job >= 0, "number of a job", self.job)
        _check_texts([*self.settings, *self.settings.values(), *self.sources])
        for witness in self.witnesses:
            _check_types(witness)
        if self.shard is not None:
            check_entry(self.shard)

    @property
    def digests(self) -> Mapping[str, bytes] | None:
        """Digest of each row of the shard by its utterance's name; ``None`` if not known."""
        return self.shard.digests if self.shard else None


def check_entry(shard: SealedShard) -> None:
    """Check what a file says of a shard.

    Raises:
        ValueError: it cannot be so.
    """
    if shard.name:
        _check(is_shard_name(shard.name), "name of a shard", shard.name)
        _check("/" not in shard.name, "name of a shard", shard.name)
        _check(_SHA256.fullmatch(shard.sha256), "SHA-256", shard.sha256)
    for number in (shard.rows, shard.size_bytes):
        _check(type(number) is int and number >= 0, "size of a shard", number)


def _check(is_right: object, what: str, value: Any) -> None:
    if not is_right:
        raise ValueError(f"{shortened(value)} is no {what}")


def _check_types(record: tuple[Any, ...]) -> None:
    types = _TYPES[type(record)]
    if not all(map(isinstance, record, types)):
        raise ValueError(f"a value of {type(record).__name__} has another type than it should")


def _check_texts(values: Iterable[Any]) -> None:
    for value in values:
        _check(isinstance(value, str), "text", value)
