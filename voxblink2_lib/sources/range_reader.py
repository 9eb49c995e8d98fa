"""One file on a server, read in ranges through yt-dlp's networking, and counted."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from yt_dlp import YoutubeDL
from yt_dlp.networking import Request
from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, TransportError

from voxblink2_lib.errors import FetchError

# YouTube slows larger requests down.
CHUNK_BYTES = 8 << 20

# What a broken connection costs: the last block is lost with it.
_BLOCK_BYTES = 1 << 14
_READ_TRIES = 3
_SLOW_BYTES_A_SECOND = 1024
_SLOW_SECONDS = 60.0
_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")


class FileChangedError(FetchError):
    """The server holds another file than a moment ago."""

    def __init__(self) -> None:
        super().__init__("the file on the server changed while it was read")


class TransferMeter:
    """Counts what comes, gives up on servers that drip, and keeps to a rate.

    Args:
        limit_rate: bytes a second at most; ``None`` means no limit.
        clock: seconds that only grow.
        sleep: waits for some seconds.

    Attributes:
        received: bytes that came over the network.
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
        self._mark = self._due = clock()
        self._slow_seconds, self._slow_bytes = 0.0, 0

    def start(self) -> None:
        """Begin to wait for the server."""
        self._mark = self._clock()

    def add(self, count: int) -> None:
        """Count bytes that came since the last call.

        Only time spent waiting for the server is held against it.

        Raises:
            FetchError: it sends too slowly.
        """
        now = self._clock()
        self.received += count
        self._slow_bytes += count
        self._slow_seconds += now - self._mark
        if self._slow_seconds >= _SLOW_SECONDS:
            if self._slow_bytes < _SLOW_BYTES_A_SECOND * self._slow_seconds:
                raise FetchError(
                    f"the server sends too slowly: {self._slow_bytes} bytes "
                    f"in {self._slow_seconds:.0f} s"
                )
            self._slow_seconds, self._slow_bytes = 0.0, 0
        if self._limit_rate:
            self._due = max(self._due, now) + count / self._limit_rate
            if self._due > now:
                self._sleep(self._due - now)
        self._mark = self._clock()


class RangeReader:
    """A file on a server.

    A server that ignores ranges sends the whole from its start: that answer is kept open, so
    that reading can go on in it later.

    Args:
        ydl: its networking is used.
        info: yt-dlp's description of the format.
        meter: counts what comes.

    Attributes:
        total: the file's length, once the server has said it.
        sends_ranges: the server keeps to ranges, as far as is known.
    """

    def __init__(self, ydl: YoutubeDL, info: dict[str, Any], meter: TransferMeter) -> None:
        self._ydl = ydl
        self._info = info
        self._meter = meter
        self._response: Any = None
        self._at = 0
        self._end: int | None = None
        self.total: int | None = None
        self.sends_ranges = True

    def is_end(self, at: int) -> bool:
        """Say whether the file ends here, as far as is known."""
        return at == self._end or (self.total is not None and at >= self.total)

    def close(self) -> None:
        """Hang up."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def fill(self, start: int, end: int, write: Callable[[bytes], object]) -> int:
        """Read on from one place up to another, or to the file's end; return where it stopped.

        Broken connections are taken up again as long as each brings something.

        Raises:
            FetchError: the server stopped sending, sends too slowly, or sends something else.
            HTTPError: the server refuses.
            TransportError: no answer came.
        """
        at, idle = start, 0
        while at < end and not self.is_end(at):
            before, error = at, None
            try:
                for block in self._blocks(at, min(end, at + CHUNK_BYTES)):
                    write(block)
                    at += len(block)
            except TransportError as caught:  # IncompleteRead is one
                self.close()
                error = caught
            idle = 0 if at > before else idle + 1
            if idle == _READ_TRIES and not self.is_end(at):
                if error and (not self._meter.received or isinstance(error, IncompleteRead)):
                    raise error
                told = f": {error}" if error else ""
                raise FetchError(f"the server stopped sending after {at} bytes{told}") from error
        return at

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield what one answer has of a range."""
        self._meter.start()
        if self._response is None or self._at > start:
            self.close()
            self._open(start, end)
        while self._response is not None and self._at < end:
            block = self._response.read(min(_BLOCK_BYTES, end - self._at))
            self._meter.add(len(block))
            if not block:
                self.close()
                if not self.sends_ranges and (self.total is None or self._at >= self.total):
                    self._end = self._at
                return
            self._at += len(block)
            # A server that ignores ranges begins at the start again.
            fresh = block[max(0, len(block) - max(0, self._at - start)) :]
            if fresh:
                yield fresh
        if self.sends_ranges:
            self.close()

    def _open(self, start: int, end: int) -> None:
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
            if self.total is not None and start < self.total:
                raise FileChangedError from error
            self._end = start
            return
        with contextlib.ExitStack() as stack:
            stack.callback(response.close)
            self._check(response, start)
            stack.pop_all()
        response.fp = _AvailableBytes(response.fp)
        self._response = response
        self._meter.add(0)

    def _check(self, response: Any, start: int) -> None:
        """Take in what an answer says of itself, and refuse what is no media."""
        kind = (response.get_header("Content-Type") or "").lower()
        if kind.startswith(("text/html", "application/xhtml")):
            raise FetchError("the server sent a page of HTML instead of media", status="ambiguous")
        packing = (response.get_header("Content-Encoding") or "identity").strip().lower()
        is_part = response.status == 206
        if is_part and packing != "identity":
            raise FetchError(
                f"the server packs parts of the file (Content-Encoding: {packing}), "
                "of which no media can be made",
                status="ambiguous",
            )
        if is_part:
            said = _RANGE.fullmatch((response.get_header("Content-Range") or "").strip())
            if said and said[1] and int(said[1]) != start:
                raise FetchError(f"the server sent bytes from {said[1]} on, not from {start} on")
            self._at, length = start, said[3] if said else ""
        else:
            self.sends_ranges, self._at = False, 0
            # Of a packed answer it is the packed length.
            length = response.get_header("Content-Length") if packing == "identity" else ""
        if length and length.isdigit():
            if self.total not in (None, int(length)):
                raise FileChangedError
            self.total = int(length)


class _AvailableBytes:
    """A response's stream whose `read` gives what has come, and does not wait for more.

    Otherwise nobody could tell a server that sends a byte a second from one that is silent.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, amount: int | None = None, **options: Any) -> Any:
        """Read up to an amount."""
        some = getattr(self._stream, "read1", None)
        return (some or self._stream.read)(amount, **options)
