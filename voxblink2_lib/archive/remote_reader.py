"""Read a file at a URL by ranges: read ahead, and tried again."""

from __future__ import annotations

import contextlib
import io
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from voxblink2_lib.archive.urls import is_final, system_of, words_of
from voxblink2_lib.errors import SourceError
from voxblink2_lib.redaction import redacted_source

AHEAD_BYTES = 8 << 20
_PAUSES_SECONDS = (1.0, 3.0, 9.0)  # between tries


class RemoteReader(io.RawIOBase):
    """Reads a file at a URL in blocks; while one is used, the next is fetched.

    What fails is tried a few times. Memory: two blocks.

    Args:
        url: of the file, with its secrets.
        size_bytes: its size.
        offset: where to begin.
    """

    def __init__(self, url: str, size_bytes: int, *, offset: int = 0) -> None:
        super().__init__()
        self._url, self._size_bytes = url, size_bytes
        self._position = offset
        self._block, self._block_start = memoryview(b""), 0
        self._ahead: tuple[int, Future[bytes]] | None = None
        self._stream: Any = None
        # One thread: streams of fsspec serve one reader.
        self._fetcher = ThreadPoolExecutor(1, "voxblink2-remote")

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}
        self._position = max(0, bases[whence] + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read some bytes.

        Raises:
            SourceError: the server does not send them, also when tried again.
        """
        if self._position >= self._size_bytes:
            return 0
        if not 0 <= self._position - self._block_start < len(self._block):
            self._enter_block()
        start = self._position - self._block_start
        piece = self._block[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _enter_block(self) -> None:
        start = self._position
        is_next = bool(self._block) and start == self._block_start + len(self._block)
        if self._ahead is not None and self._ahead[0] == start:
            waiting = self._ahead[1]
        else:
            if self._ahead is not None:
                self._ahead[1].cancel()
            waiting = self._fetcher.submit(self._fetch, start)
        self._ahead = None
        self._block, self._block_start = memoryview(waiting.result()), start
        end = start + len(self._block)
        # Who looks at a file's beginning, or at one place in it, needs no more than that.
        if is_next and end < self._size_bytes:
            self._ahead = (end, self._fetcher.submit(self._fetch, end))

    def _fetch(self, start: int) -> bytes:
        """Return the block that begins at a byte, after a few tries."""
        for pause in (*_PAUSES_SECONDS, None):
            try:
                return self._fetched(start)
            except Exception as error:  # of botocore and aiohttp, many are no OSError
                self._close_stream()
                if pause is None or is_final(error):
                    raise _unreadable(self._url, start, error) from error
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _fetched(self, start: int) -> bytes:
        size = min(AHEAD_BYTES, self._size_bytes - start)
        if self._stream is None:
            system, path = system_of(self._url)
            self._stream = system.open(path, "rb", block_size=AHEAD_BYTES, cache_type="none")
        self._stream.seek(start)
        data = bytearray()
        while len(data) < size and (piece := self._stream.read(size - len(data))):
            data += piece
        if len(data) != size:
            raise EOFError(f"{size:,} bytes were requested, {len(data):,} came")
        return bytes(data)

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(Exception):  # it failed before
                stream.close()

    def close(self) -> None:
        """End what is being fetched."""
        if not self.closed:
            self._fetcher.shutdown(wait=True, cancel_futures=True)
            self._close_stream()
            self._block = memoryview(b"")
        super().close()


def _unreadable(url: str, start: int, error: Exception) -> SourceError:
    tries = "" if is_final(error) else f" in {len(_PAUSES_SECONDS) + 1} tries"
    return SourceError(
        f"{redacted_source(url)} cannot be read from byte {start:,} on{tries}: "
        f"{words_of(error, url)}. Run the same command again when the server sends it."
    )
