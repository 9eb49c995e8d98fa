"""Tasks of videos for tests that crop none."""

from __future__ import annotations

from pathlib import Path

from voxblink2_lib.materialize.tasks import VideoTask
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import Utterance, VideoKey
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.store.schema import arrow_schema


def video_task(number: int, folder: Path = Path("nowhere")) -> VideoTask:
    """Return a task with one utterance of a second."""
    return VideoTask(
        key=VideoKey("id000001", f"video{number:06}"),
        utterances=(Utterance("id000001", f"video{number:06}", "00001", 0, 24),),
        digest=7,
        source=SourceSpec("url", "http://media.example.org/{video_id}"),
        part=folder / f"{number}.arrow",
        tmp=folder,
        schema=arrow_schema("audio"),
        options=ClipOptions(),
    )
