"""Read a file at a URL by ranges: read ahead, and tried again."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from concurrent.futures import Future
from typing import Any

from voxblink2_lib.archive.urls import is_final, system_of, words_of
from voxblink2_lib.errors import SourceError
from voxblink2_lib.redaction import redacted_source

AHEAD_BYTES = 8 << 20
_PAUSES_SECONDS = (1.0, 3.0, 9.0)  # between tries


class RemoteReadError(SourceError):
    """A server does not send a file. Run the same command again."""

    exit_code = 3


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
        # Streams of fsspec serve one reader.
        self._lock = threading.Lock()

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
            RemoteReadError: the server does not send them, also when tried again.
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
        ahead, self._ahead = self._ahead, None
        is_ahead = ahead is not None and ahead[0] == start
        data = ahead[1].result() if ahead is not None and is_ahead else self._fetch(start)
        self._block, self._block_start = memoryview(data), start
        end = start + len(data)
        # Who looks at a file's beginning, or at one place in it, needs no more than that.
        if is_next and end < self._size_bytes:
            self._ahead = (end, self._fetch_beside(end))

    def _fetch_beside(self, start: int) -> Future[bytes]:
        """Fetch a block in a thread, for which neither Ctrl-C nor the end of the process waits."""
        future: Future[bytes] = Future()

        def fetch() -> None:
            try:
                future.set_result(self._fetch(start))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=fetch, name="voxblink2-remote", daemon=True).start()
        return future

    def _fetch(self, start: int) -> bytes:
        """Return the block that begins at a byte, after a few tries."""
        for pause in (*_PAUSES_SECONDS, None):
            try:
                with self._lock:
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
        """Close the file; what is being fetched is left alone, and thrown away."""
        if not self.closed and (self._ahead is None or self._ahead[1].done()):
            self._close_stream()
        self._block, self._ahead = memoryview(b""), None
        super().close()


def _unreadable(url: str, start: int, error: Exception) -> RemoteReadError:
    tries = "" if is_final(error) else f" in {len(_PAUSES_SECONDS) + 1} tries"
    return RemoteReadError(
        f"{redacted_source(url)} cannot be read from byte {start:,} on{tries}: "
        f"{words_of(error, url)}. Run the same command again when the server sends it."
    )
