"""One job, from media to shard: fetch each video, cut and write it, then seal.

These functions run in worker processes. They get everything they need with the task and tell
the rest of the program only through files and their return value.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from voxblink2_lib.addresses import AddressBook, Turn
from voxblink2_lib.config import ClipOptions
from voxblink2_lib.crop import crop_audio
from voxblink2_lib.errors import FetchError, MediaError, UnreachableError
from voxblink2_lib.faces import crop_faces
from voxblink2_lib.kept import Fetched, drop, keep, open_kept
from voxblink2_lib.records import (
    Clip,
    FaceClip,
    MissingUtterance,
    Outcome,
    SealedShard,
    Utterance,
    VideoKey,
)
from voxblink2_lib.shards import make_rows, seal_shard, write_part
from voxblink2_lib.sources import Media, SourceSpec, open_source
from voxblink2_lib.tracks import FaceTrack


@dataclass(frozen=True, slots=True)
class VideoTask:
    """One video to be brought, cut and written.

    Attributes:
        key: the video.
        utterances: what to cut, in the order of the rows.
        tracks: the face of each utterance, in the same order; ``None`` for sound alone.
        digest: hash of the video's annotations.
        source: where media come from.
        part: the part file to write.
        tmp: folder for temporary files.
        schema: schema of the rows.
        options: how clips are cut and encoded.
        fetched: folder of its media, where fetching was a step of its own.
    """

    key: VideoKey
    utterances: tuple[Utterance, ...]
    digest: int
    source: SourceSpec
    part: Path
    tmp: Path
    schema: pa.Schema
    options: ClipOptions
    tracks: tuple[FaceTrack, ...] | None = None
    fetched: Path | None = None

    @property
    def needed_seconds(self) -> float:
        """How much of the video's beginning is needed."""
        return max(one.seconds[1] for one in self.utterances)


