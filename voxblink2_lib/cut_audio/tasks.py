"""Records that cross from the run to worker processes and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from voxblink2_lib.cut_audio.members import FileRange
from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import AudioFormat, VideoKey


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
    content: bytes | FileRange
    frames: tuple[int, int] | None


class VideoFiles(NamedTuple):
    """Files of one video.

    Attributes:
        key: the video.
        digest: hash of its annotations; 0 without any.
        part: its part file.
        files: the files, in the order of the rows.
        rows: so many rows of the part file stay; those after them are of a run that was killed.
        clips: how many clips the store has of it.
        samples: their length.
        missing: its files without a clip so far.
    """

    key: VideoKey
    digest: int
    part: Path
    files: tuple[CutFile, ...]
    rows: int = 0
    clips: int = 0
    samples: int = 0
    missing: tuple[MissingUtterance, ...] = ()


@dataclass(frozen=True, slots=True)
class CutTask:
    """Files that become rows of part files.

    Attributes:
        videos: whose they are.
        schema: columns of the rows.
        audio_format: how clips are encoded.
    """

    videos: tuple[VideoFiles, ...]
    schema: pa.Schema
    audio_format: AudioFormat

    @property
    def files(self) -> int:
        """Number of files."""
        return sum(len(video.files) for video in self.videos)


@dataclass(frozen=True, slots=True)
class CutVideo:
    """What became of the files of one video.

    Attributes:
        key: the video.
        digest: hash of its annotations.
        clips: how many clips it has by now, in this job and earlier ones.
        samples: their length.
        missing: its files that have no clip.
        duplicates: files of the task whose utterance is in the part file.
        size_bytes: of the files of the task.
        changes: how many of them were converted, by what they were before.
    """

    key: VideoKey
    digest: int
    clips: int
    samples: int
    missing: tuple[MissingUtterance, ...]
    duplicates: int = 0
    size_bytes: int = 0
    changes: Mapping[str, int] = field(default_factory=dict)
