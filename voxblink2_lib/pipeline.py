"""One job, from media to shard: fetch, crop and write each video, then seal.

These functions run in worker processes. They get everything they need with the task and tell
the rest of the program only through files and their return value.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from voxblink2_lib.config import ClipOptions
from voxblink2_lib.crop import crop_audio
from voxblink2_lib.errors import FetchError, MediaError, UnreachableError
from voxblink2_lib.faces import crop_faces
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


@dataclass(frozen=True, slots=True)
class SealTask:
    """One job whose videos are all finished."""

    job: int
    parts: tuple[Path, ...]
    target: Path
    schema: pa.Schema


def run_video(task: VideoTask) -> Outcome:
    """Bring one video, cut its utterances and write them to its part file.

    What can go wrong with one video is an outcome; everything else is raised.

    Raises:
        StoreFullError: the disk is full.
        DependencyError: FFmpeg is missing.
    """
    started = time.monotonic()
    outcome = _fetch_and_cut(task)
    return replace(outcome, digest=task.digest, seconds_taken=time.monotonic() - started)


def _fetch_and_cut(task: VideoTask) -> Outcome:
    size_bytes = 0
    needed_seconds = max(one.seconds[1] for one in task.utterances)
    source = open_source(task.source, pictures=task.tracks is not None)
    try:
        with source.fetch(task.key, needed_seconds=needed_seconds, tmp=task.tmp) as media:
            size_bytes = media.size_bytes
            clips, faces, missing = _cut(task, media)
    except FetchError as error:
        silent = isinstance(error, UnreachableError)
        return Outcome(task.key, "failed", str(error), unreachable=silent)
    except MediaError as error:
        return Outcome(task.key, "unusable", str(error), bytes_fetched=size_bytes)
    outcome = Outcome(
        task.key,
        "done" if clips else "unusable",
        _missing_words(missing, len(task.utterances)),
        clips=len(clips),
        samples=sum(stop - start for start, stop in (clip.utterance.samples for clip in clips)),
        missing=missing,
        bytes_fetched=size_bytes,
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
