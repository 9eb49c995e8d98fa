"""Records that cross from the scheduler to worker processes and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.outcomes import NO_ACTION, Outcome, RouteAction
from voxblink2_lib.records import FaceTrack, Utterance, VideoKey
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.sources.rate_limits import Permit, RateLimiter
from voxblink2_lib.store.layout import Store


@dataclass(frozen=True, slots=True)
class VideoTask:
    """One video to be cropped and written, and read or downloaded before.

    Attributes:
        key: the video.
        utterances: what to crop, in the order of the rows.
        tracks: the face of each utterance, in the same order; ``None`` for audio only.
        digest: hash of the video's annotations.
        source: where media come from.
        part: the part file to write.
        tmp: folder for temporary files.
        schema: schema of the rows.
        options: how clips are cropped and encoded.
        staged: folder of its media, where downloading is a step of its own.
        is_alone: no other video is cropped meanwhile; a worker has died of this one before.
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
    staged: Path | None = None
    is_alone: bool = False

    @property
    def needed_seconds(self) -> float:
        """How much of the video's beginning is needed."""
        return max(utterance.seconds[1] for utterance in self.utterances)


@dataclass(frozen=True, slots=True)
class FetchTask:
    """One video to be downloaded and staged.

    Attributes:
        key: the video.
        needed_seconds: how much of its beginning is needed.
        source: where it comes from, and by which route.
        with_video: whether video frames are needed besides the audio.
        target: folder to stage the media in.
        tmp: folder for temporary files, on the same file system.
        permit: the permission to request it.
        rate_limiter: where the permit is confirmed.
    """

    key: VideoKey
    needed_seconds: float
    source: SourceSpec
    with_video: bool
    target: Path
    tmp: Path
    permit: Permit
    rate_limiter: RateLimiter


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The result of a download.

    Attributes:
        key: the video.
        failure: its outcome if it is unavailable.
        is_unanswered: the source did not answer at all.
        action: what the failure means for the route.
        warnings: what yt-dlp warned of before it failed.
    """

    key: VideoKey
    failure: Outcome | None = None
    is_unanswered: bool = False
    action: RouteAction = NO_ACTION
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackupTask:
    """The ledger of a store, to be copied."""

    store: Store

    @property
    def target(self) -> Path:
        """The copy."""
        return self.store.backup


@dataclass(frozen=True, slots=True)
class SealTask:
    """One job whose videos are all finished."""

    job: int
    parts: tuple[Path, ...]
    target: Path
    schema: pa.Schema
