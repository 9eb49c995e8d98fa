"""One budget of bytes and time for all that is downloaded of one video, on whatever path."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from voxblink2_lib.errors import FetchError

# A server that sends less than this, on average over this time, is given up.
_SLOW_BYTES_A_SECOND = 1024
_SLOW_SECONDS = 60.0

# What every video may take, and how much more for each needed second: 20 Mbit/s, which is video of
# 1,080 lines at its best, at a fifth of its speed.
_BASE_BYTES = 64 << 20
_BYTES_A_NEEDED_SECOND = 2_500_000
_BASE_SECONDS = 600.0
_SECONDS_A_NEEDED_SECOND = 5.0


@dataclass(frozen=True, slots=True)
class TransferBudget:
    """The most that one video may take.

    Attributes:
        bytes: that are downloaded.
        seconds: from the first request to the last byte.
    """

    bytes: int
    seconds: float

    @classmethod
    def of(cls, needed_seconds: float) -> Self:
        """Return the budget of a video of which so many seconds are needed.

        Example:
            >>> TransferBudget.of(60.0)
            TransferBudget(bytes=217108864, seconds=900.0)
        """
        return cls(
            _BASE_BYTES + int(_BYTES_A_NEEDED_SECOND * needed_seconds),
            _BASE_SECONDS + _SECONDS_A_NEEDED_SECOND * needed_seconds,
        )


class TransferMeter:
    """Counts downloaded bytes, gives up on slow and endless servers, and limits the rate.

    Args:
        budget: the most that the video may take. Under a rate limit, the time grows by what the
            bytes take at that rate.
        limit_rate: bytes a second at most; ``None`` means no limit.
        clock: seconds, monotonic.
        sleep: waits for a number of seconds.

    Attributes:
        received: bytes downloaded so far.
    """

    def __init__(
        self,
        budget: TransferBudget,
        *,
        limit_rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if limit_rate is not None and not limit_rate > 0:
            raise ValueError(f"limit_rate must be above 0 bytes a second, got {limit_rate}")
        self.received = 0
        self._limit_rate = limit_rate
        self._clock = clock
        self._sleep = sleep
        self._started = self._waiting_since = self._due = clock()
        self._window_seconds, self._window_bytes = 0.0, 0
        self._max_bytes, self._max_seconds = 0, 0.0
        self.extend(budget.bytes, budget.seconds)

    def allow(self, count: int) -> None:
        """Allow bytes beyond the budget, and the time that so many take: an index states them."""
        seconds_a_byte = _SECONDS_A_NEEDED_SECOND / _BYTES_A_NEEDED_SECOND
        self.extend(count, count * seconds_a_byte)

    def extend(self, count: int, seconds: float) -> None:
        """Extend the budget by seconds, and by bytes with their time at the rate limit."""
        self._max_bytes += count
        self._max_seconds += seconds + (count / self._limit_rate if self._limit_rate else 0.0)

    def start(self) -> None:
        """Begin to wait for the server.

        Raises:
            FetchError: the time is used up.
        """
        self._waiting_since = self._clock()
        self._check_time(self._waiting_since)

    def wait(self, seconds: float) -> None:
        """Let time pass that does not count towards the server's rate.

        Raises:
            FetchError: the time is used up.
        """
        self._sleep(seconds)
        self.start()

    @property
    def now(self) -> float:
        """The clock, in seconds."""
        return self._clock()

    def add(self, count: int) -> None:
        """Count bytes that were received since the last call.

        Only time spent waiting for the server counts towards its rate.

        Raises:
            FetchError: the server sends too slowly, or more than the budget.
        """
        now = self._clock()
        self.received += count
        self._window_bytes += count
        self._window_seconds += now - self._waiting_since
        self._check_rate()
        self._check_time(now)
        if self.received > self._max_bytes:
            raise FetchError(
                f"the server sent {self.received} bytes without covering the needed seconds; at "
                f"most {self._max_bytes} bytes of this video are downloaded",
                status="media-unusable",
            )
        if self._limit_rate:
            self._due = max(self._due, now) + count / self._limit_rate
            if self._due > now:
                self._sleep(self._due - now)
        self._waiting_since = self._clock()

    def _check_rate(self) -> None:
        if self._window_seconds < _SLOW_SECONDS:
            return
        if self._window_bytes < _SLOW_BYTES_A_SECOND * self._window_seconds:
            raise FetchError(
                f"the server sends too slowly: {self._window_bytes} bytes "
                f"in {self._window_seconds:.0f} s; at least {_SLOW_BYTES_A_SECOND} bytes a second "
                "are needed"
            )
        self._window_seconds, self._window_bytes = 0.0, 0

    def _check_time(self, now: float) -> None:
        taken = now - self._started
        if taken > self._max_seconds:
            raise FetchError(
                f"the download is not done after {taken:.0f} s and {self.received} bytes; one "
                f"video may take {self._max_seconds:.0f} s"
            )
