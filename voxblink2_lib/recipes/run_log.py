"""What a run writes down as it goes: lines of JSON, which its report is made from.

A run that goes on from a checkpoint does the steps after it again. So the lines of those are cut
off first: each step is in the log once, as if the run had not been stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from voxblink2_lib.files import atomic_write

Kind = Literal["train", "score", "final"]
_KINDS = get_args(Kind)


class RunLog:
    """A file of records, one a line.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, kind: Kind, step: int, **values: float) -> None:
        """Write a record.

        Args:
            kind: what the record is of.
            step: how many steps are done.
            values: the numbers of the record, by name.
        """
        line = json.dumps({"kind": kind, "step": step, **values})
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def rewind(self, step: int) -> None:
        """Cut off what is after a step, the scores of an end, and half a line that a kill left.

        Args:
            step: the last that is kept.
        """
        kept = [
            record
            for record in self.records()
            if record["step"] <= step and record["kind"] != "final"
        ]
        with atomic_write(self._path.absolute()) as file:
            file.write("".join(f"{json.dumps(record)}\n" for record in kept).encode())

    def records(self, *kinds: Kind) -> list[dict[str, Any]]:
        """Return the records of some kinds, or all; a line that is no record ends them.

        Args:
            kinds: those of the records.
        """
        if not self._path.exists():
            return []
        records = []
        for line in self._path.read_text("utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
                if isinstance(record["step"], int) and record["kind"] in (kinds or _KINDS):
                    records.append(record)
            except (ValueError, KeyError, TypeError):
                break
        return records


@dataclass(slots=True)
class Meter:
    """Losses, utterances and times since the last record.

    Attributes:
        losses: sum of the losses of steps.
        steps: how many.
        utterances: how many, of all processes.
        waiting_seconds: in which the loop waited for batches.
        started: when counting began, on the monotonic clock.
    """

    losses: Any = 0.0
    steps: int = 0
    utterances: int = 0
    waiting_seconds: float = 0.0
    started: float = 0.0

    def restart(self) -> None:
        """Count from zero."""
        self.losses, self.steps, self.utterances = 0.0, 0, 0
        self.waiting_seconds, self.started = 0.0, time.monotonic()

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield batches, and count the time in which there is none yet.

        Args:
            batches: of a loader.
        """
        source = iter(batches)
        while True:
            asked = time.monotonic()
            batch = next(source, None)
            self.waiting_seconds += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def count(self, loss: Any, utterances: int) -> None:
        """Count a step. Its loss may be a tensor on a device, which is not waited for.

        Args:
            loss: of the step, a number or a tensor of one.
            utterances: of the step, in all processes.
        """
        self.losses = self.losses + loss
        self.steps += 1
        self.utterances += utterances

    def summary(self) -> dict[str, float]:
        """Return mean loss, utterances a second, and the share of time spent waiting."""
        loss = float(self.losses) / max(self.steps, 1)
        seconds = max(time.monotonic() - self.started, 1e-9)
        return {
            "loss": loss,
            "utterances_per_second": self.utterances / seconds,
            "waiting": min(1.0, self.waiting_seconds / seconds),
        }
