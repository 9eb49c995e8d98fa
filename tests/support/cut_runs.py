"""Runs over cut audio in this process, with jobs, blocks and seek points for small archives."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import archive_builder, cli_process
from support.inline_pool import InlinePool
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.release.selection import Selection

BLOCKS = "voxblink2_lib.cut_audio.blocks"
JOB_VIDEOS = 4
POINT_BYTES = 50_000
SECONDS = 0.05


@contextmanager
def small(*, job_videos: int = JOB_VIDEOS, block_files: int = 5) -> Iterator[None]:
    """Let jobs, blocks and intervals be small, and calls run in this process."""
    with pytest.MonkeyPatch.context() as patched:
        for module in ("cut_audio.blocks", "materialize.scheduler"):
            patched.setattr(f"voxblink2_lib.{module}.WorkerPool", InlinePool)
        # A process that is killed loses nothing of what the system was to write later.
        patched.setattr("os.fsync", lambda _: None)
        job_size = "voxblink2_lib.materialize.cut_audio_job.job_size"
        patched.setattr(job_size, lambda _: job_videos)
        patched.setattr(f"{BLOCKS}._BLOCK_FILES", block_files)
        patched.setattr("voxblink2_lib.cut_audio.members.POINT_BYTES", POINT_BYTES)
        yield


def go(source: Path, store: Path, *, data_dir: Path | None = None, **options: Any) -> None:
    """Materialize cut audio; options are those of the request or of the selection."""
    names = {"speakers", "videos", "exclude", "max_speakers", "max_videos_per_speaker"}
    selection = {name: options.pop(name) for name in names & options.keys()}
    request = MaterializeRequest(
        data_dir=str(data_dir) if data_dir else None,
        source=str(source),
        store=str(store),
        workers=options.pop("workers", 1),
        selection=Selection.of(**selection),
        **options,
    )
    materialize(request, retry=True, wait=False)


def name_of(video: int, utterance: int) -> str:
    """Return the name of a member; each speaker has three videos."""
    return f"audio/id{video // 3:06}/video{video:06}/{utterance:05}.wav"


def in_order(videos: int, utterances: int = 3) -> list[str]:
    """Return the names of members, video after video."""
    return [name_of(video, each) for video in range(videos) for each in range(utterances)]


def round_robin(videos: int, utterances: int = 3) -> list[str]:
    """Return the names of members, in which no two of a video are beside each other."""
    pairs = itertools.product(range(utterances), range(videos))
    return [name_of(video, each) for each, video in pairs]


def content(name: str, *, seconds: float = SECONDS) -> bytes:
    """Return the file of a member: noise that its name decides."""
    video, utterance = name.split("/")[-2:]
    return archive_builder.wav(int(video[-6:]) * 1000 + int(utterance[:5]), seconds=seconds)


def write(folder: Path, names: Sequence[str], *, parts: int = 3, packed: bool = True) -> Path:
    """Write an archive of members in parts, and return the folder."""
    data = archive_builder.tar((name, content(name)) for name in names)
    archive_builder.write_parts(folder, gzip.compress(data, 1) if packed else data, parts)
    return folder


def row_names(store: Path) -> list[str]:
    """Return the names of all rows of a store, as their members have them, sorted."""
    return sorted(
        f"audio/{row['speaker_id']}/{row['video_id']}/{row['utterance_id']}.wav"
        for row in cli_process.rows(store)
    )