@dataclass(frozen=True, slots=True)
class FetchTask:
    """One video to be fetched over the network, to where its cutting looks for it.

    Attributes:
        key: the video.
        needed_seconds: how much of its beginning is needed.
        source: where it comes from, and by which outgoing address.
        pictures: whether pictures are needed.
        target: folder to keep the media in.
        tmp: folder for temporary files, on the same file system.
        turn: the permission to ask.
    """

    key: VideoKey
    needed_seconds: float
    source: SourceSpec
    pictures: bool
    target: Path
    tmp: Path
    turn: Turn


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What came of fetching a video.

    Attributes:
        key: the video.
        failure: its outcome if it did not come.
        is_unanswered: no answer came at all.
        pause_seconds: the source asked to wait so long.
        pause_grows: the source did not say how long; it is our own guess.
        closes_address: the source refuses the address.
    """

    key: VideoKey
    failure: Outcome | None = None
    is_unanswered: bool = False
    pause_seconds: float | None = None
    pause_grows: bool = False
    closes_address: bool = False


@dataclass(frozen=True, slots=True)
class SealTask:
    """One job whose videos are all finished."""

    job: int
    parts: tuple[Path, ...]
    target: Path
    schema: pa.Schema


def fetch_video(task: FetchTask) -> FetchResult:
    """Fetch one video and keep its media until they are cut.

    What can go wrong with one video is in the result; everything else is raised.

    Raises:
        StoreFullError: the disk is full.
    """
    started = time.monotonic()
    try:
        source = open_source(task.source, pictures=task.pictures)
        with source.fetch(
            task.key,
            needed_seconds=task.needed_seconds,
            tmp=task.tmp,
            answered=lambda: AddressBook().arrived(task.turn),
        ) as media:
            seconds_taken = time.monotonic() - started
            keep(media, task.target, Fetched(media.size_bytes, seconds_taken, task.source.via.name))
        return FetchResult(task.key)
    except FetchError as error:
        failure = Outcome(
            task.key,
            error.status,
            str(error),
            bytes_fetched=error.bytes_fetched,
            seconds_taken=time.monotonic() - started,
            address=task.source.via.name,
        )
        return FetchResult(
            task.key,
            failure,
            is_unanswered=isinstance(error, UnreachableError),
            pause_seconds=error.pause_seconds,
            pause_grows=error.pause_grows,
            closes_address=error.closes_address,
        )
    finally:
        # A turn whose first request got no answer counts until its end.
        AddressBook().arrived(task.turn)


def run_video(task: VideoTask) -> Outcome:
    """Bring one video, cut its utterances and write them to its part file.

    What can go wrong with one video is an outcome; everything else is raised.

    Raises:
        StoreFullError: the disk is full.
        DependencyError: FFmpeg is missing.
    """
    started = time.monotonic()
    found = open_kept(task.fetched) if task.fetched else None
    if task.fetched is not None and found is None:
        # Not fetched here: this process has no turn, and does not know by which address.
        return Outcome(task.key, "transient", f"the media in {task.fetched} are gone")
    about = found[1] if found else Fetched(0, 0.0, "")
    outcome = _bring_and_cut(task, found[0] if found else None, about)
    if task.fetched is not None:
        drop(task.fetched)
    taken = about.seconds_taken + time.monotonic() - started
    return replace(outcome, digest=task.digest, seconds_taken=taken)


def _bring(task: VideoTask, kept: Media | None) -> AbstractContextManager[Media]:
    if kept is not None:
        return nullcontext(kept)
    source = open_source(task.source, pictures=task.tracks is not None)
    return source.fetch(task.key, needed_seconds=task.needed_seconds, tmp=task.tmp)


def _bring_and_cut(task: VideoTask, kept: Media | None, about: Fetched) -> Outcome:
    bytes_fetched = about.bytes_fetched
    try:
        with _bring(task, kept) as media:
            bytes_fetched = bytes_fetched or media.size_bytes
            clips, faces, missing = _cut(task, media)
    except FetchError as error:
        return Outcome(task.key, error.status, str(error), bytes_fetched=error.bytes_fetched)
    except MediaError as error:
        return Outcome(
            task.key,
            "media-unusable",
            str(error),
            bytes_fetched=bytes_fetched,
            address=about.address,
        )
    outcome = Outcome(
        task.key,
        "done" if clips else "media-unusable",
        _missing_words(missing, len(task.utterances)),
        clips=len(clips),
        samples=sum(stop - start for start, stop in (clip.utterance.samples for clip in clips)),
        missing=missing,
        bytes_fetched=bytes_fetched,
        address=about.address,
        digest=task.digest,
    )
    if clips:
        rows = make_rows(
            clips,
            faces,
            schema=task.schema,
            audio_format=task.options.audio_format,
            source=task.source.kind,
        )
        write_part(task.part, rows, outcome)
    return outcome


def _cut(
    task: VideoTask, media: Media
) -> tuple[tuple[Clip, ...], tuple[FaceClip, ...], tuple[MissingUtterance, ...]]:
    """Cut sound and, where asked for, faces; an utterance that lacks one of them is missing."""
    # Sound first: it costs little, and what has none need not be looked at.
    sound = crop_audio(
        media.sound,
        task.utterances,
        audio_format=task.options.audio_format,
        pictures=media.path if media.sound_path else None,
    )
    if task.tracks is None:
        return sound.clips, (), sound.missing
    heard = {clip.utterance for clip in sound.clips}
    tracks = [track for track in task.tracks if track.utterance in heard]
    faces = crop_faces(media.path, tracks, options=task.options)
    seen = {clip.utterance for clip in faces.clips}
    both = tuple(clip for clip in sound.clips if clip.utterance in seen)
    return both, faces.clips, tuple(sorted((*sound.missing, *faces.missing)))


def _missing_words(missing: Sequence[MissingUtterance], wanted: int) -> str:
    if not missing:
        return ""
    return f"{len(missing)} of {wanted} utterances could not be cut; the first {missing[0].reason}"


def seal_job(task: SealTask) -> SealedShard:
    """Join a job's part files into its shard."""
    return seal_shard(task.job, task.parts, task.target, task.schema)
