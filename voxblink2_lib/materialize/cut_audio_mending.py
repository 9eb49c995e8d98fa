"""Cut again, from the same cut audio, what a damaged shard had: repair has opened its job again."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from voxblink2_lib.archive.layout import StrangerError, utterance_of
from voxblink2_lib.archive.recognition import find_cut_audio
from voxblink2_lib.cut_audio.blocks import Blocks, CutRows
from voxblink2_lib.cut_audio.members import MemberStream, Position, open_members
from voxblink2_lib.cut_audio.seek_points import SeekPoints
from voxblink2_lib.cut_audio.tasks import CutFile
from voxblink2_lib.errors import SourceError
from voxblink2_lib.materialize.cut_audio_end import NOT_IN_ARCHIVE
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.outcomes import MissingUtterance, Outcome
from voxblink2_lib.progress import show_progress
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import AnnotatedVideo, Index
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import write_part


@dataclass(slots=True)
class _HurtVideo:
    """A video whose clips a job has lost.

    Attributes:
        part: the part file that its rows go to.
        left: ids of the utterances that were in the shard and are not found yet.
        files: those that are.
        annotated: its annotations, if there are any.
    """

    part: Path
    left: set[str]
    annotated: AnnotatedVideo | None
    files: list[CutFile] = field(default_factory=list)

    def frames(self, utterance_id: str) -> tuple[int, int] | None:
        for utterance in self.annotated.utterances if self.annotated else ():
            if utterance.utterance_id == utterance_id:
                return utterance.first_frame, utterance.last_frame
        return None


def cut_again(
    store: Store,
    ledger: Ledger,
    source: SourceSpec,
    *,
    jobs: Iterable[int],
    options: ClipOptions,
    workers: int,
) -> None:
    """Write the part files of the hurt videos of jobs, and their outcomes.

    Args:
        store: the store, locked by this process.
        ledger: its ledger.
        source: the cut audio.
        jobs: jobs that are open again.
        options: how clips are made.
        workers: number of processes.

    Raises:
        SourceError: the cut audio is not there any more.
        ArchiveDamagedError: a part is damaged or missing.
    """
    hurt = _hurt_videos(store, ledger, jobs)
    if not hurt:
        return
    audio = find_cut_audio(source.place)
    if audio is None:
        raise SourceError(f"The source {source.label} has no cut audio any more.")
    mending = _Mending(ledger, source, hurt)
    schema = arrow_schema(ledger.config)
    with (
        Blocks(workers, schema, options.audio_format) as blocks,
        open_members(audio, Position(), SeekPoints(store.root)) as members,
    ):
        mending.read(members, blocks)
        mending.write(blocks.finish())
    mending.give_up()


def _hurt_videos(
    store: Store, ledger: Ledger, jobs: Iterable[int]
) -> dict[VideoKey, list[_HurtVideo]]:
    has_index = (store.index / "index.json").exists()
    hurt: dict[VideoKey, list[_HurtVideo]] = {}
    for job in jobs:
        former = ledger.reopened.former(job)
        if former is None:
            continue
        keys = frozenset(former.hurt)
        annotated = {video.key: video for video in _annotated(store, keys if has_index else ())}
        for key, names in former.hurt.items():
            part = store.part(ledger.config, job, key)
            if not part.exists():
                video = _HurtVideo(part, set(names), annotated.get(key))
                hurt.setdefault(key, []).append(video)
    return hurt


def _annotated(store: Store, keys: Collection[VideoKey]) -> Iterable[AnnotatedVideo]:
    return Index(store.index).annotated(keys) if keys else ()


class _Mending:
    def __init__(
        self, ledger: Ledger, source: SourceSpec, hurt: dict[VideoKey, list[_HurtVideo]]
    ) -> None:
        self._ledger = ledger
        self._verdicts = ledger.verdicts(source.label)
        self._source = source
        self._hurt = hurt
        self._unfound = sum(map(len, hurt.values()))
        # What was handed to workers, in order: Blocks returns it so.
        self._handed_out: list[_HurtVideo] = []

    def read(self, members: MemberStream, blocks: Blocks) -> None:
        """Look for the files of the hurt videos, and hand them out."""
        shown = members.done
        with show_progress(
            "Looking for hurt videos", unit=members.unit, total=members.total
        ) as advance:
            for member in members:
                advance(members.done - shown)
                shown = members.done
                try:
                    speaker_id, video_id, utterance_id = utterance_of(member)
                except StrangerError:
                    continue
                key = VideoKey(speaker_id, video_id)
                for video in self._hurt.get(key, ()):
                    if utterance_id not in video.left:
                        continue
                    extension = member.name.rpartition(".")[2].lower()
                    content = (members.file_range() or members.read()) if member.size_bytes else b""
                    frames = video.frames(utterance_id)
                    video.files.append(CutFile(utterance_id, extension, content, frames))
                    video.left.discard(utterance_id)
                    if not video.left:
                        self._unfound -= 1
                        self._hand_out(key, video, blocks)
                if not self._unfound:
                    return

    def _hand_out(self, key: VideoKey, video: _HurtVideo, blocks: Blocks) -> None:
        for file in video.files:
            content = file.content
            blocks.add(file, len(content) if isinstance(content, bytes) else 0)
        self._handed_out.append(video)
        self.write(blocks.end_video(key))

    def write(self, cut: Iterable[CutRows]) -> None:
        """Write what comes back: first the part file, then the ledger."""
        for rows in cut:
            video = self._handed_out.pop(0)
            outcome = self._outcome(rows, video)
            if rows.rows is not None:
                write_part(video.part, rows.rows, outcome)
            self._verdicts.record(outcome)

    def _outcome(self, rows: CutRows, video: _HurtVideo) -> Outcome:
        came = {file.utterance_id for file in video.files}
        annotated = video.annotated.utterances if video.annotated else ()
        missing = [
            MissingUtterance(each.utterance_id, NOT_IN_ARCHIVE)
            for each in annotated
            if each.utterance_id not in came
        ]
        return Outcome(
            rows.video.key,
            "done" if rows.video.digests else "media-unusable",
            clips=len(rows.video.digests),
            samples=rows.video.samples,
            missing=tuple(sorted({*missing, *rows.video.missing})),
            bytes_fetched=rows.video.size_bytes,
            digest=video.annotated.digest if video.annotated else 0,
        )

    def give_up(self) -> None:
        """Write of videos that lack files that they lack them."""
        for key, videos in self._hurt.items():
            for video in videos:
                if video.left:
                    reason = f"{len(video.left)} of its files are not in {self._source.label}"
                    self._verdicts.record(Outcome(key, "gone", f"{reason} any more"))
