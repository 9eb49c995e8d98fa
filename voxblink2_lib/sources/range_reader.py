"""Read one remote file by byte ranges, through yt-dlp's networking, and count the bytes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self

from yt_dlp import YoutubeDL
from yt_dlp.networking import Request
from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, TransportError

from voxblink2_lib.errors import FetchError
from voxblink2_lib.sources.transfer_meter import TransferMeter

# YouTube throttles larger requests.
CHUNK_BYTES = 8 << 20

# A broken connection loses the block that is being read.
_BLOCK_BYTES = 1 << 14
_READ_TRIES = 3

_MEDIA_HEADERS = ("Content-Type", "Content-Encoding", "Content-Range", "Content-Length")
_VERSION_HEADERS = ("ETag", "Last-Modified", "Date")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")


class FileChangedError(FetchError):
    """The server's file changed between two requests.

    Args:
        what: the header or number that differs.
        first: its value in the first answer.
        later: its value in a later one.
    """

    def __init__(self, what: str, first: object, later: object) -> None:
        super().__init__(
            f"the file on the server changed while it was read, twice: its {what} was {first}, "
            f"then {later}"
        )


def twice_if_changed(download: Callable[[], None]) -> None:
    """Download, and once more from the start if the file changed meanwhile.

    Raises:
        FileChangedError: it changed again.
    """
    try:
        download()
    except FileChangedError:
        # Once may be chance: the file may have been put in place just now.
        download()


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


@dataclass(frozen=True, slots=True)
class FileVersion:
    """By what a server tells versions of a file apart (RFC 9110, 8.8); empty where it does not.

    Attributes:
        etag: with the mark of a weak one.
        last_modified: a date, compared as text.
        is_date_exact: whether the file can have changed only once within that second.
    """

    etag: str = ""
    last_modified: str = ""
    is_date_exact: bool = False

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Read the headers ``ETag``, ``Last-Modified`` and ``Date`` of an answer."""
        etag, modified, date = (headers.get(name, "").strip() for name in _VERSION_HEADERS)
        return cls(etag, modified, bool(modified and date and modified != date))

    @property
    def if_range(self) -> str:
        """Value of a header ``If-Range``: a strong validator, or empty (RFC 9110, 13.1.5)."""
        if self.etag:
            return "" if self.etag.startswith("W/") else self.etag
        return self.last_modified if self.is_date_exact else ""

    def check(self, later: FileVersion) -> None:
        """Check that a later answer is of the same version, as far as both state it.

        Raises:
            FileChangedError: it is not.
        """
        if self.etag and later.etag:
            if self.etag.removeprefix("W/") != later.etag.removeprefix("W/"):
                raise FileChangedError("ETag", self.etag, later.etag)
        elif self.last_modified and later.last_modified not in {"", self.last_modified}:
            raise FileChangedError("Last-Modified", self.last_modified, later.last_modified)


# -- The file --------------------------------------------------------------------------------------


class RangeReader:
    """Reads a remote file forwards, from any position.

    A server that ignores ranges sends the whole file: that answer is kept open, so that later
    reads continue in it.

    Args:
        ydl: its networking is used.
        info: yt-dlp's description of the format.
        meter: counts the bytes.
        asks_range: request the beginning by its range, too. A segment of a stream is read whole,
            and only what is left of it after a broken connection is requested as a range.
        is_media: refuse pages of HTML. Keys and playlists are often served as such.

    Attributes:
        meter: counts the bytes.
        total: length of the file, once it is known.
        final_url: address of the last answer, after redirects.
        sends_ranges: whether the server supports ranges, as far as is known.
    """

    def __init__(
        self,
        ydl: YoutubeDL,
        info: Mapping[str, Any],
        meter: TransferMeter,
        *,
        asks_range: bool = True,
        is_media: bool = True,
    ) -> None:
        self._ydl = ydl
        self._info = info
        self.meter = meter
        self._asks_range = asks_range
        self._headers = _MEDIA_HEADERS if is_media else _MEDIA_HEADERS[1:]
        self._version: FileVersion | None = None
        self._response: Any = None
        self._position = 0
        self.final_url = str(info["url"])
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
        if error and (not self.meter.received or isinstance(error, IncompleteRead)):
            raise error
        cause = f": {error}" if error else ""
        raise FetchError(f"the server stopped sending after {position} bytes{cause}") from error

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a range that one answer contains."""
        self.meter.start()
        if self._response is None or self._position > start:
            self.close()
            self._open(start, end)
        while self._response is not None and self._position < end:
            block = self._response.read(min(_BLOCK_BYTES, end - self._position))
            self.meter.add(len(block))
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
        request = Request(self._info["url"], headers=self._request_headers(start, end))
        try:
            response = self._ydl.urlopen(request)
        except HTTPError as error:
            if error.status != 416 or not start:
                raise
            error.close()
            self._learn_total(start)
            return
        with contextlib.ExitStack() as stack:
            stack.callback(response.close)
            received = {
                name: response.get_header(name) or "" for name in self._headers + _VERSION_HEADERS
            }
            answer = parse_range_answer(response.status, received, start)
            self._learn_version(FileVersion.of(received))
            self._learn_total(answer.total)
            stack.pop_all()
        self.sends_ranges = self.sends_ranges and answer.is_partial
        self._position, self.final_url = answer.start, response.url
        response.fp = AvailableBytes(response.fp)
        self._response = response
        self.meter.add(0)

    def _request_headers(self, start: int, end: int) -> dict[str, str]:
        headers = {**(self._info.get("http_headers") or {}), "Accept-Encoding": "identity"}
        if start or self._asks_range:
            headers["Range"] = f"bytes={start}-{end - 1}"
            if self._version and self._version.if_range:
                headers["If-Range"] = self._version.if_range
        return headers

    def _learn_version(self, version: FileVersion) -> None:
        if self._version is None:
            self._version = version
        self._version.check(version)

    def _learn_total(self, total: int | None) -> None:
        if total is not None:
            if self.total not in {None, total}:
                raise FileChangedError("length", f"{self.total} bytes", f"{total} bytes")
            self.total = total


class AvailableBytes:
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
