"""The job that is being cut: its rows on disk, its videos in the ledger, and where it was begun."""

from __future__ import annotations

import functools
import logging
import shutil
from dataclasses import dataclass, field
from typing import Any

from voxblink2_lib.cut_audio.blocks import CutRows
from voxblink2_lib.cut_audio.members import Position
from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.outcomes import MissingUtterance, Outcome
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.cut_jobs import KnownVideo, job_size
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.open_shard import OpenShard, ShardState, seal_open_shard
from voxblink2_lib.store.outcome_files import write_outcomes
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.store.verdicts import Verdicts

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Commit:
    """What the ledger remembers of a run over cut audio.

    Attributes:
        position: where to go on.
        job: number of the job that is being cut.
        begin: where its first video begins.
        shard: what is on disk of its shard.
    """

    position: Position
    job: int
    begin: Position
    shard: ShardState

    def as_dict(self) -> dict[str, Any]:
        """Return this as a JSON object."""
        return {
            "position": self.position.as_dict(),
            "job": self.job,
            "begin": self.begin.as_dict(),
            "shard": self.shard.as_dict(),
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Commit:
        """Return the commit of a JSON object."""
        return cls(
            position=Position.from_dict(record["position"]),
            job=record["job"],
            begin=Position.from_dict(record["begin"]),
            shard=ShardState(**record["shard"]),
        )


@dataclass(slots=True)
class _NewFiles:
    """What has come of a video since the last commit."""

    digest: int
    clips: int = 0
    samples: int = 0
    size_bytes: int = 0
    missing: list[MissingUtterance] = field(default_factory=list)


class CutJob:
    """A job of cut audio that is not full.

    A context manager, which closes its file and keeps it.

    Args:
        store: where to.
        ledger: its ledger.
        verdicts: of the cut audio.
        number: of the job.
        place: its place among the jobs of the cut audio.
        begin: where its first video begins.
        state: what was committed of its shard.

    Attributes:
        names: ids of the utterances that it has, or will have, of each video.

    Raises:
        StoreDamagedError: its shard is not as it was committed.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        verdicts: Verdicts,
        *,
        number: int,
        place: int,
        begin: Position,
        state: ShardState | None = None,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._verdicts = verdicts
        self.number = number
        self.place = place
        self._begin = begin
        self._state = state
        self._new: dict[VideoKey, _NewFiles] = {}
        # Hashes of the annotations of the videos that were expected.
        self._annotated: dict[VideoKey, int] = {}
        self.names: dict[VideoKey, set[str]] = {}
        if state is not None:
            for name in self._shard.digests:
                speaker_id, video_id, utterance_id = name.split("/")
                self.names.setdefault(VideoKey(speaker_id, video_id), set()).add(utterance_id)
            for key, _ in ledger.job_videos(number):
                self.names.setdefault(key, set())

    @functools.cached_property
    def _shard(self) -> OpenShard:
        """Its file, which is not begun before the job before it is sealed."""
        folder = self._store.job_parts(self._ledger.config, self.number)
        return OpenShard(folder, arrow_schema(self._ledger.config), self._state)

    def close(self) -> None:
        """Close its file."""
        if "_shard" in vars(self):
            self._shard.__exit__()

    @property
    def is_full(self) -> bool:
        """Whether no further video is put into it."""
        return len(self.names) >= job_size(self.place)

    def expect(self, key: VideoKey, utterance_id: str, digest: int) -> None:
        """Note that an utterance will be added.

        Args:
            key: its video.
            utterance_id: its id in the video.
            digest: hash of the video's annotations.
        """
        self.names.setdefault(key, set()).add(utterance_id)
        self._annotated[key] = digest

    def add(self, cut: CutRows) -> None:
        """Add the rows of some files of a video, which were expected."""
        video, rows = cut
        if rows is not None:
            self._shard.add(rows, video.digests)
        new = self._new.setdefault(video.key, _NewFiles(self._annotated[video.key]))
        new.clips += len(video.digests)
        new.samples += video.samples
        new.size_bytes += video.size_bytes
        new.missing += video.missing

    def commit(self, position: Position, *, is_finished: bool = False) -> ShardState:
        """Write rows to disk; then outcomes, and where to go on, to the ledger at once.

        Args:
            position: where to go on.
            is_finished: no further row is added.
        """
        state = self._shard.commit(is_finished=is_finished)
        commit = Commit(position, self.number, self._begin, state)
        new, self._new = self._new, {}
        cut = self._ledger.cut
        with self._ledger.together():
            outcomes = [self._outcome(key, files, cut.video(key)) for key, files in new.items()]
            if outcomes:
                cut.give(self.number, new)
            for outcome in outcomes:
                self._verdicts.record(outcome)
            cut.set_position(commit.as_dict())
        return state

    def _outcome(self, key: VideoKey, new: _NewFiles, known: KnownVideo | None) -> Outcome:
        """Return the outcome of a video, with what earlier commits have of it."""
        missing, clips, samples = {*new.missing}, new.clips, new.samples
        if known is not None and known.is_cut:
            missing.update(self._ledger.cut.missing(key))
            clips, samples = clips + known.clips, samples + known.samples
        reason = ""
        if missing:
            reason = f"{len(missing)} of its files have no clip; the first: {min(missing).reason}"
        return Outcome(
            key,
            "done" if clips else "media-unusable",
            reason,
            clips=clips,
            samples=samples,
            missing=tuple(sorted(missing)),
            bytes_fetched=new.size_bytes,
            digest=new.digest,
        )

    def seal(self, position: Position) -> None:
        """Commit all, and give the shard its name."""
        state = self.commit(position, is_finished=True)
        self.close()
        if self.number in self._ledger.open_jobs():
            seal_job(self._store, self._ledger, self.number, state, self._shard.digests)


def seal_job(
    store: Store, ledger: Ledger, job: int, state: ShardState, digests: dict[str, bytes] | None
) -> None:
    """Seal a job whose shard is finished.

    Args:
        store: the store, locked by this process.
        ledger: its ledger.
        job: number of the job.
        state: what was committed of its shard.
        digests: of its rows; they are read where they are not known.
    """
    config = ledger.config
    target = store.shards(config) / shard_name(config, job)
    folder = store.job_parts(config, job)
    shard = seal_open_shard(folder, job, target, state, digests)
    ledger.seal(shard)
    write_outcomes(store, ledger, job, shard.digests)
    shutil.rmtree(folder, ignore_errors=True)


def first_job(
    store: Store, ledger: Ledger, verdicts: Verdicts, *, first: int
) -> tuple[CutJob, Position]:
    """Return the job to go on with, and where.

    Args:
        store: the store, locked by this process.
        ledger: its ledger.
        verdicts: of the cut audio.
        first: the first job of the cut audio.
    """
    cut = ledger.cut
    record = cut.position()
    commit = Commit.from_dict(record) if record else None
    reopened = set(ledger.reopened.jobs())
    open_jobs = {job for job in ledger.open_jobs() if job not in reopened}
    jobs = cut.jobs(first=first)
    position = commit.position if commit else Position()
    if commit is not None and commit.shard.is_finished and commit.job in open_jobs:
        seal_job(store, ledger, commit.job, commit.shard, None)
        open_jobs.discard(commit.job)
    left = [job for job in jobs if job in open_jobs]
    number = left[0] if left else cut.next_number()
    place = jobs.index(number) if left else len(jobs)
    begin, state = position, None
    if commit is not None and not commit.shard.is_finished and commit.job in left:
        begin, state = commit.begin, commit.shard
    elif left:
        # Its rows are of nobody knows which state: of a ledger that was made again.
        cut.empty(number)
    try:
        job = CutJob(store, ledger, verdicts, number=number, place=place, begin=begin, state=state)
        return job, position
    except StoreDamagedError as error:
        _log.warning("%s Its job is cut again.", error)
        cut.empty(number)
        return CutJob(store, ledger, verdicts, number=number, place=place, begin=begin), begin
