"""One job, from media to shard: fetch each video, cut and write it, then seal.

These functions run in worker processes. They get everything they need with the task and tell
the rest of the program only through files and their return value.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from voxblink2_lib.errors import FetchError, MediaError, UnreachableError
from voxblink2_lib.materialize.fetched_media import FetchRecord, discard, open_staged, stage
from voxblink2_lib.materialize.tasks import FetchResult, FetchTask, SealTask, VideoTask
from voxblink2_lib.media.audio import crop_audio
from voxblink2_lib.media.faces import crop_faces
from voxblink2_lib.outcomes import MissingUtterance, Outcome
from voxblink2_lib.records import Clip, FaceClip, SealedShard
from voxblink2_lib.sources import Media, open_source
from voxblink2_lib.sources.rate_limits import RateLimiter
from voxblink2_lib.store.shards import make_rows, seal_shard, write_part


def fetch_video(task: FetchTask) -> FetchResult:
    """Fetch one video and keep its media until they are cut.

    What can go wrong with one video is in the result; everything else is raised.

    Raises:
        StoreFullError: the disk is full.
    """
    started = time.monotonic()
    try:
        source = open_source(task.source, with_video=task.pictures)
        with source.fetch(
            task.key,
            needed_seconds=task.needed_seconds,
            tmp=task.tmp,
            answered=lambda: RateLimiter().arrived(task.turn),
        ) as media:
            seconds_taken = time.monotonic() - started
            stage(
                media,
                task.target,
                FetchRecord(media.size_bytes, seconds_taken, task.source.route.name),
            )
        return FetchResult(task.key)
    except FetchError as error:
        failure = Outcome(
            task.key,
            error.status,
            str(error),
            bytes_fetched=error.bytes_fetched,
            seconds_taken=time.monotonic() - started,
            address=task.source.route.name,
        )
        return FetchResult(
            task.key,
            failure,
            is_unanswered=isinstance(error, UnreachableError),
            pause_seconds=error.pause_seconds,
            pause_grows=error.pause_grows,
            closes_route=error.closes_route,
        )
    finally:
        # A turn whose first request got no answer counts until its end.
        RateLimiter().arrived(task.turn)


def run_video(task: VideoTask) -> Outcome:
    """Bring one video, cut its utterances and write them to its part file.

    What can go wrong with one video is an outcome; everything else is raised.

    Raises:
        StoreFullError: the disk is full.
        DependencyError: FFmpeg is missing.
    """
    started = time.monotonic()
    found = open_staged(task.fetched) if task.fetched else None
    if task.fetched is not None and found is None:
        # Not fetched here: this process has no turn, and does not know by which address.
        return Outcome(task.key, "transient", f"the media in {task.fetched} are gone")
    about = found[1] if found else FetchRecord(0, 0.0, "")
    outcome = _bring_and_cut(task, found[0] if found else None, about)
    if task.fetched is not None:
        discard(task.fetched)
    taken = about.seconds_taken + time.monotonic() - started
    return replace(outcome, digest=task.digest, seconds_taken=taken)


def _bring(task: VideoTask, kept: Media | None) -> AbstractContextManager[Media]:
    if kept is not None:
        return nullcontext(kept)
    source = open_source(task.source, with_video=task.tracks is not None)
    return source.fetch(task.key, needed_seconds=task.needed_seconds, tmp=task.tmp)


def _bring_and_cut(task: VideoTask, kept: Media | None, about: FetchRecord) -> Outcome:
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
        media.audio,
        task.utterances,
        audio_format=task.options.audio_format,
        video_path=media.path if media.audio_path else None,
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
