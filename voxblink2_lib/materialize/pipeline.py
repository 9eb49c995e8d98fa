"""The stages of one job, from media to shard: download each video, crop and write it, then seal.

These functions run in worker processes. They get everything they need with the task, and return
results only through files and their return value.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from voxblink2_lib.errors import FetchError, MediaError, StoreError, UnreachableError
from voxblink2_lib.files import named_system_errors
from voxblink2_lib.materialize.fetched_media import FetchRecord, discard, open_staged, stage
from voxblink2_lib.materialize.tasks import (
    BackupTask,
    FetchResult,
    FetchTask,
    SealTask,
    VideoTask,
)
from voxblink2_lib.media.audio import crop_audio
from voxblink2_lib.media.coverage import covered_seconds
from voxblink2_lib.media.damage import memory_doubted, named_if_damaged
from voxblink2_lib.media.faces import crop_faces
from voxblink2_lib.outcomes import NO_FACTS, MediaFacts, MissingUtterance, Outcome
from voxblink2_lib.records import Clip, FaceClip, SealedShard, VideoKey
from voxblink2_lib.sources import Media, open_source
from voxblink2_lib.store.backup import back_up_ledger
from voxblink2_lib.store.shards import make_rows, seal_shard, write_part


class _Clips(NamedTuple):
    """What was cropped from one video; ``faces`` is empty for audio only."""

    audio: tuple[Clip, ...]
    faces: tuple[FaceClip, ...]
    missing: tuple[MissingUtterance, ...]
    facts: MediaFacts


_NO_CLIPS = _Clips((), (), (), NO_FACTS)


def fetch_video(task: FetchTask) -> FetchResult:
    """Download one video and stage its media until they are cropped.

    Failures of one video are in the result; everything else is raised.

    Raises:
        StoreError: the disk is full or fails; see :func:`voxblink2_lib.files.named_system_errors`.
    """
    started = time.monotonic()
    route = task.source.route.name
    confirm = functools.partial(task.rate_limiter.confirm, task.permit)
    try:
        source = open_source(task.source, with_video=task.with_video)
        with (
            named_system_errors(task.tmp),
            source.fetch(
                task.key, needed_seconds=task.needed_seconds, tmp=task.tmp, answered=confirm
            ) as media,
        ):
            seconds_taken = time.monotonic() - started
            record = FetchRecord(media.size_bytes, seconds_taken, route, media.facts)
            stage(media, task.target, record)
        return FetchResult(task.key)
    except FetchError as error:
        seconds_taken = time.monotonic() - started
        record = FetchRecord(error.bytes_fetched, seconds_taken, route, error.facts)
        return FetchResult(
            task.key,
            _failure(task.key, error, record),
            is_unanswered=isinstance(error, UnreachableError),
            action=error.action,
            warnings=error.warnings,
        )
    finally:
        # A permit whose first request got no answer counts until its end.
        confirm()


def fetch_canary(task: FetchTask) -> FetchResult:
    """Download the beginning of a video that is known to work, and throw it away.

    Raises:
        StoreError: the disk is full or fails; see :func:`voxblink2_lib.files.named_system_errors`.
    """
    result = fetch_video(task)
    try:
        staged = open_staged(task.target)
        if result.failure is not None or staged is None:
            return result
        media, record = staged
        if covered_seconds(media.audio, audio=True, video=False) >= task.needed_seconds:
            return result
        message = f"{record.bytes_fetched} bytes came, without {task.needed_seconds:g} s of audio"
        return FetchResult(task.key, _failure(task.key, MediaError(message), record))
    finally:
        discard(task.target)


def run_video(task: VideoTask) -> Outcome:
    """Crop the utterances of one video and write them to its part file.

    Failures of one video are outcomes; everything else is raised.

    Raises:
        StoreError: the disk is full or fails; see :func:`voxblink2_lib.files.named_system_errors`.
        MemoryError: memory is short; or, unless the video is tried alone, its media may claim to
            contain more than fits in any.
    """
    started = time.monotonic()
    doubt = contextlib.nullcontext() if task.is_alone else memory_doubted()
    try:
        with doubt, named_system_errors(task.part), media_for(task) as (media, record):
            return _crop_and_write(task, media, record)
    except FetchError as error:
        seconds_taken = time.monotonic() - started
        record = FetchRecord(error.bytes_fetched, seconds_taken, route="", facts=error.facts)
        return replace(_failure(task.key, error, record), digest=task.digest)


@contextlib.contextmanager
def media_for(task: VideoTask) -> Iterator[tuple[Media, FetchRecord]]:
    """Yield the media of a video, staged or fresh, and what reading or downloading them took.

    Staged media are removed at the end, unless an error is raised inside: a run that has no space
    for clips is repeated without another download.

    Raises:
        FetchError: the video is unavailable.
    """
    if task.staged is None:
        started = time.monotonic()
        source = open_source(task.source, with_video=task.tracks is not None)
        with source.fetch(task.key, needed_seconds=task.needed_seconds, tmp=task.tmp) as media:
            seconds_taken = time.monotonic() - started
            yield media, FetchRecord(media.size_bytes, seconds_taken, "", media.facts)
        return
    staged = open_staged(task.staged)
    if staged is None:
        # Not downloaded here: a process that crops has no permit and no route.
        raise FetchError(f"the media in {task.staged} are gone")
    yield staged
    discard(task.staged)


def _failure(key: VideoKey, error: FetchError | MediaError, record: FetchRecord) -> Outcome:
    """Return the outcome that an error of one video means."""
    if isinstance(error, FetchError):
        failure = record.failure(key, error.status, str(error))
        return replace(failure, is_explicit=error.is_explicit)
    return record.failure(key, "media-unusable", str(error))


def _crop_and_write(task: VideoTask, media: Media, record: FetchRecord) -> Outcome:
    started = time.monotonic()
    clips = _NO_CLIPS
    try:
        clips = _crop(task, media)
        outcome = _outcome_of(task, clips, record)
    except MediaError as error:
        outcome = _failure(task.key, error, record)
    seconds_taken = record.seconds_taken + time.monotonic() - started
    outcome = replace(outcome, digest=task.digest, seconds_taken=seconds_taken)
    if clips.audio:
        rows = make_rows(
            clips.audio,
            clips.faces,
            schema=task.schema,
            audio_format=task.options.audio_format,
            source=task.source.kind,
        )
        write_part(task.part, rows, outcome)
    return outcome


def _outcome_of(task: VideoTask, clips: _Clips, record: FetchRecord) -> Outcome:
    ranges = [clip.utterance.samples for clip in clips.audio]
    return Outcome(
        task.key,
        "done" if clips.audio else "media-unusable",
        _missing_message(clips.missing, len(task.utterances)),
        clips=len(clips.audio),
        samples=sum(stop - start for start, stop in ranges),
        missing=clips.missing,
        bytes_fetched=record.bytes_fetched,
        route=record.route,
        facts=replace(record.facts, **clips.facts.as_dict()),
        is_explicit=bool(clips.audio) or not record.route,
    )


def _crop(task: VideoTask, media: Media) -> _Clips:
    """Crop audio and, where requested, faces; an utterance that lacks one of them is missing."""
    # Audio first: it costs little, and no face is cropped for an utterance without audio.
    with named_if_damaged(media.audio):
        audio = crop_audio(
            media.audio,
            task.utterances,
            audio_format=task.options.audio_format,
            video_path=media.path if media.audio_path else None,
            track=task.options.audio_track,
        )
    if task.tracks is None:
        return _Clips(audio.clips, (), audio.missing, audio.facts)
    with_audio = {clip.utterance for clip in audio.clips}
    tracks = [track for track in task.tracks if track.utterance in with_audio]
    with named_if_damaged(media.path):
        faces = crop_faces(
            media.path,
            tracks,
            options=task.options,
            reference_height=media.facts.reference_height,
        )
    with_face = {clip.utterance for clip in faces.clips}
    both = tuple(clip for clip in audio.clips if clip.utterance in with_face)
    missing = tuple(sorted((*audio.missing, *faces.missing)))
    return _Clips(both, faces.clips, missing, audio.facts)


def _missing_message(missing: Sequence[MissingUtterance], requested: int) -> str:
    if not missing:
        return ""
    first = missing[0].reason
    return f"{len(missing)} of {requested} utterances could not be cropped; the first {first}"


def seal_job(task: SealTask) -> SealedShard:
    """Join a job's part files into its shard."""
    with named_system_errors(task.target):
        return seal_shard(task.job, task.parts, task.target, task.schema)


def back_up(task: BackupTask) -> str | None:
    """Copy the ledger; return why that failed, which is no reason to end a run."""
    try:
        back_up_ledger(task.store)
    except (StoreError, OSError) as error:
        return str(error)
    return None
