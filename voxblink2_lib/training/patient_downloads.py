"""Downloads at the same time, tried again until a deadline, with word of a server that fails.

They run in threads that nobody waits for: Ctrl-C ends the wait at once, and so does the deadline,
even where a server keeps a connection open and sends nothing.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from voxblink2_lib.published.remote_errors import is_worth_another_try, words_of
from voxblink2_lib.redaction import redacted_source

AT_ONCE = 16
# From the last answer that was good.
TELL_SECONDS = 3.0
DEADLINE_SECONDS = 60.0
PAUSES_SECONDS = (0.1, 0.3, 1.0, 2.0, 4.0)
_log = logging.getLogger(__name__)

T = TypeVar("T")


class PatientDownloads(Generic[T]):
    """Some downloads from a server. Make it, and call :meth:`run` once.

    Args:
        url: for messages.
        downloads: each is called until it returns, or raises what another try does not mend.
        deadline_seconds: how long after the last good answer they end.
    """

    def __init__(
        self, url: str, downloads: Sequence[Callable[[], T]], deadline_seconds: float
    ) -> None:
        self._url = url
        self._deadline_seconds = deadline_seconds
        self._waiting = deque(enumerate(downloads))
        self._results: dict[int, T] = {}
        self._count = len(downloads)
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._final: BaseException | None = None
        self._last_error: Exception | None = None
        self._is_told = False
        self._good_at = 0.0

    def run(self) -> list[T]:
        """Return the results, in order.

        Raises:
            TimeoutError: no answer came until the deadline.
            Exception: what a download raised, if it is final or came until the deadline.
        """
        self._good_at = time.monotonic()
        for _ in range(min(AT_ONCE, self._count)):
            threading.Thread(target=self._work, daemon=True).start()
        try:
            self._watch()
        finally:
            self._stop.set()
        return [self._results[number] for number in range(self._count)]

    def _watch(self) -> None:
        """Return when all is done; say once that a server fails, and end at the deadline."""
        with self._news:
            while len(self._results) < self._count:
                if self._final is not None:
                    raise self._final
                quiet = time.monotonic() - self._good_at
                if quiet >= self._deadline_seconds:
                    raise self._last_error or TimeoutError(f"no answer for {quiet:.0f} s")
                self._tell(quiet)
                until = self._deadline_seconds if self._is_told else TELL_SECONDS
                self._news.wait(max(0.0, until - quiet))

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                number, download = self._waiting.popleft()
            except IndexError:
                return
            self._try(number, download)

    def _try(self, number: int, download: Callable[[], T]) -> None:
        for tries in itertools.count():
            try:
                result = download()
            except Exception as error:
                is_final = not is_worth_another_try(error)
                self._note(error, is_final=is_final)
                pause = PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)]
                if is_final or self._stop.wait(pause):
                    return
            else:
                self._take(number, result)
                return

    def _take(self, number: int, result: T) -> None:
        with self._news:
            self._results[number] = result
            self._good_at = time.monotonic()
            if self._is_told:
                self._is_told = False
                _log.warning("%s answers again.", redacted_source(self._url))
            self._news.notify()

    def _note(self, error: Exception, *, is_final: bool) -> None:
        with self._news:
            self._last_error = error
            if is_final:
                self._final = error
                self._stop.set()
            else:
                self._tell(time.monotonic() - self._good_at)
            self._news.notify()

    def _tell(self, quiet_seconds: float) -> None:
        if self._is_told or quiet_seconds < TELL_SECONDS:
            return
        self._is_told = True
        error = self._last_error
        what = "has not answered" if error is None else f"fails ({words_of(error, self._url)})"
        left = self._deadline_seconds - quiet_seconds
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
        place = redacted_source(self._url)
        _log.warning("%s %s. It is tried again until %s.", place, what, until)
