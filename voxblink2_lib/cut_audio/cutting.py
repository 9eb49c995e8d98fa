"""From files of utterances to rows of a shard. These functions run in worker processes."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from voxblink2_lib.cut_audio.decoding import decode_file
from voxblink2_lib.cut_audio.members import FileRange
from voxblink2_lib.cut_audio.tasks import CutBlock, CutFile, CutTask, CutVideo, VideoFiles
from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.encoding import encode_pcm
from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import (
    CUT_AUDIO,
    AudioFormat,
    Clip,
    UntimedClip,
    UntimedUtterance,
    Utterance,
    VideoKey,
)
from voxblink2_lib.store.row_digests import row_digests
from voxblink2_lib.store.shards import make_rows
from voxblink2_lib.workers.shared_memory import SharedRange

# Of a folder: it was removed since it was listed, or its owner lets nobody read it.
_FAULTS_OF_A_FILE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP}


def cut_files(task: CutTask) -> CutBlock:
    """Decode the files of videos, and encode them as rows.

    Raises:
        SourceError: a file has become shorter while it was read.
        OSError: one cannot be read, by a fault of the disk.
    """
    videos, messages = [], []
    for files in task.videos:
        video, rows = _cut_video(files, task.schema, task.audio_format)
        videos.append(video)
        messages.append(rows.serialize() if rows.num_rows else None)
    return CutBlock(tuple(videos), tuple(_delivered(messages, task.target)))


def _delivered(
    messages: list[pa.Buffer | None], target: SharedRange | None
) -> Iterable[bytes | int | None]:
    """Write messages to the target, and return their sizes; themselves if there is no room."""
    size_bytes = sum(message.size for message in messages if message is not None)
    if target is None or size_bytes > target.stop - target.start:
        return [None if message is None else message.to_pybytes() for message in messages]
    view, start = target.view(), 0
    for message in messages:
        if message is not None:
            view[start : start + message.size] = memoryview(message).cast("B")
            start += message.size
    return [None if message is None else message.size for message in messages]


def _cut_video(
    video: VideoFiles, schema: pa.Schema, audio_format: AudioFormat
) -> tuple[CutVideo, pa.RecordBatch]:
    clips: list[Clip | UntimedClip] = []
    missing: list[MissingUtterance] = []
    changes: Counter[str] = Counter()
    samples = size_bytes = 0
    for file in video.files:
        try:
            data = _content(file)
            size_bytes += len(data)
            decoded = decode_file(data, file.extension)
        except MediaError as error:
            missing.append(MissingUtterance(file.utterance_id, str(error)))
            continue
        samples += len(decoded.samples)
        changes.update([decoded.change] if decoded.change else [])
        clip = encode_pcm(decoded.samples, audio_format=audio_format)
        clips.append(_clip(video.key, file, clip))
    rows = make_rows(clips, schema=schema, audio_format=audio_format, source=CUT_AUDIO)
    digests = tuple(row_digests(rows))
    return CutVideo(video.key, samples, digests, tuple(missing), size_bytes, changes), rows


def _content(file: CutFile) -> bytes | memoryview:
    content = file.content
    if isinstance(content, SharedRange):
        return content.view()
    if not isinstance(content, FileRange):
        return content
    try:
        return content.read()
    except OSError as error:
        # A tar that is gone is no fault of its members.
        if content.is_in_tar or error.errno not in _FAULTS_OF_A_FILE:
            raise
        raise MediaError(f"it cannot be read: {error.strerror}") from error


def _clip(key: VideoKey, file: CutFile, data: bytes) -> Clip | UntimedClip:
    if file.frames is None:
        return UntimedClip(UntimedUtterance(*key, file.utterance_id), data)
    return Clip(Utterance(*key, file.utterance_id, *file.frames), data)
