"""Read one remote file by byte ranges, through yt-dlp's networking, and count the bytes."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from yt_dlp import YoutubeDL
from yt_dlp.networking import Request
from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, TransportError

from voxblink2_lib.errors import FetchError

# YouTube throttles larger requests.
CHUNK_BYTES = 8 << 20

# A broken connection loses the block that is being read.
_BLOCK_BYTES = 1 << 14
_READ_TRIES = 3

# A server that sends less than this, on average over this time, is given up.
_SLOW_BYTES_A_SECOND = 1024
_SLOW_SECONDS = 60.0

_ANSWER_HEADERS = ("Content-Type", "Content-Encoding", "Content-Range", "Content-Length")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")


class FileChangedError(FetchError):
    """The server's file changed between two requests."""

    def __init__(self) -> None:
        super().__init__("the file on the server changed while it was read")


# -- Bytes and time --------------------------------------------------------------------------------


class TransferMeter:
    """Counts downloaded bytes, gives up on slow servers, and limits the rate.

    Args:
        limit_rate: bytes a second at most; ``None`` means no limit.
        clock: seconds, monotonic.
        sleep: waits for a number of seconds.

    Attributes:
        received: bytes downloaded so far.
    """

    def __init__(
        self,
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
        self._waiting_since = self._due = clock()
        self._window_seconds, self._window_bytes = 0.0, 0

    def start(self) -> None:
        """Begin to wait for the server."""
        self._waiting_since = self._clock()

    def add(self, count: int) -> None:
        """Count bytes that were received since the last call.

        Only time spent waiting for the server counts towards its rate.

        Raises:
            FetchError: the server sends too slowly.
        """
        now = self._clock()
        self.received += count
        self._window_bytes += count
        self._window_seconds += now - self._waiting_since
        if self._window_seconds >= _SLOW_SECONDS:
            if self._window_bytes < _SLOW_BYTES_A_SECOND * self._window_seconds:
                raise FetchError(
                    f"the server sends too slowly: {self._window_bytes} bytes "
                    f"in {self._window_seconds:.0f} s"
                )
            self._window_seconds, self._window_bytes = 0.0, 0
        if self._limit_rate:
            self._due = max(self._due, now) + count / self._limit_rate
            if self._due > now:
                self._sleep(self._due - now)
        self._waiting_since = self._clock()


# -- Headers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RangeAnswer:
    """What the headers of an answer state about its body.

    Attributes:
        start: position of the body's first byte in the file.
        is_partial: whether the body is the requested range, and not the whole file.
        total: length of the file; ``None`` if the headers do not state it.
    """

    start: int
    is_partial: bool
    total: int | None


def parse_range_answer(status: int, headers: Mapping[str, str], start: int) -> RangeAnswer:
    """Parse the headers of an answer to a range request.

    Args:
        status: HTTP status, below 400.
        headers: those of ``Content-Type``, ``Content-Encoding``, ``Content-Range`` and
            ``Content-Length`` that the answer has.
        start: position of the first byte requested.

    Raises:
        FetchError: the body is not media, or not the requested range.

    Example:
        >>> parse_range_answer(206, {"Content-Range": "bytes 100-199/5000"}, 100)
        RangeAnswer(start=100, is_partial=True, total=5000)
        >>> parse_range_answer(200, {"Content-Length": "5000"}, 100)
        RangeAnswer(start=0, is_partial=False, total=5000)
    """
    if headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml")):
        raise FetchError("the server sent a page of HTML instead of media", status="ambiguous")
    encoding = headers.get("Content-Encoding", "").strip().lower() or "identity"
    if status != 206:
        # The length of a compressed body is not that of the file.
        length = headers.get("Content-Length", "") if encoding == "identity" else ""
        return RangeAnswer(0, is_partial=False, total=_length(length))
    if encoding != "identity":
        raise FetchError(
            f"the server compresses parts of the file (Content-Encoding: {encoding}), which "
            "cannot be decompressed one by one",
            status="ambiguous",
        )
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match and match[1] and int(match[1]) != start:
        raise FetchError(f"the server sent bytes from position {match[1]} instead of {start}")
    return RangeAnswer(start, is_partial=True, total=_length(match[3] if match else ""))


def _length(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


# -- The file --------------------------------------------------------------------------------------


class RangeReader:
    """Reads a remote file forwards, from any position.

    A server that ignores ranges sends the whole file: that answer is kept open, so that later
    reads continue in it.

    Args:
        ydl: its networking is used.
        info: yt-dlp's description of the format.
        meter: counts the bytes.

    Attributes:
        total: length of the file, once it is known.
        sends_ranges: whether the server supports ranges, as far as is known.
    """

    def __init__(self, ydl: YoutubeDL, info: dict[str, Any], meter: TransferMeter) -> None:
        self._ydl = ydl
        self._info = info
        self._meter = meter
        self._response: Any = None
        self._position = 0
        self.total: int | None = None
        self.sends_ranges = True

    def is_end(self, position: int) -> bool:
        """Return whether the file ends at a position, as far as is known."""
        return self.total is not None and position >= self.total

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def read_into(self, write: Callable[[bytes], object], start: int, end: int) -> int:
        """Read a range of the file, up to the file's end; return the position after it.

        A broken connection is reopened as long as each attempt makes progress.

        Args:
            write: takes the blocks, in order.
            start: position of the first byte.
            end: position after the last byte.

        Raises:
            FetchError: the server stopped sending, sends too slowly, or sends something else.
            HTTPError: the server refuses.
            TransportError: the server does not answer.
        """
        position, failures = start, 0
        while position < end and not self.is_end(position):
            before, error = position, None
            try:
                for block in self._blocks(position, min(end, position + CHUNK_BYTES)):
                    write(block)
                    position += len(block)
            except TransportError as caught:  # IncompleteRead is one
                self.close()
                error = caught
            failures = 0 if position > before else failures + 1
            if failures == _READ_TRIES and not self.is_end(position):
                self._give_up(position, error)
        return position

    def _give_up(self, position: int, error: TransportError | None) -> NoReturn:
        if error and (not self._meter.received or isinstance(error, IncompleteRead)):
            raise error
        cause = f": {error}" if error else ""
        raise FetchError(f"the server stopped sending after {position} bytes{cause}") from error

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a range that one answer contains."""
        self._meter.start()
        if self._response is None or self._position > start:
            self.close()
            self._open(start, end)
        while self._response is not None and self._position < end:
            block = self._response.read(min(_BLOCK_BYTES, end - self._position))
            self._meter.add(len(block))
            if not block:
                self.close()
                if not self.sends_ranges and self.total is None:
                    self.total = self._position
                return
            self._position += len(block)
            # A server that ignores ranges sends what is before the range, too.
            requested = block[max(0, len(block) - max(0, self._position - start)) :]
            if requested:
                yield requested
        if self.sends_ranges:
            self.close()

    def _open(self, start: int, end: int) -> None:
        """Request a range; without an answer if the file ends at its start."""
        headers = {
            **self._info.get("http_headers", {}),
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-{end - 1}",
        }
        try:
            response = self._ydl.urlopen(Request(self._info["url"], headers=headers))
        except HTTPError as error:
            if error.status != 416 or not start:
                raise
            error.close()
            self._learn_total(start)
            return
        with contextlib.ExitStack() as stack:
            stack.callback(response.close)
            received = {name: response.get_header(name) or "" for name in _ANSWER_HEADERS}
            answer = parse_range_answer(response.status, received, start)
            self._learn_total(answer.total)
            stack.pop_all()
        self.sends_ranges = self.sends_ranges and answer.is_partial
        self._position = answer.start
        response.fp = _AvailableBytes(response.fp)
        self._response = response
        self._meter.add(0)

    def _learn_total(self, total: int | None) -> None:
        if total is not None:
            if self.total not in {None, total}:
                raise FileChangedError
            self.total = total


class _AvailableBytes:
    """A response's stream whose ``read`` returns the bytes available, without waiting for more.

    Otherwise a server that sends a byte a second could not be told from a silent one.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, amount: int | None = None, **options: Any) -> Any:
        """Read up to an amount."""
        read = getattr(self._stream, "read1", None) or self._stream.read
        return read(amount, **options)
