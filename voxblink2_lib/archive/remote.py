"""Files at URLs (``s3://``, ``hf://``, ``https://``): found, and read by ranges without a copy.

Everything goes through fsspec, which takes credentials from where its packages look for them. A
URL may hold credentials as well: they stay in :attr:`RemoteFile.url`, which is never shown.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from voxblink2_lib.errors import SourceError, first_line
from voxblink2_lib.files import short_digest
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.redaction import redact, redacted_source, secrets_in

AHEAD_BYTES = 8 << 20
_PAUSES_SECONDS = (1.0, 3.0, 9.0)  # between tries
_MAGIC = re.compile(r"[*?\[]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# What changes with a file's content, the surest first; the names are those of fsspec's systems.
_VERSION_KEYS = (
    *("ETag", "etag", "blob_id", "md5Hash", "Content-MD5", "generation", "checksum", "xet_hash"),
    *("LastModified", "Last-Modified", "last_modified", "mtime", "updated", "modify"),
)


def is_url(named: str) -> bool:
    """Return whether a text names a place that fsspec opens. A ``file://`` URL is a local path.

    >>> [is_url(text) for text in ("s3://bucket/x", "/data/x", "file:///data/x", "c:/x")]
    [True, False, False, False]
    """
    return bool(_URL.match(named)) and not named.lower().startswith("file://")


def local_path(named: str) -> Path:
    """Return the path that is written down as such, or as a ``file://`` URL."""
    is_file_url = named.lower().startswith("file://")
    return Path(unquote(urlsplit(named).path) if is_file_url else named).expanduser()


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a URL. Its text is the URL without secrets.

    Attributes:
        url: with its secrets.
        size_bytes: its size.
        version: changes with its content; empty where its server says nothing that does.
        facts: all that its file system says of it.
    """

    url: str = field(repr=False)
    size_bytes: int
    version: str
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Its name, the last part of the URL's path."""
        return _name_in(self.url)

    @property
    def parent(self) -> str:
        """The URL above it, without secrets."""
        return redacted_source(_split(self.url)[0].rpartition("/")[0])

    def __str__(self) -> str:
        return redacted_source(self.url)

    def open(self) -> io.BufferedReader:
        """Return a binary stream of its content; see :class:`RemoteReader`."""
        return io.BufferedReader(RemoteReader(self), 1 << 16)


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """A folder at a URL. Its text is the URL without secrets.

    Attributes:
        url: with its secrets, without a slash at the end.
    """

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """Its name."""
        return _name_in(self.url)

    def __str__(self) -> str:
        return redacted_source(self.url)

    def child(self, name: str) -> str:
        """Return the URL of what is in it, with its secrets."""
        place, query = _split(self.url)
        return f"{place}/{quote(name) if _is_web(place) else name}{query}"

    def names(self) -> list[tuple[str, bool]]:
        """Return what is directly in it, sorted: names, and whether each is a folder.

        Raises:
            SourceError: it cannot be listed.
        """
        with _own_errors(self.url, "listed"):
            system, path = _system(self.url)
            system.invalidate_cache()
            entries = system.ls(path, detail=True)
        named = {
            _name_in(entry["name"].rstrip("/")): entry["type"]
            for entry in entries
            # Object stores may have an empty object for the folder itself.
            if entry["name"].rstrip("/") != path.rstrip("/")
        }
        return sorted((name, kind == "directory") for name, kind in named.items() if name)

    def files(self) -> Iterator[tuple[str, RemoteFile]]:
        """Yield all files in and below it, sorted, with their paths in it.

        Raises:
            SourceError: it cannot be listed.
        """
        with _own_errors(self.url, "listed"):
            system, path = _system(self.url)
            system.invalidate_cache()
            entries = system.find(path, detail=True)
        start = len(path.rstrip("/")) + 1
        for name, facts in sorted(entries.items()):
            yield name[start:], _remote_file(self.child(name[start:]), facts)

    def contents(self, paths: list[str]) -> dict[str, bytes | Exception]:
        """Return the contents of some small files, fetched together, or why one has none."""
        with _own_errors(self.url, "read"):
            system, path = _system(self.url)
            named = {f"{path.rstrip('/')}/{name}": name for name in paths}
            answers = system.cat(list(named), on_error="return")
        return {named[key]: answer for key, answer in answers.items() if key in named}


def find_remote(url: str) -> RemoteFile | RemoteFolder | None:
    """Return what is at a URL; ``None`` if there is nothing.

    Raises:
        SourceError: its server cannot be reached or refuses, or fsspec cannot open such URLs.
    """
    with _own_errors(url, "reached"):
        system, path = _system(url)
        system.invalidate_cache()
        try:
            facts = system.info(path)
        except FileNotFoundError as error:
            # The system of HTTP says so of whatever went wrong, and keeps the reason.
            if error.__cause__ is not None and not _is_absence(error.__cause__):
                raise error.__cause__ from error
            return None
    is_page = facts.get("mimetype") == "text/html" and url.endswith("/")
    if facts["type"] == "directory" or is_page:
        return RemoteFolder(url.rstrip("/"))
    return _remote_file(url, facts)


