"""What a folder of the release has: sizes and checksums, in ``release.json`` beside the files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from voxblink2_lib.errors import ReleaseError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.foreign_files import as_own_error, shortened

MANIFEST = "release.json"
_FORMAT = 1
_MAX_BYTES = 64 << 20
_DIGITS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What is known of one file.

    Attributes:
        part: which part of the release it belongs to.
        size_bytes: its size.
        md5: hexadecimal digits.
        sha256: hexadecimal digits.
        place: where it came from, without secrets; empty for one that was put there by hand.
        version: what that place said of its version, such as an ETag; may be empty.
        compared: the checksums of that place that were compared with it.

    Raises:
        ValueError: a value is not of that kind.
    """

    part: str
    size_bytes: int
    md5: str
    sha256: str
    place: str = ""
    version: str = ""
    compared: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.size_bytes, int) or self.size_bytes < 0:
            raise ValueError(f"size_bytes is {shortened(self.size_bytes)}")
        for name, digits in _DIGITS.items():
            value = getattr(self, name)
            if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
                raise ValueError(f"{name} is {shortened(value)}")
        for name in ("part", "place", "version"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {shortened(getattr(self, name))}")


def read_manifest(folder: Path) -> dict[str, FileRecord]:
    """Return the files that a folder's manifest names; none if it has no manifest.

    Raises:
        ReleaseError: the manifest is damaged, or none of ours.
    """
    path = folder / MANIFEST
    advice = f"Remove it; '{MANIFEST}' is written again by a download, of which nothing is lost."
    with as_own_error(ReleaseError, f"The manifest {path} cannot be used", advice):
        if not path.exists():
            return {}
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
        record = json.loads(path.read_bytes())
        if record["format"] != _FORMAT:
            raise ValueError(f"it has format {shortened(record['format'])}, not {_FORMAT}")
        return {_checked(name): _file_record(entry) for name, entry in record["files"].items()}


def write_manifest(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Write a folder's manifest."""
    entries = {name: asdict(record) for name, record in sorted(files.items())}
    with atomic_write(folder / MANIFEST) as file:
        file.write(json.dumps({"format": _FORMAT, "files": entries}, indent=1).encode())


def _checked(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise ValueError(f"it names the file {shortened(name)}")
    return name


def _file_record(entry: Mapping[str, Any]) -> FileRecord:
    compared = entry.get("compared", ())
    if not isinstance(compared, list | tuple) or not all(isinstance(n, str) for n in compared):
        raise ValueError(f"compared is {shortened(compared)}")
    return FileRecord(**{**entry, "compared": tuple(compared)})
