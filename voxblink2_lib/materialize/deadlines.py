"""How long the calls of workers may take, and which of them a run shows since they take long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from voxblink2_lib.materialize.tasks import BackupTask, FetchTask, SealTask, VideoTask
from voxblink2_lib.workers.pool import RunningCall, WorkerPool

# No decoder is so slow: a second of 4K video takes less than ten, also on an old machine that does
# other things besides.
_CROP_SECONDS = 900.0
_CROP_SECONDS_PER_SECOND = 10.0

# A download has a deadline of its own; this is for one that does not even get there.
_FETCH_SECONDS = 7200.0

# Downloads of some minutes are nothing special.
_SLOW_SECONDS = 60.0
_SLOW_FETCH_SECONDS = 600.0
_MOST_LINES = 5


def deadline_seconds(task: Any) -> float | None:
    """Return after how long the call of a task is ended; ``None`` for never."""
    if isinstance(task, VideoTask):
        return _CROP_SECONDS + _CROP_SECONDS_PER_SECOND * task.needed_seconds
    return _FETCH_SECONDS if isinstance(task, FetchTask) else None


def end_overdue(pools: Iterable[WorkerPool]) -> None:
    """Kill the processes of all calls that take longer than they may."""
    for pool in pools:
        for running in pool.running():
            deadline = deadline_seconds(running.call[1])
            if deadline is not None and running.seconds > deadline:
                pool.end(running)


def slow_lines(croppers: WorkerPool, fetchers: WorkerPool) -> list[str]:
    """Return a line for each call that takes long, the longest first, and not many.

    Args:
        croppers: the processes that crop and seal.
        fetchers: the processes that download.
    """
    slow = [running for running in croppers.running() if running.seconds >= _SLOW_SECONDS]
    slow += [running for running in fetchers.running() if running.seconds >= _SLOW_FETCH_SECONDS]
    slow.sort(key=lambda running: -running.seconds)
    lines = [_line(running) for running in slow[:_MOST_LINES]]
    more = len(slow) - len(lines)
    return [*lines, f"{more} more calls take long"] if more else lines


def _line(running: RunningCall) -> str:
    task = running.call[1]
    minutes = int(running.seconds // 60)
    duration = f"for {minutes} minute{'s' if minutes > 1 else ''}"
    if isinstance(task, SealTask | BackupTask):
        return f"worker {running.worker} on {task.target.name} {duration}"
    video = "/".join(task.key)
    if isinstance(task, FetchTask):
        return f"download of {video} {duration}"
    return f"worker {running.worker} on {video} {duration}"
