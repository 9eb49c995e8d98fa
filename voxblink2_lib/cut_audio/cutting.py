"""From files of utterances to rows of part files. These functions run in worker processes."""

from __future__ import annotations

import errno
from collections import Counter
from typing import NamedTuple

import pyarrow as pa

from voxblink2_lib.cut_audio.decoding import decode_file
from voxblink2_lib.cut_audio.members import FileRange
from voxblink2_lib.cut_audio.tasks import CutFile, CutTask, CutVideo, VideoFiles
from voxblink2_lib.errors import MediaError, SourceError
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
from voxblink2_lib.store.shards import make_rows, read_part, write_part

# Of a folder: it was removed since it was listed, or its owner lets nobody read it.
_FAULTS_OF_A_FILE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP}


class _Clips(NamedTuple):
    """What the files of one video gave."""

    clips: list[Clip | UntimedClip]
    samples: int
    missing: list[MissingUtterance]
    duplicates: int
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
        before = _rows_before(video, task.schema)
        new = _clips_of(video, frozenset(before["utterance_id"].to_pylist()), task.audio_format)
        rows = make_rows(
            new.clips, schema=task.schema, audio_format=task.audio_format, source=CUT_AUDIO
        )
        result = CutVideo(
            video.key,
            video.digest,
            video.clips + len(new.clips),
            video.samples + new.samples,
            tuple(sorted({*video.missing, *new.missing})),
            new.duplicates,
            new.size_bytes,
            new.changes,
        )
        if len(before) + rows.num_rows:
            table = pa.concat_tables([before, pa.Table.from_batches([rows])])
            write_part(video.part, _one_batch(table), _outcome(result), flush=False)
        return result


def _rows_before(video: VideoFiles, schema: pa.Schema) -> pa.Table:
    """Return the rows that the ledger has of a part file; those after them come again."""
    if not video.rows:
        return schema.empty_table()
    batches = read_part(video.part, schema)
    rows = [pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in batches]
    return pa.Table.from_batches(rows, schema).slice(0, video.rows)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    if len(batches) > 1:  # more than 2 GB of bytes
        raise SourceError("The cut audio has more of one video than a shard can hold: 2 GB.")
    return batches[0]


def _outcome(result: CutVideo) -> Outcome:
    return Outcome(
        result.key,
        "done",
        clips=result.clips,
        samples=result.samples,
        missing=result.missing,
        digest=result.digest,
    )


def _clips_of(video: VideoFiles, known: frozenset[str], audio_format: AudioFormat) -> _Clips:
    new = _Clips([], 0, [], 0, 0, Counter())
    samples = size_bytes = duplicates = 0
    for file in video.files:
        if file.utterance_id in known:
            duplicates += 1
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
    return new._replace(samples=samples, size_bytes=size_bytes, duplicates=duplicates)


def _content(file: CutFile) -> bytes:
    if not isinstance(file.content, FileRange):
        return file.content
    try:
        return file.content.read()
    except OSError as error:
        # A tar that is gone is no fault of its members.
        if file.content.is_in_tar or error.errno not in _FAULTS_OF_A_FILE:
            raise
        raise MediaError(f"it cannot be read: {error.strerror}") from error


def _clip(key: VideoKey, file: CutFile, data: bytes) -> Clip | UntimedClip:
    if file.frames is None:
        return UntimedClip(UntimedUtterance(*key, file.utterance_id), data)
    return Clip(Utterance(*key, file.utterance_id, *file.frames), data)
