"""One job, from media to shard: fetch, crop and write each video, then seal.

These functions run in worker processes. They get everything they need with the task and tell
the rest of the program only through files and their return value.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from voxblink2_lib.crop import crop_audio
from voxblink2_lib.errors import FetchError, MediaError, UnreachableError
from voxblink2_lib.records import (
    SAMPLE_RATE_HZ,
    AudioFormat,
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
        source: where media come from.
        part: the part file to write.
        tmp: folder for temporary files.
        schema: schema of the rows.
        audio_format: how clips are encoded.
    """

    key: VideoKey
    utterances: tuple[Utterance, ...]
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
    size_bytes = 0
    try:
        needed_seconds = max(one.seconds[1] for one in task.utterances)
        with open_source(task.source).fetch(
            task.key, needed_seconds=needed_seconds, tmp=task.tmp
        ) as media:
            size_bytes = media.size_bytes
            cut = crop_audio(media.path, task.utterances, audio_format=task.audio_format)
    except FetchError as error:
        return Outcome(
            task.key,
            "failed",
            str(error),
            seconds_taken=time.monotonic() - started,
            unreachable=isinstance(error, UnreachableError),
        )
    except MediaError as error:
        return Outcome(
            task.key,
            "unusable",
            str(error),
            bytes_fetched=size_bytes,
            seconds_taken=time.monotonic() - started,
        )
    outcome = Outcome(
        task.key,
        "done" if cut.clips else "unusable",
        _missing_words(len(cut.missing), len(task.utterances), cut.missing[0].reason)
        if cut.missing
        else "",
        clips=len(cut.clips),
        samples=round(
            sum(b - a for a, b in (c.utterance.seconds for c in cut.clips)) * SAMPLE_RATE_HZ
        ),
        missing=cut.missing,
        bytes_fetched=size_bytes,
        seconds_taken=time.monotonic() - started,
    )
    if cut.clips:
        rows = audio_rows(
            cut.clips,
            schema=task.schema,
            audio_format=task.audio_format,
            source=task.source.kind,
        )
        write_part(task.part, rows, outcome)
    return outcome


def _missing_words(missing: int, wanted: int, reason: str) -> str:
    return f"{missing} of {wanted} utterances could not be cut; the first {reason}"


def seal_job(task: SealTask) -> SealedShard:
    """Join a job's part files into its shard."""
    return seal_shard(task.job, task.parts, task.target, task.schema)
