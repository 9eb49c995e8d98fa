"""A progress that records its calls, in place of a bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from voxblink2_lib.progress import AdvanceWithNote


@dataclass
class RecordedTask:
    """A task with all that was counted for it."""

    task: str
    unit: str
    total: int | None
    done: int
    counts: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class RecordedProgress:
    """Records tasks. It is a :class:`voxblink2_lib.progress.Progress`."""

    def __init__(self) -> None:
        self.tasks: list[RecordedTask] = []

    @contextmanager
    def __call__(
        self, task: str, *, unit: str, total: int | None = None, done: int = 0
    ) -> Iterator[AdvanceWithNote]:
        record = RecordedTask(task, unit, total, done)
        self.tasks.append(record)

        def advance(count: int, /, *, note: str = "") -> None:
            record.counts.append(count)
            record.notes.append(note)

        yield advance
