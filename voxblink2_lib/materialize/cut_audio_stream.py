"""The loop of a run over cut audio: one reader, workers that write part files, sealed jobs.

::

    members    |a/1 a/2 b/1|c/1 ... |x/1 ...             in the order of the archive
    blocks     |-----------|--------|---                 each is a call of a worker
    jobs       |--------------------|---                 full; sealed while the next one is cut
    commits    ^            ^       ^                    what is before is on disk and in the ledger

A block ends with a video, unless that is very long. A commit waits for all blocks before it,
flushes their part files to disk, and writes outcomes and position to the ledger at once. So a run
that was killed goes on there: what it wrote after the last commit is written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from voxblink2_lib.archive.gzip_stream import SeekPoint
from voxblink2_lib.archive.layout import StrangerError, utterance_of
from voxblink2_lib.archive.recognition import CutAudio
from voxblink2_lib.archive.tar_reader import TarMember
from voxblink2_lib.cut_audio.cutting import cut_files
from voxblink2_lib.cut_audio.members import FileRange, MemberStream, Position, open_members
from voxblink2_lib.cut_audio.seek_points import SeekPoints
from voxblink2_lib.cut_audio.tasks import CutFile, CutTask, CutVideo, VideoFiles
from voxblink2_lib.errors import StoppedError
from voxblink2_lib.files import flush_disk, named_system_errors
from voxblink2_lib.materialize.croppers import CRASHES
from voxblink2_lib.materialize.cut_audio_videos import WantedVideo, WantedVideos
from voxblink2_lib.materialize.resealing import seal_call, take_sealed
from voxblink2_lib.materialize.tasks import SealTask
from voxblink2_lib.outcomes import MissingUtterance, Outcome
from voxblink2_lib.progress import show_progress
from voxblink2_lib.records import AudioFormat, UtteranceKey, VideoKey
from voxblink2_lib.store.cut_jobs import job_size
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.verdicts import Verdicts
from voxblink2_lib.workers.pool import Call, WorkerDiedError, WorkerPool, collect

_BLOCK_FILES, _BLOCK_BYTES = 32, 8 << 20
# Two calls a process: while the results of one are written, the other goes on.
_CALLS_A_PROCESS = 2
_CALL_SECONDS = 1800.0
_MOST_DEATHS = 3  # with others, and alone twice
_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StreamContext:
    """What a run over cut audio works on.

    Attributes:
        store, ledger, verdicts: where to.
        audio: from where.
        wanted: which videos.
        first_job: the first job that is cut from this cut audio.
        audio_format: how clips are encoded.
        workers: number of processes.
    """

    store: Store
    ledger: Ledger
    verdicts: Verdicts
    audio: CutAudio
    wanted: WantedVideos
    first_job: int
    audio_format: AudioFormat
    workers: int


@dataclass(slots=True)
class Tally:
    """What a run has counted.

    Attributes:
        utterances: files of utterances that were read.
        skipped: those of videos that are not wanted, or in the store before.
        duplicates: those whose utterance was read before.
        strangers: members that are no utterance, by the reason, with the name of the first.
        changes: files that were converted, by what they were before.
    """

    utterances: int = 0
    skipped: int = 0
    duplicates: int = 0
    strangers: dict[str, tuple[int, str]] = field(default_factory=dict)
    changes: Counter[str] = field(default_factory=Counter)

    def add_stranger(self, reason: str, name: str) -> None:
        """Count a member that is no utterance."""
        count, first = self.strangers.get(reason, (0, name))
        self.strangers[reason] = (count + 1, first)


class CutAudioStream:
    """One run over cut audio.

    Args:
        context: what it works on.

    Attributes:
        tally: what it has counted.
    """

    def __init__(self, context: StreamContext) -> None:
        self._context = context
        self._store, self._ledger = context.store, context.ledger
        self._cut = context.ledger.cut
        self._config = context.ledger.config
        self._schema = arrow_schema(self._config)
        self._points = SeekPoints(context.store.root)
        self.tally = Tally()
        # The job that is being cut, its place among all, and its videos.
        self._job, self._place, self._job_videos = self._present_job()
        # The video whose files are being read, which was looked up; None if it is not wanted.
        self._key: VideoKey | None = None
        self._video: WantedVideo | None = None
        self._files: list[CutFile] = []
        # The block that is being filled, and what has come of those before since the last commit.
        self._block: list[VideoFiles] = []
        self._block_files = self._block_bytes = 0
        self._results: list[CutVideo] = []
        self._deaths: Counter[VideoKey] = Counter()
        self._committed: SeekPoint | None = None

    def _present_job(self) -> tuple[int, int, set[VideoKey]]:
        jobs = self._cut.jobs(first=self._context.first_job)
        # A full one as well: more files of its videos may come before those of another.
        is_open = bool(jobs) and jobs[-1] in self._ledger.open_jobs()
        if is_open and jobs[-1] not in self._ledger.reopened.jobs():
            videos = {key for key, _ in self._ledger.job_videos(jobs[-1])}
            return jobs[-1], len(jobs) - 1, videos
        return self._cut.next_number(), len(jobs), set()

    def run(self) -> None:
        """Read all that is left of the cut audio, and seal its jobs.

        Raises:
            ArchiveDamagedError: a part is damaged or missing; what was committed is kept.
            StoppedError: the workers die of something that is no fault of a file.
        """
        record = self._cut.position()
        position = Position.from_dict(record) if record else Position()
        with (
            named_system_errors(self._store.root),
            WorkerPool(self._context.workers, threads=_CALLS_A_PROCESS) as self._pool,
            open_members(self._context.audio, position, self._points) as members,
        ):
            self._seal_left()
            self._read(members)
            self._commit(members)
            self._seal(self._job)
            self._wait_for_all()

    def _seal_left(self) -> None:
        """Seal the jobs that a killed run has cut, and not sealed."""
        reopened = set(self._ledger.reopened.jobs())
        for job in self._cut.jobs():
            if job in self._ledger.open_jobs() and job != self._job and job not in reopened:
                self._seal(job)

    # -- Reading -----------------------------------------------------------------------------------

    def _read(self, members: MemberStream) -> None:
        shown = members.done
        with show_progress(
            f"Reading {self._context.audio.place}",
            unit=members.unit,
            total=members.total,
            done=shown,
        ) as advance:
            for member in members:
                if not member.is_folder:
                    self._take(member, members)
                if members.done != shown:
                    advance(members.done - shown, note=f"{self.tally.utterances:,} utterances")
                    shown = members.done
            advance(members.done - shown)

    def _take(self, member: TarMember, members: MemberStream) -> None:
        try:
            utterance = utterance_of(member)
        except StrangerError as error:
            self.tally.add_stranger(str(error), member.name)
            return
        key = VideoKey(*utterance[:2])
        if key != self._key:
            self._begin(key, members)
        video = self._video
        if video is not None and key not in self._job_videos:
            video = self._enter_job(video, utterance.utterance_id, members)
        if video is None:
            self.tally.skipped += 1
        elif utterance.utterance_id in video.names:
            self.tally.duplicates += 1
        else:
            self._job_videos.add(key)
            self._add(video, utterance, member, members)

    def _begin(self, key: VideoKey, members: MemberStream) -> None:
        """End the video before, and begin one; commit before it where that is due."""
        self._end_video()
        self._key = key
        if members.point is not None and members.point is not self._committed:
            self._commit(members)
        self._video = self._look_up(key)

    def _enter_job(
        self, video: WantedVideo, utterance_id: str, members: MemberStream
    ) -> WantedVideo | None:
        """Begin another job before the first file of a video that is new to a full one."""
        if utterance_id in video.names or len(self._job_videos) < job_size(self._place):
            return video
        self._commit(members)
        self._seal(self._job)
        self._job, self._place = self._cut.next_number(), self._place + 1
        self._job_videos = set()
        self._video = self._look_up(video.key)
        return self._video

    def _look_up(self, key: VideoKey) -> WantedVideo | None:
        if key in self._job_videos:
            # Its rows must be in its part file, and in the ledger, before others follow.
            self._submit_block()
            self._wait_for_blocks()
            self._write(None)
        return self._context.wanted.look_up(key, self._job)

    def _add(
        self, video: WantedVideo, utterance: UtteranceKey, member: TarMember, members: MemberStream
    ) -> None:
        content = members.content()
        if isinstance(content, FileRange) and content.size_bytes == 0:
            content = b""
        video.names.add(utterance.utterance_id)
        frames = video.frames.get(utterance.utterance_id)
        extension = member.name.rpartition(".")[2].lower()
        self._files.append(CutFile(utterance.utterance_id, extension, content, frames))
        self._block_files += 1
        self._block_bytes += member.size_bytes
        self.tally.utterances += 1
        if self._block_bytes >= 2 * _BLOCK_BYTES:
            # A video of so many files goes on in the next block.
            self._end_video()
            self._video = self._look_up(video.key)

    def _end_video(self) -> None:
        """Put the files of a video into the block, which is handed out when it is full."""
        video, files = self._video, self._files
        if video is not None and files:
            self._block.append(
                VideoFiles(
                    video.key,
                    video.digest,
                    self._store.part(self._config, self._job, video.key),
                    tuple(files),
                    rows=video.rows,
                    clips=video.clips,
                    samples=video.samples,
                    missing=video.missing,
                )
            )
        self._files = []
        if self._block_files >= _BLOCK_FILES or self._block_bytes >= _BLOCK_BYTES:
            self._submit_block()

    # -- Workers -----------------------------------------------------------------------------------

    def _submit_block(self) -> None:
        if self._block:
            self._submit((cut_files, self._task(self._block)))
        self._block, self._block_files, self._block_bytes = [], 0, 0

    def _task(self, videos: Iterable[VideoFiles]) -> CutTask:
        return CutTask(tuple(videos), self._schema, self._context.audio_format)

    def _submit(self, call: Call) -> None:
        while not self._pool.free:
            self._collect()
        self._pool.submit(call)

    def _collect(self) -> None:
        """Wait for results, and take them."""
        for call, result in collect([self._pool], timeout_seconds=_WAIT_SECONDS):
            task = call[1]
            if isinstance(task, SealTask):
                take_sealed(self._store, self._ledger, task, result)
            elif isinstance(result, WorkerDiedError):
                self._after_death(task, result)
            else:
                self._results += result
        for running in self._pool.running():
            if isinstance(running.call[1], CutTask) and running.seconds > _CALL_SECONDS:
                self._pool.end(running)

    def _wait_for_blocks(self) -> None:
        while any(isinstance(running.call[1], CutTask) for running in self._pool.running()):
            self._collect()

    def _wait_for_all(self) -> None:
        while self._pool.busy:
            self._collect()

    def _after_death(self, task: CutTask, death: WorkerDiedError) -> None:
        """Try the videos of a call again, one by one; twice is the fault of the files."""
        for video in task.videos:
            self._deaths[video.key] += 1
            if len(task.videos) > 1 or self._deaths[video.key] < _MOST_DEATHS:
                self._submit((cut_files, self._task([video])))
            elif death.signal_number in CRASHES or death.is_overdue:
                self._results.append(_given_up(video, death))
            else:
                raise StoppedError(
                    f"A worker process died of the files of {'/'.join(video.key)}: {death}. "
                    "Everything before is kept; with fewer --workers less memory is needed. Run "
                    "the same command again."
                )

    # -- Commits -----------------------------------------------------------------------------------

    def _commit(self, members: MemberStream) -> None:
        """Write all that was cut so far, and where the member that was read last begins."""
        self._end_video()
        self._video = None
        self._submit_block()
        self._wait_for_blocks()
        self._write(members.position)
        if members.point is not None:
            self._points.save(members.position.archive, members.point)
            self._committed = members.point

    def _write(self, position: Position | None) -> None:
        """Write what has come to the ledger, after it is on disk."""
        results, self._results = self._results, []
        if results:
            flush_disk(self._store.root)
        outcomes = {result.key: _outcome(result) for result in results}
        with self._ledger.together():
            if outcomes:
                self._cut.give(self._job, outcomes)
            for outcome in outcomes.values():
                self._context.verdicts.record(outcome)
            if position is not None:
                self._cut.set_position(position.as_dict())
        for result in results:
            self.tally.changes.update(result.changes)
            self.tally.duplicates += result.duplicates

    # -- Sealing -----------------------------------------------------------------------------------

    def _seal(self, job: int) -> None:
        if job in self._ledger.open_jobs():
            self._submit(seal_call(self._store, self._ledger, job, self._schema))


def _outcome(result: CutVideo) -> Outcome:
    missing, reason = result.missing, ""
    if missing:
        reason = f"{len(missing)} of its files have no clip; the first, {missing[0].reason}"
    return Outcome(
        result.key,
        "done" if result.clips else "media-unusable",
        reason,
        clips=result.clips,
        samples=result.samples,
        missing=missing,
        bytes_fetched=result.size_bytes,
        digest=result.digest,
    )


def _given_up(video: VideoFiles, death: WorkerDiedError) -> CutVideo:
    new = {MissingUtterance(file.utterance_id, str(death)) for file in video.files}
    missing = tuple(sorted(new.union(video.missing)))
    return CutVideo(video.key, video.digest, video.clips, video.samples, missing)
