"""Compare files with a list of checksums, as ``md5sum`` and ``sha256sum`` write it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from voxblink2_lib.archive.parts import Part
from voxblink2_lib.archive.remote import open_binary, size_of
from voxblink2_lib.errors import SourceError
from voxblink2_lib.progress import AdvanceWithNote, Progress, no_progress

_MD5_DIGITS = 32
_DIGEST = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
_BLOCK_BYTES = 1 << 20


def wrong_sums(
    paths: Sequence[Part], sums: Mapping[str, str], *, progress: Progress = no_progress
) -> list[str]:
    """Compare parts with a list of checksums, and return what is wrong.

    Args:
        paths: the parts.
        sums: their digests by their names; see :func:`read_sums`.
        progress: counts bytes.
    """
    problems = []
    with progress("Hashing", unit="B", total=sum(map(size_of, paths))) as advance:
        for path in paths:
            digest = sums.get(path.name)
            if digest is None:
                problems.append(f"{path.name} is not in the list of checksums.")
                continue
            seen = digests_of(path, (algorithm_of(digest),), advance)[algorithm_of(digest)]
            if seen != digest:
                problems.append(f"{path} has the checksum {seen}, listed is {digest}.")
    return problems


def read_sums(path: Path) -> dict[str, str]:
    """Return the digests of a list of checksums by the names of the files.

    Raises:
        SourceError: the list cannot be read, or has no checksum.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"The checksums {path} cannot be read: {error}.") from error
    if not (listed := parse_sums(lines)):
        raise SourceError(
            f"The checksums {path} cannot be read: no line is an MD5 or SHA-256 and a name."
        )
    return listed


def parse_sums(lines: Iterable[str]) -> dict[str, str]:
    """Return the digests of lines by the names of the files, without their folders.

    >>> parse_sums(["900150983cd24fb0d6963f7d28e17f72 *parts/VB2_audio.tar.gz.00", "# a comment"])
    {'VB2_audio.tar.gz.00': '900150983cd24fb0d6963f7d28e17f72'}
    """
    return dict(filter(None, map(_listed, lines)))


def algorithm_of(digest: str) -> str:
    """Return which checksum a digest is: ``md5`` or ``sha256``."""
    return "md5" if len(digest) == _MD5_DIGITS else "sha256"


def digests_of(path: Part, algorithms: Sequence[str], advance: AdvanceWithNote) -> dict[str, str]:
    """Return the digests of a file.

    Args:
        path: the file.
        algorithms: names of them, as ``md5``.
        advance: counts bytes.
    """
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with open_binary(path) as file:
        while block := file.read(_BLOCK_BYTES):
            for digest in digests.values():
                digest.update(block)
            advance(len(block))
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _listed(line: str) -> tuple[str, str] | None:
    digest, _, name = line.strip().partition(" ")
    name, digest = name.strip().lstrip("*"), digest.lower()
    return (Path(name).name, digest) if name and _DIGEST.fullmatch(digest) else None
