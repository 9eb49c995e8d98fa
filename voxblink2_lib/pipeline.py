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

from voxblink2_lib.crop import crop_audio
from voxblink2_lib.errors import FetchError, MediaError, UnreachableError
from voxblink2_lib.records import (
    AudioFormat,
    Clip,
    MissingUtterance,
    Outcome,
    SealedShard,
    Utterance,
    VideoKey,
)
from voxblink2_lib.shards import audio_rows, seal_shard, write_part
from voxblink2_lib.sources import SourceSpec, open_source


@dataclass(frozen=True, slots=True)
class VideoTask:
    """One video to be brought, cut and written.

    Attributes:
        key: the video.
        utterances: what to cut, in the order of the rows.
        digest: hash of the video's annotations.
        source: where media come from.
        part: the part file to write.
        tmp: folder for temporary files.
        schema: schema of the rows.
        audio_format: how clips are encoded.
    """

    key: VideoKey
    utterances: tuple[Utterance, ...]
    digest: int
    source: SourceSpec
    part: Path
    tmp: Path
    schema: pa.Schema
    audio_format: AudioFormat


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
    source = open_source(task.source)
    try:
        with source.fetch(task.key, needed_seconds=needed_seconds, tmp=task.tmp) as media:
            size_bytes = media.size_bytes
            cut = crop_audio(media.path, task.utterances, audio_format=task.audio_format)
    except FetchError as error:
        silent = isinstance(error, UnreachableError)
        return Outcome(task.key, "failed", str(error), unreachable=silent)
    except MediaError as error:
        return Outcome(task.key, "unusable", str(error), bytes_fetched=size_bytes)
    outcome = Outcome(
        task.key,
        "done" if cut.clips else "unusable",
        _missing_words(cut.missing, len(task.utterances)),
        clips=len(cut.clips),
        samples=sum(stop - start for start, stop in (clip.utterance.samples for clip in cut.clips)),
        missing=cut.missing,
        bytes_fetched=size_bytes,
        digest=task.digest,
    )
    if cut.clips:
        write_part(task.part, _rows(task, cut.clips), outcome)
    return outcome


def _rows(task: VideoTask, clips: Sequence[Clip]) -> pa.RecordBatch:
    return audio_rows(
        clips, schema=task.schema, audio_format=task.audio_format, source=task.source.kind
    )


def _missing_words(missing: Sequence[MissingUtterance], wanted: int) -> str:
    if not missing:
        return ""
    return f"{len(missing)} of {wanted} utterances could not be cut; the first {missing[0].reason}"


def seal_job(task: SealTask) -> SealedShard:
    """Join a job's part files into its shard."""
    return seal_shard(task.job, task.parts, task.target, task.schema)
