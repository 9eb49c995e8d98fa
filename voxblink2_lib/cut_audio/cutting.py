"""From files of utterances to rows of part files. These functions run in worker processes."""

from __future__ import annotations

import errno
from collections import Counter
from typing import NamedTuple

import pyarrow as pa

from voxblink2_lib.cut_audio.decoding import decode_file
from voxblink2_lib.cut_audio.members import FileRange
from voxblink2_lib.cut_audio.tasks import CutFile, CutTask, CutVideo, VideoFiles
from voxblink2_lib.errors import MediaError
from voxblink2_lib.files import named_system_errors
from voxblink2_lib.media.encoding import encode_pcm
from voxblink2_lib.outcomes import MissingUtterance, Outcome
from voxblink2_lib.records import (
    CUT_AUDIO,
    AudioFormat,
    Clip,
    UntimedClip,
    UntimedUtterance,
    Utterance,
    VideoKey,
)
from voxblink2_lib.store.shards import make_rows, read_part, read_part_outcome, write_part

# Of a folder: it was removed since it was listed, or its owner lets nobody read it.
_FAULTS_OF_A_FILE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP}


class _Clips(NamedTuple):
    """What the files of one video gave."""

    clips: list[Clip | UntimedClip]
    samples: int
    missing: list[MissingUtterance]
    size_bytes: int
    changes: Counter[str]


def cut_files(task: CutTask) -> list[CutVideo]:
    """Write the part files of videos, which are flushed to disk later, all at once.

    Raises:
        StoreError: the disk is full or fails; see :func:`voxblink2_lib.files.named_system_errors`.
    """
    return [_cut_video(video, task) for video in task.videos]


def _cut_video(video: VideoFiles, task: CutTask) -> CutVideo:
    with named_system_errors(video.part):
        before = _part_before(video, task.schema)
        new = _clips_of(video, before.names, task.audio_format)
        rows = make_rows(
            new.clips, schema=task.schema, audio_format=task.audio_format, source=CUT_AUDIO
        )
        if before.rows is not None:
            table = pa.Table.from_batches([*before.rows, rows])
            rows = table.combine_chunks().to_batches()[0]
        missing = (*before.outcome.missing, *new.missing)
        outcome = Outcome(
            video.key,
            "done",
            clips=before.outcome.clips + len(new.clips),
            samples=before.outcome.samples + new.samples,
            missing=tuple(sorted(set(missing))),
            digest=video.digest,
        )
        if rows.num_rows:
            write_part(video.part, rows, outcome, flush=False)
        return CutVideo(
            video.key,
            video.digest,
            outcome.clips,
            outcome.samples,
            outcome.missing,
            new.size_bytes,
            new.changes,
        )


class _Before(NamedTuple):
    """What a part file has of a video: its rows, their names, and the outcome in it."""

    outcome: Outcome
    names: frozenset[str] = frozenset()
    rows: list[pa.RecordBatch] | None = None


def _part_before(video: VideoFiles, schema: pa.Schema) -> _Before:
    nothing = Outcome(video.key, "done", clips=video.clips, samples=video.samples)
    outcome = read_part_outcome(video.part) if video.continues else None
    if outcome is None:
        return _Before(nothing)
    batches = list(read_part(video.part, schema))
    rows = [pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in batches]
    names = frozenset(name for batch in rows for name in batch["utterance_id"].to_pylist())
    return _Before(outcome, names, rows)


def _clips_of(video: VideoFiles, known: frozenset[str], audio_format: AudioFormat) -> _Clips:
    new = _Clips([], 0, [], 0, Counter())
    samples = size_bytes = 0
    for file in video.files:
        if file.utterance_id in known:
            continue
        try:
            data = _content(file)
            size_bytes += len(data)
            decoded = decode_file(data, file.extension)
        except MediaError as error:
            new.missing.append(MissingUtterance(file.utterance_id, str(error)))
            continue
        samples += len(decoded.samples)
        new.changes.update([decoded.change] if decoded.change else [])
        clip = encode_pcm(decoded.samples, audio_format=audio_format)
        new.clips.append(_clip(video.key, file, clip))
    return new._replace(samples=samples, size_bytes=size_bytes)


def _content(file: CutFile) -> bytes:
    if not isinstance(file.content, FileRange):
        return file.content
    try:
        return file.content.read()
    except OSError as error:
        if error.errno not in _FAULTS_OF_A_FILE:
            raise
        raise MediaError(f"it cannot be read: {error.strerror}") from error


def _clip(key: VideoKey, file: CutFile, data: bytes) -> Clip | UntimedClip:
    if file.frames is None:
        return UntimedClip(UntimedUtterance(*key, file.utterance_id), data)
    return Clip(Utterance(*key, file.utterance_id, *file.frames), data)
