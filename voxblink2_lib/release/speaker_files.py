"""Find what a release has beside its annotations, and read it safely.

VoxBlink2                      VoxBlink1, in its folder resource
  data/spk2videos                video_list/spk2videos_full
  spk_info/<speaker>             video_tags/<speaker>.txt
  asr_res/<speaker>              meta/spk2gender, spk2lan, spk2loc

Files lie in the folder of the annotations, or in its folder ``data``. A folder of speakers may be
an archive of the same name, ``.tar.gz``, which is read as a stream. Nothing here is needed: what
cannot be read is left out, and named.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast, get_args

from voxblink2_lib.archive.tar_reader import TarFormatError, TarReader
from voxblink2_lib.errors import first_line
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.progress import Advance
from voxblink2_lib.records import is_speaker_id
from voxblink2_lib.release.location import Release

# One file for each speaker, in a folder or an archive.
TextKind = Literal["spk_info", "asr_res", "video_tags"]
TEXT_KINDS: tuple[TextKind, ...] = get_args(TextKind)
# One line for each speaker.
LIST_KINDS = {
    "spk2videos": ("spk2videos", "data/spk2videos", "video_list/spk2videos_full"),
    "spk2gender": ("meta/spk2gender",),
    "spk2lan": ("meta/spk2lan",),
    "spk2loc": ("meta/spk2loc",),
}
_MAX_FILE_BYTES = 4 << 20
_MAX_LIST_BYTES = 256 << 20
_MAX_LINE_CHARACTERS = 1 << 20
_MAX_PROBLEMS = 20

_DAMAGED = (TarFormatError, EOFError, zlib.error, OSError)


class SpeakerText(NamedTuple):
    """The file of one speaker."""

    speaker_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class SpeakerFiles:
    """What a release has beside its annotations.

    Attributes:
        paths: files and folders by their kind; only those that exist.
        problems: what could not be read so far; reading adds to it.
    """

    paths: Mapping[str, Path]
    problems: list[str]

    def signature(self) -> str:
        """Return a text that changes when the files change: names, sizes and times of change."""
        digest = hashlib.sha256()
        for kind, path in sorted(self.paths.items()):
            for name, size_bytes, modified_ns in _stamps(path):
                digest.update(os.fsencode(f"{kind} {name} {size_bytes} {modified_ns}\n"))
        return digest.hexdigest()

    def size_bytes(self, kind: TextKind) -> int:
        """Return the size of the files of a kind, or of their archive."""
        path = self.paths.get(kind)
        return 0 if path is None else sum(max(0, size) for _, size, _ in _stamps(path))

    def texts(self, kind: TextKind, advance: Advance | None = None) -> Iterator[SpeakerText]:
        """Yield the files of a kind, in the order they are stored.

        Args:
            kind: which files.
            advance: called with how many bytes are read, :meth:`size_bytes` in all.
        """
        path = self.paths.get(kind)
        if path is None:
            return
        position = 0
        reader = _read_folder if path.is_dir() else _read_archive
        try:
            for name, data, reached in reader(path):
                if advance is not None:
                    advance(reached - position)
                position = reached
                speaker_id = name.partition(".")[0]
                if not is_speaker_id(speaker_id):
                    self._add_problem(f"{path}: {shortened(name)} is not named like a speaker")
                elif isinstance(data, str):
                    self._add_problem(f"{path}: {shortened(name)} {data}")
                else:
                    yield SpeakerText(speaker_id, data)
        except _DAMAGED as error:
            self._add_problem(f"{path}: {shortened(first_line(error), quoted=False)}")
        if advance is not None:
            advance(self.size_bytes(kind) - position)

    def lines(self, kind: str) -> Iterator[str]:
        """Yield the lines of a list."""
        path = self.paths.get(kind)
        if path is None:
            return
        try:
            if path.stat().st_size > _MAX_LIST_BYTES:
                self._add_problem(f"{path}: larger than {_MAX_LIST_BYTES >> 20} MiB")
                return
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                while line := file.readline(_MAX_LINE_CHARACTERS):
                    yield line
        except OSError as error:
            self._add_problem(f"{path}: {error.strerror}")

    def _add_problem(self, problem: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(problem)


def find_speaker_files(release: Release) -> SpeakerFiles:
    """Return what lies beside the annotations of a release; nothing of one at a URL."""
    if not isinstance(release.path, Path):
        return SpeakerFiles({}, [])
    folder = release.path.parent
    places = {kind: [folder / name for name in names] for kind, names in LIST_KINDS.items()}
    for kind in TEXT_KINDS:
        names = [kind, f"{kind}.tar.gz"]
        places[kind] = [base / name for base in (folder, folder / "data") for name in names]
    found = {
        kind: next((path for path in paths if path.is_file() or path.is_dir()), None)
        for kind, paths in places.items()
    }
    return SpeakerFiles({kind: path for kind, path in found.items() if path is not None}, [])


def _stamps(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and time of change of a file, or of the files in a folder."""
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    state = entry.stat(follow_symlinks=os.path.exists(entry.path))
                    yield entry.name, state.st_size, state.st_mtime_ns
        else:
            state = path.stat()
            yield path.name, state.st_size, state.st_mtime_ns
    except OSError as error:  # not readable: reading will say so
        yield path.name, -1, error.errno or 0


# Name and content of a file, or why it cannot be read, and how many bytes are read by then.
_ReadFile = tuple[str, bytes | str, int]


def _read_folder(folder: Path) -> Iterator[_ReadFile]:
    """Yield the files of a folder."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    position = 0
    for name in names:
        content, size_bytes = _file_of(folder / name)
        position += size_bytes
        yield name, content, position


def _file_of(path: Path) -> tuple[bytes | str, int]:
    """Return the content of a file, or why it cannot be read, and its size."""
    try:
        if not path.is_file():
            return "is not a regular file", 0
        size_bytes = path.stat().st_size
        if size_bytes > _MAX_FILE_BYTES:
            return _too_large(size_bytes), size_bytes
        return path.read_bytes(), size_bytes
    except OSError as error:
        return f"cannot be read: {error.strerror}", 0


def _read_archive(path: Path) -> Iterator[_ReadFile]:
    """Yield the members of an archive. Nothing is unpacked."""
    with open(path, "rb") as packed:
        is_gzip = packed.peek(2).startswith(b"\x1f\x8b")
        with closing(gzip.open(packed) if is_gzip else packed) as stream:
            archive = TarReader(cast(BinaryIO, stream), packed)
            for member in archive:
                name = member.name.rpartition("/")[2]
                if member.is_folder:
                    continue
                content: bytes | str
                if not member.is_file:
                    content = "is a link or a device"
                elif member.size_bytes > _MAX_FILE_BYTES:
                    content = _too_large(member.size_bytes)
                else:
                    content = archive.read()
                yield name, content, packed.tell()


def _too_large(size_bytes: int) -> str:
    return f"is too large: {size_bytes:,} bytes, at most {_MAX_FILE_BYTES:,}"
