"""Find the parts of an archive that was cut by bytes, and read them as one file.

They are local files or at URLs: ``s3://bucket/parts/``, ``hf://datasets/USER/REPO/*.tar``.
"""

from __future__ import annotations

import fnmatch
import glob
import io
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from voxblink2_lib.archive.remote import (
    RemoteFile,
    RemoteFolder,
    find_remote,
    folder_of,
    has_pattern,
    is_url,
    local_path,
    open_binary,
    remote_file,
    size_of,
)
from voxblink2_lib.errors import SourceError
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.redaction import redacted_source

# The authors' parts are named VB2_audio.tar.gz.00 to .39; split's default letters occur as well.
_PART = re.compile(
    r"(?P<stem>.+\.(?:tar|tgz|tar\.gz))\.?(?P<number>\d{1,5}|(?!gz$)[a-z]{2,3})", re.I
)
_WHOLE = re.compile(r".+\.(?:tar|tgz|tar\.gz)", re.I)
_NAMED = 5  # so many names are in a message

Part = Path | RemoteFile


class Archive(NamedTuple):
    """One archive: a file, or the parts of one in their order.

    Attributes:
        name: without the number of a part.
        parts: the files.
    """

    name: str
    parts: tuple[Part, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all parts."""
        return sum(map(size_of, self.parts))


def find_archives(named: str) -> list[Archive]:
    """Return the archives that a path, a URL or a pattern names.

    Args:
        named: a folder of parts or tars, the first part, a whole tar (plain or gzip), or a pattern
            such as ``parts/VB2_audio.tar.gz.*``; a path, or a URL that fsspec opens.

    Raises:
        SourceError: there is none, or a part of one is missing; says what was seen.
    """
    return _grouped(_files(named))


def is_archive_name(name: str) -> bool:
    """Return whether a file has the name of a tar or of a part of one.

    >>> [is_archive_name(name) for name in ("VB2_audio.tar.gz.00", "audio.tgz", "audio.zip")]
    [True, True, False]
    """
    return bool(_PART.fullmatch(name) or _WHOLE.fullmatch(name))


def _files(named: str) -> list[Part]:
    if is_url(named):
        return _remote_files(named)
    path = local_path(named)
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir())
        return [path / name for name in _archive_names(path, names)]
    if path.is_file():
        names = sorted(child.name for child in path.parent.iterdir())
        return [path.parent / name for name in _with_other_parts(path.parent, path.name, names)]
    files = [Path(name) for name in sorted(glob.glob(os.fspath(path))) if Path(name).is_file()]
    if not files:
        raise SourceError(f"There is no file {named!r}, and none that it stands for. {_ALLOWED}")
    return [*files]


def _remote_files(url: str) -> list[Part]:
    folder = folder_of(url)
    if has_pattern(url):
        pattern = url.rpartition("/")[2]
        names = [name for name in _file_names(folder) if fnmatch.fnmatchcase(name, pattern)]
    else:
        place = find_remote(url)
        if isinstance(place, RemoteFolder):
            folder = place
            names = _archive_names(folder, _file_names(folder))
        elif place is None:
            names = []
        elif _PART.fullmatch(place.name) is None:
            return [place]
        else:
            names = _with_other_parts(folder, place.name, _file_names(folder))
    if not names:
        shown = redacted_source(url)
        raise SourceError(f"There is no file {shown!r}, and none that it stands for. {_ALLOWED}")
    return [remote_file(folder.child(name)) for name in names]


def _file_names(folder: RemoteFolder) -> list[str]:
    return [name for name, is_folder in folder.names() if not is_folder]


def _archive_names(folder: Path | RemoteFolder, names: Sequence[str]) -> list[str]:
    archives = [name for name in names if is_archive_name(name)]
    if not archives:
        raise SourceError(f"{folder} holds no archive: {_seen(names)}. {_ALLOWED}")
    return archives


_ALLOWED = (
    "Name the parts (VB2_audio.tar.gz.00, .01, ...) by their folder, by the first of them or by a "
    "pattern in quotes, or name a tar, plain or gzip."
)


def _with_other_parts(folder: Path | RemoteFolder, name: str, names: Sequence[str]) -> list[str]:
    """Return a file's name; if it is the first part of an archive, those of all its parts."""
    match = _PART.fullmatch(name)
    if match is None:
        return [name]
    siblings = [
        other
        for other in names
        if (others := _PART.fullmatch(other)) and others["stem"] == match["stem"]
    ]
    if name != min(siblings, key=_order, default=name):
        raise SourceError(
            f"{folder}/{name} is not the first part of {match['stem']}. Name the first, "
            f"{folder}/{siblings[0]}, or their folder."
        )
    return siblings or [name]


def _seen(names: Sequence[str]) -> str:
    if not names:
        return "it is empty"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"it has {', '.join(visible(name) for name in names[:_NAMED])}{more}"


def _grouped(files: Iterable[Part]) -> list[Archive]:
    groups: dict[tuple[str, str], list[Part]] = {}
    for path in files:
        match = _PART.fullmatch(path.name)
        stem = match["stem"] if match else path.name
        groups.setdefault((str(path.parent), stem), []).append(path)
    return [_archive(folder, stem, paths) for (folder, stem), paths in sorted(groups.items())]


def _archive(folder: str, stem: str, paths: Sequence[Part]) -> Archive:
    """Return an archive of its parts, in the order of their numbers.

    Raises:
        SourceError: a part is missing, there twice, or the whole archive lies beside its parts.
    """
    in_order = sorted(paths, key=lambda path: (_order(path.name), path.name))
    names = [path.name for path in in_order]
    if len(names) > 1 and not _PART.fullmatch(names[0]):
        raise SourceError(
            f"{folder}/{stem} lies beside parts of an archive of the same name, such as "
            f"{names[1]}. Name one of both: the file, or the parts by a pattern."
        )
    _check_numbers(folder, stem, names)
    return Archive(stem, tuple(in_order))


def _order(name: str) -> tuple[int, int]:
    """Return a key that sorts parts: whole archives first, then by number or letters."""
    match = _PART.fullmatch(name)
    if match is None:
        return (0, 0)
    text = match["number"].lower()
    if text.isdigit():
        return (1, int(text))
    number = 0
    for letter in text:
        number = 26 * number + ord(letter) - ord("a")
    return (1, number)


def _check_numbers(folder: str, stem: str, names: Sequence[str]) -> None:
    numbers = [_order(name)[1] for name in names]
    twice = [name for name, number in zip(names, numbers, strict=True) if numbers.count(number) > 1]
    if twice:
        raise SourceError(
            f"{' and '.join(twice[:2])} in {folder} are the same part of {stem}. "
            "Remove one of them."
        )
    first, last = numbers[0], numbers[-1]
    # Some tools count from 1. What lacks at the end shows only when the stream is read.
    expected = range(min(first, 1), last + 1)
    missing = sorted(set(expected) - set(numbers))
    if missing:
        what = "A part" if len(missing) == 1 else f"{len(missing):,} parts"
        raise SourceError(
            f"{what} of {folder}/{stem} {'is' if len(missing) == 1 else 'are'} missing: "
            f"{', '.join(_like(names[-1], number) for number in missing[:_NAMED])}"
            f"{' ...' if len(missing) > _NAMED else ''}; seen were {len(names):,}, from "
            f"{names[0]} to {names[-1]}. Fetch them, then run the same command again."
        )


def _like(name: str, number: int) -> str:
    """Return the name of a part with another number, written as that of another part is."""
    match = _PART.fullmatch(name)
    assert match is not None, name
    text = match["number"]
    if text.isdigit():
        written = f"{number:0{len(text)}}"
    else:
        letters = []
        for _ in text:
            number, rest = divmod(number, 26)
            letters.append(chr(ord("a") + rest))
        written = "".join(reversed(letters))
    return name[: match.start("number")] + written


class JoinedFile(io.RawIOBase):
    """The parts of an archive as one file, opened one at a time.

    Args:
        parts: the files, in their order.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self._parts = parts
        self._ends = list(accumulate(map(size_of, parts)))
        self._position = 0
        self._opened: tuple[int, io.BufferedReader] | None = None

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}
        self._position = max(0, bases[whence] + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    @property
    def size_bytes(self) -> int:
        """Size of all parts."""
        return self._ends[-1] if self._ends else 0

    def place(self, offset: int) -> tuple[Part, int]:
        """Return the part that has a byte, and the byte's position in it.

        The byte after the last one is in the last part.
        """
        number = min(bisect_right(self._ends, offset), len(self._parts) - 1)
        start = self._ends[number - 1] if number else 0
        return self._parts[number], offset - start

    def readinto(self, buffer: Any) -> int:
        """Read what one part has from here on."""
        while self._position < self.size_bytes:
            number = bisect_right(self._ends, self._position)
            file = self._open(number)
            start = self._ends[number - 1] if number else 0
            file.seek(self._position - start)
            count = file.readinto(buffer)
            if count:
                self._position += count
                return count
            raise SourceError(f"{self._parts[number]} became shorter while it was read.")
        return 0

    def _open(self, number: int) -> io.BufferedReader:
        if self._opened is None or self._opened[0] != number:
            self._close_part()
            self._opened = (number, open_binary(self._parts[number]))
        return self._opened[1]

    def _close_part(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def close(self) -> None:
        """Close the part that is open."""
        self._close_part()
        super().close()
