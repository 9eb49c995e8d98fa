"""Records that cross from the run to worker processes and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from voxblink2_lib.cut_audio.members import FileRange
from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import AudioFormat, VideoKey
from voxblink2_lib.workers.shared_memory import SharedRange

Content = bytes | FileRange | SharedRange


class CutFile(NamedTuple):
    """A file of one utterance.

    Attributes:
        utterance_id: of its name.
        extension: of its name, in small letters.
        content: its bytes, or where they are.
        frames: first and last frame of the annotation, 25 a second; ``None`` without one.
    """

    utterance_id: str
    extension: str
    content: Content
    frames: tuple[int, int] | None


class VideoFiles(NamedTuple):
    """Files of one video, in the order of the rows."""

    key: VideoKey
    files: tuple[CutFile, ...]


@dataclass(frozen=True, slots=True)
class CutTask:
    """Files that become rows.

    Attributes:
        block: number of the block that they are of.
        first: place of the first video in the block.
        videos: whose they are.
        schema: columns of the rows.
        audio_format: how clips are encoded.
        target: where the rows are to be written; ``None`` to return them.
    """

    block: int
    first: int
    videos: tuple[VideoFiles, ...]
    schema: pa.Schema
    audio_format: AudioFormat
    target: SharedRange | None = None


@dataclass(frozen=True, slots=True)
class CutVideo:
    """What became of the files of one video.

    Attributes:
        key: the video.
        samples: length of its clips.
        digests: of its rows, one of each clip.
        missing: files that have no clip.
        size_bytes: of the files.
        changes: how many of them were converted, by what they were before.
    """

    key: VideoKey
    samples: int = 0
    digests: tuple[bytes, ...] = ()
    missing: tuple[MissingUtterance, ...] = ()
    size_bytes: int = 0
    changes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CutBlock:
    """What became of the files of a task.

    Attributes:
        videos: in the order of the task.
        messages: rows of each, as Arrow's messages; sizes of them if they were written to the
            target. ``None`` for a video without a clip.
    """

    videos: tuple[CutVideo, ...]
    messages: tuple[bytes | int | None, ...]
