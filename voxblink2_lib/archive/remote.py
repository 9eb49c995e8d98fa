"""Files at URLs (``s3://``, ``hf://``, ``https://``): found, and read by ranges without a copy.

Everything goes through fsspec, which takes credentials from where its packages look for them. A
URL may hold credentials as well: they stay in :attr:`RemoteFile.url`, which is never shown.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from voxblink2_lib.archive.remote_reader import RemoteReader
from voxblink2_lib.archive.urls import (
    is_absence,
    is_web,
    name_in,
    own_errors,
    parent_of,
    split_query,
    system_of,
)
from voxblink2_lib.errors import SourceError
from voxblink2_lib.files import short_digest
from voxblink2_lib.redaction import redacted_source

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
        return name_in(self.url)

    @property
    def parent(self) -> str:
        """The URL above it, without secrets."""
        return parent_of(self.url)

    def __str__(self) -> str:
        return redacted_source(self.url)

    def open(self) -> io.BufferedReader:
        """Return a binary stream of its content; see :class:`RemoteReader`."""
        return io.BufferedReader(RemoteReader(self.url, self.size_bytes), 1 << 16)


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
        return name_in(self.url)

    @property
    def parent(self) -> str:
        """The URL above it, without secrets."""
        return parent_of(self.url)

    def __str__(self) -> str:
        return redacted_source(self.url)

    def child(self, name: str) -> str:
        """Return the URL of what is in it, with its secrets."""
        place, query = split_query(self.url)
        return f"{place.rstrip('/')}/{quote(name) if is_web(place) else name}{query}"

    def names(self) -> list[tuple[str, bool]]:
        """Return what is directly in it, sorted: names, and whether each is a folder.

        Raises:
            SourceError: it cannot be listed.
        """
        return [(name, facts["type"] == "directory") for name, facts in self._entries()]

    def _entries(self) -> list[tuple[str, Mapping[str, Any]]]:
        with own_errors(self.url, "listed"):
            system, path = system_of(self.url)
            system.invalidate_cache()
            entries = system.ls(path, detail=True)
        # Object stores may have an empty object for the folder itself.
        below = (entry for entry in entries if entry["name"].rstrip("/") != path.rstrip("/"))
        named = {self._listed_name(entry["name"]): entry for entry in below}
        return sorted(((name, facts) for name, facts in named.items() if name), key=_name_of_entry)

    def _listed_name(self, path: str) -> str:
        name = path.rstrip("/").rpartition("/")[2]
        # The system of HTTP puts names after the query of a URL.
        return unquote(name.partition("?")[0]) if is_web(self.url) else name

    def files(self) -> Iterator[tuple[str, RemoteFile]]:
        """Yield all files in and below it, sorted, with their paths in it.

        Raises:
            SourceError: it cannot be listed.
        """
        with own_errors(self.url, "listed"):
            system, path = system_of(self.url)
            system.invalidate_cache()
            entries = system.find(path, detail=True)
        start = len(path.rstrip("/")) + 1
        for name, facts in sorted(entries.items()):
            yield name[start:], _remote_file(self.child(name[start:]), facts)

    def walk(
        self, enters: Callable[[str], bool], *, levels: int
    ) -> Iterator[tuple[str, RemoteFile]]:
        """Yield files in and below it, sorted, with their paths in it.

        Args:
            enters: whether a folder is entered, by its name.
            levels: so many folders below each other are entered.

        Raises:
            SourceError: a folder cannot be listed.
        """
        for name, facts in self._entries():
            if facts["type"] != "directory":
                yield name, _remote_file(self.child(name), facts)
            elif levels and enters(name):
                for path, file in RemoteFolder(self.child(name)).walk(enters, levels=levels - 1):
                    yield f"{name}/{path}", file

    def contents(self, paths: list[str]) -> dict[str, bytes | Exception]:
        """Return the contents of some small files, fetched together, or why one has none."""
        with own_errors(self.url, "read"):
            system, path = system_of(self.url)
            named = {f"{path.rstrip('/')}/{name}": name for name in paths}
            answers = system.cat(list(named), on_error="return")
        return {named[key]: answer for key, answer in answers.items() if key in named}


def _name_of_entry(entry: tuple[str, Mapping[str, Any]]) -> str:
    return entry[0]


def find_remote(url: str) -> RemoteFile | RemoteFolder | None:
    """Return what is at a URL; ``None`` if there is nothing.

    Raises:
        SourceError: its server cannot be reached or refuses, or fsspec cannot open such URLs.
    """
    with own_errors(url, "reached"):
        system, path = system_of(url)
        system.invalidate_cache()
        try:
            facts = system.info(path)
        except FileNotFoundError as error:
            # The system of HTTP says so of whatever went wrong, and keeps the reason.
            if error.__cause__ is not None and not is_absence(error.__cause__):
                raise error.__cause__ from error
            return None
    is_page = facts.get("mimetype") == "text/html" and split_query(url)[0].endswith("/")
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
    return bool(_MAGIC.search(split_query(url)[0].rpartition("/")[2]))


def folder_of(url: str) -> RemoteFolder:
    """Return the folder that a file's URL is in, with its secrets."""
    place, query = split_query(url)
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
