"""Stop a training run so that it can be resumed."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import distributed

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Processes that train together check this often whether another one was signalled.
_STEPS_BETWEEN_CHECKS = 20


class StopSignals:
    """Notes SIGINT, SIGTERM and SIGUSR1, so that a run saves and ends after a step.

    SIGTERM is what ``scancel``, ``torchrun`` and most schedulers send, SIGUSR1 what Slurm's
    ``--signal=USR1@120`` sends two minutes before the end of the time. A second Ctrl-C interrupts
    at once.

    Attributes:
        received: whether this process got a signal.

    Example:
        In a loop over a ``TrainingLoader``::

            with StopSignals() as signals:
                for step, batch in enumerate(loader):
                    train(batch)
                    if signals.must_stop(step):
                        save()
                        break
    """

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._note) for number in _NUMBERS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        self.received = True

    def must_stop(self, step: int) -> bool:
        """Return whether to save and end now; the same in all processes that train together.

        Of several processes, all must call this after each step: they compare notes after every
        20th.

        Args:
            step: number of steps done; the same in all processes.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            return self.received
        if step % _STEPS_BETWEEN_CHECKS:
            return False
        on_gpu = distributed.get_backend() == "nccl"
        received = torch.tensor(int(self.received), device="cuda" if on_gpu else "cpu")
        distributed.all_reduce(received, distributed.ReduceOp.MAX)
        return bool(received)
