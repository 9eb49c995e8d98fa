"""Where an export goes: a folder, or any URL that fsspec can write to."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import xxhash

from voxblink2_lib.errors import (
    DependencyError,
    ExportError,
    StoppedError,
    VoxBlink2Error,
    first_line,
)
from voxblink2_lib.files import TEMP_GLOB, WriteBehind, atomic_write, named_system_errors
from voxblink2_lib.redaction import redacted_source

# In this process alone: another process that writes there writes somewhere else.
_OWN_MEMORY = "memory://"


class ChecksumWriter(io.RawIOBase):
    """A binary file with the XXH3 (128 bits) of what is written through it.

    It serves to notice damage, at a small part of the time of SHA-256, which takes as long as the
    writing itself. Closing it leaves the file open.

    Args:
        file: where to write.
        behind: brings it to disk, if it is a file of the operating system.
    """

    def __init__(self, file: BinaryIO, *, behind: WriteBehind | None = None) -> None:
        self._file = file
        self._behind = behind
        self._digest = xxhash.xxh3_128()
        self.size_bytes = 0

    def writable(self) -> bool:
        """Return true."""
        return True

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self.size_bytes

    def write(self, data: Any) -> int:
        """Write all of some bytes."""
        self._digest.update(data)
        self._file.write(data)
        size = memoryview(data).nbytes
        self.size_bytes += size
        return size

    def write_all(self, pieces: Sequence[Any]) -> None:
        """Write pieces one after another. The system takes them all in one call.

        That saves a fifth of the processor time that it takes to write clips one by one.
        """
        for piece in pieces:
            self._digest.update(piece)
        size = sum(memoryview(piece).nbytes for piece in pieces)
        written = 0
        if self._behind is not None:
            self._file.flush()
            written = os.writev(self._file.fileno(), pieces)
        if written < size:  # the system may take less than all
            self._file.write(b"".join(pieces)[written:])
        self.size_bytes += size
        if self._behind is not None:
            self._behind.begin()

    @property
    def checksum(self) -> str:
        """Digest of everything written so far."""
        return self._digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Target:
    """A folder or URL.

    Attributes:
        url: an absolute path, or a URL.
    """

    url: str

    @classmethod
    def of(cls, place: str) -> Target:
        """Return the target of what a user wrote.

        Raises:
            ExportError: it is empty, or of a kind that is not known.
            DependencyError: the package for such URLs is missing.
        """
        if not place.strip():
            raise ExportError("The target of the export is an empty text. Name a folder or a URL.")
        if "://" not in place:
            return cls(str(Path(place).expanduser().absolute()))
        target = cls(place.rstrip("/"))
        with target.named():
            try:
                system, path = _system(target.url)
            except ValueError as error:
                raise ExportError(
                    f"{target.shown} is no target: {first_line(error)}. Name a folder, or a URL "
                    "that fsspec can write to, such as s3://bucket/folder."
                ) from error
        return cls(str(Path(path).absolute())) if "file" in _protocols(system) else target

    @property
    def is_local(self) -> bool:
        """Whether it is a folder."""
        return "://" not in self.url

    @property
    def is_of_this_process(self) -> bool:
        """Whether no other process can write to it."""
        return self.url.startswith(_OWN_MEMORY)

    @property
    def shown(self) -> str:
        """The target as messages show it."""
        return self.url if self.is_local else redacted_source(self.url)

    def place(self, path: str) -> str:
        """Return the full path or URL of a file in it."""
        return f"{self.url}/{path}"

    def free_bytes(self) -> int | None:
        """Return the free space; ``None`` of a URL."""
        if not self.is_local:
            return None
        folder = Path(self.url)
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def names(self, folder: str = "") -> list[str]:
        """Return the names of what is in a folder of it, sorted; none if there is no such folder.

        Raises:
            ExportError: a file is in its place.
        """
        with self.named():
            if self.is_local:
                place = Path(self.url, folder)
                return sorted(os.listdir(place)) if place.exists() else []
            system, path = self._at(folder)
            if not system.isdir(path):
                return []
            listed = system.ls(path, detail=False, refresh=True)
            return sorted({name.rstrip("/").rpartition("/")[2] for name in listed} - {""})

    def read(self, path: str) -> bytes | None:
        """Return a file; ``None`` if there is none."""
        with self.named():
            try:
                if self.is_local:
                    return Path(self.url, path).read_bytes()
                system, place = self._at(path)
                return bytes(system.cat_file(place))
            except FileNotFoundError:
                return None

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """Return some files, from a server many at a time; one that is gone is empty."""
        if self.is_local or not paths:
            return [self.read(path) or b"" for path in paths]
        with self.named():
            system, _ = self._at("")
            places = [self._at(path)[1] for path in paths]
            contents = system.cat(places, on_error="omit")
            return [bytes(contents.get(place, b"")) for place in places]

    def size_of(self, path: str) -> int | None:
        """Return the size of a file in bytes; ``None`` if there is none."""
        with self.named():
            try:
                if self.is_local:
                    return os.path.getsize(self.place(path))
                system, place = self._at(path)
                return int(system.size(place))
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def file(self, path: str, *, is_flushed: bool = True) -> Iterator[ChecksumWriter]:
        """Write a file, which in a folder has its name only when it is complete.

        Args:
            path: of the file.
            is_flushed: it is on the disk then. Otherwise a power cut may leave it empty.
        """
        with self.named():
            if not self.is_local:
                system, place = self._at(path)
                with system.open(place, "wb") as file:
                    yield ChecksumWriter(file)
                return
            final = Path(self.url, path)
            final.parent.mkdir(parents=True, exist_ok=True)
            half = Path(self.url, _half(path))
            with open(half, "wb") as file, contextlib.closing(WriteBehind(file)) as behind:
                yield ChecksumWriter(file, behind=behind)
                if is_flushed:
                    behind.finish()
            half.replace(final)

    def put(self, path: str, data: Any) -> str:
        """Write one of many small files; return its checksum. See :meth:`flush`."""
        with self.named():
            if self.is_local:
                with _opened(self.place(path)) as file:
                    file.write(data)
            else:
                system, place = self._at(path)
                system.pipe_file(place, bytes(data))
        return xxhash.xxh3_128_hexdigest(data)

    def write(self, path: str, data: bytes) -> None:
        """Write a small file that others rely on: all of it is there or nothing."""
        with self.named():
            if self.is_local:
                with atomic_write(Path(self.url, path)) as file:
                    file.write(data)
            else:
                system, place = self._at(path)
                system.pipe_file(place, data)

    def remove(self, path: str) -> None:
        """Remove a file, and a folder that has become empty by it."""
        with self.named(), contextlib.suppress(FileNotFoundError):
            if not self.is_local:
                system, place = self._at(path)
                system.rm_file(place)
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.place(_half(path)))
            os.unlink(self.place(path))
            with contextlib.suppress(OSError):  # there is something left in it
                for folder in [*Path(path).parents][:-1]:
                    Path(self.url, folder).rmdir()

    def clear_leftovers(self, *folders: str) -> None:
        """Remove the temporary files that a killed run has left in some folders."""
        if self.is_local:
            for folder in folders:
                for path in Path(self.url, folder).glob(TEMP_GLOB):
                    path.unlink(missing_ok=True)

    def flush(self) -> None:
        """Flush what :meth:`put` has written to the disk, all at once."""
        if self.is_local:
            os.sync()

    def _at(self, path: str) -> tuple[Any, str]:
        return _system(f"{self.url}/{path}".rstrip("/"))

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Turn what the disk or a server answers into an error of ours that names the target."""
        try:
            with named_system_errors(Path(self.url) if self.is_local else Path(self.shown)):
                yield
        except VoxBlink2Error:
            raise
        except ImportError as error:
            raise DependencyError(
                f"To write to {self.shown}, a package is missing: {first_line(error)} For s3:// "
                "run: pip install 'voxblink2[s3]'"
            ) from error
        except (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            raise ExportError(
                f"The target {self.shown} cannot be used: {first_line(error)}. Name a folder or "
                "a URL that you may write to."
            ) from error
        except Exception as error:
            if self.is_local:
                raise
            # Of botocore and aiohttp, many are no OSError.
            raise StoppedError(
                f"The target {self.shown} does not take what is written: {first_line(error)}. "
                "Everything finished is kept; run the same command again."
            ) from error


def _half(path: str) -> str:
    """Return the path of a file until it is complete.

    It is always the same, so that the next run replaces what a killed one has left.
    """
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.half")


def _opened(path: str) -> io.FileIO:
    """Open a file for writing. Most are in a folder that exists."""
    try:
        return open(path, "wb", buffering=0)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "wb", buffering=0)


def _system(url: str) -> tuple[Any, str]:
    system, path = fsspec.core.url_to_fs(url)
    return system, path


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)
