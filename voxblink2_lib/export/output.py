"""What a format writes for one shard: files, and lines of lists that are joined at the end."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from voxblink2_lib.export.target import ChecksumWriter, Target

# In a line of a list, until the lists are joined: an export may be moved. No id has such signs.
TARGET = "<target>"


class UnitOutput:
    """Takes what is written for one unit, the rows of one shard.

    Args:
        target: where it goes.
        unit: name of the unit, as ``audio-00012``.

    Attributes:
        checksums: of each file, by its path.
        sizes: of the large files, and of notes, in bytes by their paths.
        lists: lines by the name of their list, in the order in which they were added.
        size_bytes: of all files.
    """

    def __init__(self, target: Target, unit: str) -> None:
        self.target = target
        self.unit = unit
        self.checksums: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.lists: defaultdict[str, list[str]] = defaultdict(list)
        self.size_bytes = 0

    @contextlib.contextmanager
    def file(self, path: str) -> Iterator[ChecksumWriter]:
        """Write a large file."""
        with self.target.file(path) as writer:
            yield writer
        self.checksums[path] = writer.checksum
        self.sizes[path] = writer.size_bytes
        self.size_bytes += writer.size_bytes

    def put(self, path: str, data: Any) -> None:
        """Write one of many small files."""
        self.checksums[path] = self.target.put(path, data)
        self.size_bytes += memoryview(data).nbytes

    def note(self, path: str, data: bytes) -> None:
        """Write what is no part of the export, but lies beside the receipt."""
        self.target.put(path, data)
        self.sizes[path] = len(data)

    def line(self, name: str, text: str) -> None:
        """Add a line to a list."""
        self.lists[name].append(text)

    @staticmethod
    def place(path: str) -> str:
        """Return what stands for the full path or URL of a file in a line of a list."""
        return f"{TARGET}/{path}"
