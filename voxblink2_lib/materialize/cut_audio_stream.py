"""The loop of a run over cut audio: one reader, workers that decode and encode, and one writer.

::

    members    |a/1 a/2 b/1|c/1 ... |x/1 ...      in the order of the archive
    blocks     |-----------|--------|---          each is a call of a worker
    jobs       |--------------------|---          full, and sealed
    commits    ^            ^       ^             what is before is on disk and in the ledger

A block ends with a video, unless that is very long. A commit comes when the rows of all blocks
before it are written; meanwhile the next ones are read and encoded. So a run that was killed goes
on at the last commit; what it wrote after it is written again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from voxblink2_lib.archive.gzip_stream import SeekPoint
from voxblink2_lib.archive.layout import StrangerError, utterance_of
from voxblink2_lib.archive.reader import ArchiveDamagedError
from voxblink2_lib.archive.recognition import CutAudio
from voxblink2_lib.archive.tar_reader import TarMember
from voxblink2_lib.cut_audio.blocks import Blocks, CutRows
from voxblink2_lib.cut_audio.members import MemberStream, Position, open_members
from voxblink2_lib.cut_audio.seek_points import SeekPoints
from voxblink2_lib.cut_audio.tasks import CutFile
from voxblink2_lib.files import named_system_errors
from voxblink2_lib.materialize.cut_audio_job import CutJob, first_job
from voxblink2_lib.materialize.cut_audio_videos import WantedVideo, WantedVideos
from voxblink2_lib.materialize.interruption import Interruption
from voxblink2_lib.progress import show_progress
from voxblink2_lib.records import AudioFormat, VideoKey
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.verdicts import Verdicts


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
        self._points = SeekPoints(context.store.root)
        self._committed: SeekPoint | None = None
        self.tally = Tally()
        # The video whose files are being read, and what was looked up; None if it is not wanted.
        self._key: VideoKey | None = None
        self._video: WantedVideo | None = None
        # Jobs that are full, whose last rows are still being encoded.
        self._full: deque[CutJob] = deque()

    def run(self) -> None:
        """Read all that is left of the cut audio, and seal its jobs.

        Raises:
            ArchiveDamagedError: a part is damaged or missing; what was committed is kept.
            StoppedError: the workers die of something that is no fault of a file.
        """
        context = self._context
        schema = arrow_schema(context.ledger.config)
        with named_system_errors(context.store.root):
            self._job, position = first_job(
                context.store, context.ledger, context.verdicts, first=context.first_job
            )
            try:
                with (
                    Interruption() as self._interruption,
                    Blocks(context.workers, schema, context.audio_format) as self._blocks,
                    open_members(context.audio, position, self._points) as members,
                ):
                    try:
                        self._read(members)
                    except ArchiveDamagedError:
                        self._finish_blocks()  # jobs that are full are sealed
                        raise
                    self._finish_blocks()
                    self._job.seal(members.position)
                    if self._interruption.is_requested:
                        raise KeyboardInterrupt
            finally:
                for job in (*self._full, self._job):
                    job.close()

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
                if self._interruption.is_requested:
                    self._commit(members)
                    self._finish_blocks()
                    raise KeyboardInterrupt
                if not member.is_folder:
                    self._take(member, members)
                if (done := members.done) != shown:
                    advance(done - shown, note=f"{self.tally.utterances:,} utterances")
                    shown = done
            advance(members.done - shown, note=f"{self.tally.utterances:,} utterances")

    def _take(self, member: TarMember, members: MemberStream) -> None:
        try:
            utterance = utterance_of(member)
        except StrangerError as error:
            self.tally.add_stranger(str(error), member.name)
            return
        key = VideoKey(utterance.speaker_id, utterance.video_id)
        if key != self._key:
            self._begin(key, members)
        if self._video is None:
            self.tally.skipped += 1
        elif self._is_new(self._video, utterance.utterance_id, members):
            self._add(self._video, utterance.utterance_id, member, members)
        else:
            self.tally.duplicates += 1

    def _begin(self, key: VideoKey, members: MemberStream) -> None:
        """Begin a video, after a commit if one is due."""
        self._end_video()
        point = members.point
        if point is not None and point is not self._committed:
            self._commit(members)
        if any(key in job.names for job in self._full):
            self._finish_blocks()  # what is known of it is in the ledger then
        self._key = key
        self._video = self._context.wanted.look_up(key, self._job.number)

    def _is_new(self, video: WantedVideo, utterance_id: str, members: MemberStream) -> bool:
        """Return whether an utterance is to be cut; make room for a video that is new."""
        names = self._job.names.get(video.key)
        if utterance_id in video.names or (names is not None and utterance_id in names):
            return False
        if self._context.wanted.is_purged(video.key, utterance_id):
            return False
        if names is None and self._job.is_full:
            self._begin_job(members)
        return True

    def _begin_job(self, members: MemberStream) -> None:
        """Seal the job, and begin another with the file that was read last."""
        context, position, point = self._context, members.position, members.point
        full = self._job
        self._full.append(full)
        self._committed = point
        self._job = CutJob(
            context.store,
            context.ledger,
            context.verdicts,
            # The ledger has the full one at its first commit only.
            number=max(context.ledger.cut.next_number(), full.number + 1),
            place=full.place + 1,
            begin=position,
        )

        def seal() -> None:
            full.seal(position)
            self._full.popleft()
            self._save_point(position, point)

        self._write(self._blocks.afterwards(seal))

    def _add(
        self, video: WantedVideo, utterance_id: str, member: TarMember, members: MemberStream
    ) -> None:
        content = self._blocks.read(members, member.size_bytes)
        self._job.expect(video.key, utterance_id, video.digest)
        extension = member.name.rpartition(".")[2].lower()
        frames = video.frames.get(utterance_id)
        self._blocks.add(CutFile(utterance_id, extension, content, frames), member.size_bytes)
        self.tally.utterances += 1
        if self._blocks.is_overfull:
            self._end_video()

    def _end_video(self) -> None:
        if self._key is not None:
            self._write(self._blocks.end_video(self._key))

    # -- Writing -----------------------------------------------------------------------------------

    def _write(self, cut: Iterable[CutRows]) -> None:
        for rows in cut:
            (self._full[0] if self._full else self._job).add(rows)
            self.tally.changes.update(rows.video.changes)

    def _finish_blocks(self) -> None:
        self._end_video()
        self._write(self._blocks.finish())

    def _commit(self, members: MemberStream) -> None:
        """Let all that was read so far be written, and where the last member begins."""
        job, position, point = self._job, members.position, members.point

        def commit() -> None:
            job.commit(position)
            self._save_point(position, point)

        self._committed = point
        self._end_video()
        self._write(self._blocks.afterwards(commit))

    def _save_point(self, position: Position, point: SeekPoint | None) -> None:
        if point is not None:
            self._points.save(position.archive, point)
