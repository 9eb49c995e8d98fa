"""Calls that take long: shown from a minute on, and ended at a deadline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.video_tasks import video_task

from voxblink2_lib.materialize.deadlines import deadline_seconds, end_overdue, slow_lines
from voxblink2_lib.materialize.tasks import FetchTask, SealTask
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.sources.rate_limits import Permit, RateLimiter
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.workers.pool import RunningCall, WorkerPool

SEAL = SealTask(0, (), Path("store/shards/audio/audio-00000.arrow"), arrow_schema("audio"))


class TimedPool(WorkerPool):
    """States how long its calls have been running."""

    def __init__(self, *calls: tuple[Any, float]) -> None:
        super().__init__(64)
        self.calls = [
            RunningCall((id, task), worker, seconds)
            for worker, (task, seconds) in enumerate(calls, 1)
        ]
        self.ended: list[Any] = []

    def running(self) -> list[RunningCall]:
        return self.calls

    def end(self, overdue: RunningCall) -> None:
        self.ended.append(overdue.call[1])


def fetch(number: int, limiter: RateLimiter) -> FetchTask:
    return FetchTask(
        key=VideoKey("id000001", f"video{number:06}"),
        needed_seconds=1.0,
        source=SourceSpec("url", "http://media.example.org/{video_id}"),
        with_video=False,
        target=Path("staged"),
        tmp=Path("tmp"),
        permit=Permit(),
        rate_limiter=limiter,
    )


@pytest.fixture
def limiter(tmp_path: Path) -> RateLimiter:
    return RateLimiter(tmp_path / "limits.sqlite")


def test_a_call_is_ended_when_its_deadline_has_passed(limiter: RateLimiter) -> None:
    # Its only utterance ends after a second.
    assert deadline_seconds(video_task(1)) == 910
    first, second, download = video_task(1), video_task(2), fetch(3, limiter)
    croppers = TimedPool((first, 910.1), (second, 909.9), (SEAL, 1e6))
    fetchers = TimedPool((download, 7200.1), (fetch(4, limiter), 7199.9))
    end_overdue([croppers, fetchers])
    assert croppers.ended == [first]
    assert fetchers.ended == [download]


def test_calls_are_shown_that_take_long(limiter: RateLimiter) -> None:
    croppers = TimedPool(
        (video_task(1), 59.9), (video_task(2), 60.0), (SEAL, 61.0), (video_task(3), 359.0)
    )
    fetchers = TimedPool((fetch(4, limiter), 599.9), (fetch(5, limiter), 725.0))
    assert slow_lines(croppers, fetchers) == [
        "download of id000001/video000005 for 12 minutes",
        "worker 4 on id000001/video000003 for 5 minutes",
        "worker 3 on audio-00000.arrow for 1 minute",
        "worker 2 on id000001/video000002 for 1 minute",
    ]
    assert slow_lines(TimedPool(), TimedPool()) == []


def test_of_many_that_take_long_the_longest_are_shown() -> None:
    croppers = TimedPool(*((video_task(number), 60.0 * number) for number in range(1, 10)))
    lines = slow_lines(croppers, TimedPool())
    assert len(lines) == 6
    assert lines[0] == "worker 9 on id000001/video000009 for 9 minutes"
    assert lines[-1] == "4 more calls take long"
