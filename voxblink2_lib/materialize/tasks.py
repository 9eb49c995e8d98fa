"""Records that cross from the scheduler to worker processes and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.records import FaceTrack, Utterance, VideoKey
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.sources.rate_limits import Permit


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
        fetched: folder of its media, where fetching was a step of its own.
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
    fetched: Path | None = None

    @property
    def needed_seconds(self) -> float:
        """How much of the video's beginning is needed."""
        return max(one.seconds[1] for one in self.utterances)


@dataclass(frozen=True, slots=True)
class FetchTask:
    """One video to be fetched over the network, to where its cutting looks for it.

    Attributes:
        key: the video.
        needed_seconds: how much of its beginning is needed.
        source: where it comes from, and by which outgoing address.
        pictures: whether pictures are needed.
        target: folder to keep the media in.
        tmp: folder for temporary files, on the same file system.
        turn: the permission to ask.
    """

    key: VideoKey
    needed_seconds: float
    source: SourceSpec
    pictures: bool
    target: Path
    tmp: Path
    turn: Permit


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What came of fetching a video.

    Attributes:
        key: the video.
        failure: its outcome if it did not come.
        is_unanswered: no answer came at all.
        pause_seconds: the source asked to wait so long.
        pause_grows: the source did not say how long; it is our own guess.
        closes_route: the source refuses the address.
    """

    key: VideoKey
    failure: Outcome | None = None
    is_unanswered: bool = False
    pause_seconds: float | None = None
    pause_grows: bool = False
    closes_route: bool = False


@dataclass(frozen=True, slots=True)
class SealTask:
    """One job whose videos are all finished."""

    job: int
    parts: tuple[Path, ...]
    target: Path
    schema: pa.Schema