def remote_file(url: str) -> RemoteFile:
    """Return the file at a URL.

    Raises:
        SourceError: there is none, or its server cannot be reached.
    """
    found = find_remote(url)
    if isinstance(found, RemoteFile):
        return found
    raise SourceError(f"There is no file at {redacted_source(url)}.")


def has_pattern(url: str) -> bool:
    """Return whether the last part of a URL's path is a pattern such as ``*.tar``."""
    return bool(_MAGIC.search(_split(url)[0].rpartition("/")[2]))


def folder_of(url: str) -> RemoteFolder:
    """Return the folder that a file's URL is in, with its secrets."""
    place, query = _split(url)
    return RemoteFolder(f"{place.rpartition('/')[0]}{query}")


def open_binary(place: Path | RemoteFile) -> io.BufferedReader:
    """Open a file for reading, wherever it is."""
    return open(place, "rb") if isinstance(place, Path) else place.open()


def size_of(place: Path | RemoteFile) -> int:
    """Return the size of a file in bytes, wherever it is."""
    return place.stat().st_size if isinstance(place, Path) else place.size_bytes


def stamp_of(place: Path | RemoteFile) -> str:
    """Return a text that changes when a file does, wherever it is."""
    if isinstance(place, Path):
        state = place.stat()
        return f"{state.st_size} {state.st_mtime_ns}"
    return f"{place.size_bytes} {place.version}"


# -- Reading ---------------------------------------------------------------------------------------


class RemoteReader(io.RawIOBase):
    """Reads a file at a URL in blocks; while one is used, the next is fetched.

    What fails is tried a few times. Memory: two blocks.

    Args:
        file: the file.
        offset: where to begin.
    """

    def __init__(self, file: RemoteFile, *, offset: int = 0) -> None:
        super().__init__()
        self._file = file
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
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size_bytes}
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
        if self._position >= self._file.size_bytes:
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
        if is_next and end < self._file.size_bytes:
            self._ahead = (end, self._fetcher.submit(self._fetch, end))

    def _fetch(self, start: int) -> bytes:
        """Return the block that begins at a byte, after a few tries."""
        for pause in (*_PAUSES_SECONDS, None):
            try:
                return self._fetched(start)
            except Exception as error:  # of botocore and aiohttp, many are no OSError
                self._close_stream()
                if pause is None or _is_final(error):
                    raise _unreadable(self._file, start, error) from error
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _fetched(self, start: int) -> bytes:
        size = min(AHEAD_BYTES, self._file.size_bytes - start)
        if self._stream is None:
            system, path = _system(self._file.url)
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


def _unreadable(file: RemoteFile, start: int, error: Exception) -> SourceError:
    tries = "" if _is_final(error) else f" in {len(_PAUSES_SECONDS) + 1} tries"
    return SourceError(
        f"{file} cannot be read from byte {start:,} on{tries}: {_words(error, file.url)}. What was "
        "read before is kept: run the same command again when the server sends it."
    )


# -- fsspec ----------------------------------------------------------------------------------------


def _system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    return system, path


def _remote_file(url: str, facts: Mapping[str, Any]) -> RemoteFile:
    """Return a file of what its file system says of it, which of HTTP lists no sizes."""
    if facts.get("size") is None and "url" not in facts:
        return remote_file(url)
    if facts.get("size") is None:
        raise SourceError(
            f"{redacted_source(url)} cannot be read in parts: its server does not say how large it "
            "is. Download it, and name the file."
        )
    value = next((facts[key] for key in _VERSION_KEYS if facts.get(key)), "")
    version = short_digest(str(value).encode()) if value else ""
    return RemoteFile(url, int(facts["size"]), version, facts)


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _split(url: str) -> tuple[str, str]:
    """Return a URL without its query, and the query; only those of HTTP have one."""
    if not _is_web(url):
        return url, ""
    place, mark, query = url.partition("?")
    return place, f"{mark}{query}"


def _name_in(url: str) -> str:
    name = _split(url)[0].rpartition("/")[2]
    return unquote(name) if _is_web(url) else name


@contextlib.contextmanager
def _own_errors(url: str, verb: str) -> Iterator[None]:
    """Turn whatever fsspec, or the package of a protocol, raises into an error of ours."""
    place = redacted_source(url)
    try:
        yield
    except SourceError:
        raise
    except ImportError as error:
        raise SourceError(
            f"{place} cannot be {verb}: {_words(error, url)}. 's3://' needs the package s3fs "
            "(pip install 'voxblink2[s3]')."
        ) from error
    except Exception as error:
        raise SourceError(
            f"{place} cannot be {verb}: {_words(error, url)}. Check the address, the network, and "
            "that you may read it."
        ) from error


def _words(error: BaseException, url: str) -> str:
    """Return the message of a foreign error, without secrets and line ends."""
    text = redact(first_line(error), secrets_in(url))
    named = text if text.startswith(type(error).__name__) else f"{type(error).__name__}: {text}"
    return visible(shortened(named, quoted=False)).rstrip(".")


def _is_absence(error: BaseException) -> bool:
    return isinstance(error, FileNotFoundError) or getattr(error, "status", 0) in {404, 410}


def _is_final(error: Exception) -> bool:
    """Return whether trying again is of no use."""
    return isinstance(error, (FileNotFoundError, PermissionError, ValueError, ImportError)) or (
        _is_absence(error) or getattr(error, "status", 0) in {401, 403}
    )
