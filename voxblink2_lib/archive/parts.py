"""Find the parts of an archive that was cut by bytes, and read them as one file."""

from __future__ import annotations

import glob
import io
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from voxblink2_lib.errors import SourceError
from voxblink2_lib.foreign_text import visible

# The authors' parts are named VB2_audio.tar.gz.00 to .39; split's default letters occur as well.
_PART = re.compile(
    r"(?P<stem>.+\.(?:tar|tgz|tar\.gz))\.?(?P<number>\d{1,5}|(?!gz$)[a-z]{2,3})", re.I
)
_WHOLE = re.compile(r".+\.(?:tar|tgz|tar\.gz)", re.I)
_NAMED = 5  # so many names are in a message


class Archive(NamedTuple):
    """One archive: a file, or the parts of one in their order.

    Attributes:
        name: without the number of a part.
        parts: the files.
    """

    name: str
    parts: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all parts."""
        return sum(path.stat().st_size for path in self.parts)


def find_archives(named: str) -> list[Archive]:
    """Return the archives that a path or a pattern names.

    Args:
        named: a folder of parts or tars, the first part, a whole tar (plain or gzip), or a pattern
            such as ``parts/VB2_audio.tar.gz.*``.

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


def _files(named: str) -> list[Path]:
    path = Path(named).expanduser()
    if path.is_dir():
        files = [child for child in sorted(path.iterdir()) if is_archive_name(child.name)]
        if not files:
            raise SourceError(f"{path} holds no archive: {_seen(path)}. {_ALLOWED}")
        return files
    if path.is_file():
        return _with_other_parts(path)
    files = [Path(name) for name in sorted(glob.glob(os.fspath(path))) if Path(name).is_file()]
    if not files:
        raise SourceError(f"There is no file {named!r}, and none that it stands for. {_ALLOWED}")
    return files


_ALLOWED = (
    "Name the parts (VB2_audio.tar.gz.00, .01, ...) by their folder, by the first of them or by a "
    "pattern in quotes, or name a tar, plain or gzip."
)


def _with_other_parts(path: Path) -> list[Path]:
    """Return a file; if it is the first part of an archive, all of its parts."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    siblings = [
        child
        for child in sorted(path.parent.iterdir())
        if (other := _PART.fullmatch(child.name)) and other["stem"] == match["stem"]
    ]
    if path.name != min(siblings, key=lambda child: _order(child.name)).name:
        raise SourceError(
            f"{path} is not the first part of {match['stem']}. Name the first, "
            f"{siblings[0]}, or their folder."
        )
    return siblings


def _seen(folder: Path) -> str:
    names = sorted(child.name for child in folder.iterdir())
    if not names:
        return "it is empty"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"it has {', '.join(visible(name) for name in names[:_NAMED])}{more}"


def _grouped(files: Iterable[Path]) -> list[Archive]:
    groups: dict[str, list[Path]] = {}
    for path in files:
        match = _PART.fullmatch(path.name)
        stem = match["stem"] if match else path.name
        groups.setdefault(os.fspath(path.parent / stem), []).append(path)
    return [_archive(Path(stem), paths) for stem, paths in sorted(groups.items())]


def _archive(stem: Path, paths: Sequence[Path]) -> Archive:
    """Return an archive of its parts, in the order of their numbers.

    Raises:
        SourceError: a part is missing, there twice, or the whole archive lies beside its parts.
    """
    numbered = sorted((_order(path.name), path) for path in paths)
    if len(paths) > 1 and not _PART.fullmatch(numbered[0][1].name):
        raise SourceError(
            f"{stem} lies beside parts of an archive of the same name, such as "
            f"{numbered[1][1].name}. Name one of both: the file, or the parts by a pattern."
        )
    _check_numbers(stem, [number for (_, number), _ in numbered], [path for _, path in numbered])
    return Archive(stem.name, tuple(path for _, path in numbered))


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


def _check_numbers(stem: Path, numbers: Sequence[int], paths: Sequence[Path]) -> None:
    twice = [
        path.name for path, number in zip(paths, numbers, strict=True) if numbers.count(number) > 1
    ]
    if twice:
        raise SourceError(
            f"{' and '.join(twice[:2])} in {stem.parent} are the same part of {stem.name}. "
            "Remove one of them."
        )
    first, last = numbers[0], numbers[-1]
    # Some tools count from 1. What lacks at the end shows only when the stream is read.
    expected = range(min(first, 1), last + 1)
    missing = sorted(set(expected) - set(numbers))
    if missing:
        what = "A part" if len(missing) == 1 else f"{len(missing):,} parts"
        raise SourceError(
            f"{what} of {stem} {'is' if len(missing) == 1 else 'are'} missing: "
            f"{', '.join(_like(paths[-1], number) for number in missing[:_NAMED])}"
            f"{' ...' if len(missing) > _NAMED else ''}; seen were {len(paths):,}, from "
            f"{paths[0].name} to {paths[-1].name}. Fetch them, then run the same command again."
        )


def _like(path: Path, number: int) -> str:
    """Return the name of a part with another number, written as that of another part is."""
    match = _PART.fullmatch(path.name)
    assert match is not None, path
    text = match["number"]
    if text.isdigit():
        written = f"{number:0{len(text)}}"
    else:
        letters = []
        for _ in text:
            number, rest = divmod(number, 26)
            letters.append(chr(ord("a") + rest))
        written = "".join(reversed(letters))
    return path.name[: match.start("number")] + written


class JoinedFile(io.RawIOBase):
    """The parts of an archive as one file, opened one at a time.

    Args:
        parts: the files, in their order.
    """

    def __init__(self, parts: Sequence[Path]) -> None:
        super().__init__()
        self._parts = parts
        self._ends = list(accumulate(path.stat().st_size for path in parts))
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

    def place(self, offset: int) -> tuple[Path, int]:
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
            self._opened = (number, open(self._parts[number], "rb"))  # noqa: SIM115  # see close
        return self._opened[1]

    def _close_part(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def close(self) -> None:
        """Close the part that is open."""
        self._close_part()
        super().close()
