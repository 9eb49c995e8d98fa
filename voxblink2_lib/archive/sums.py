"""Compare the parts of an archive with a list of checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from voxblink2_lib.progress import AdvanceWithNote, Progress, no_progress

_MD5_DIGITS = 32
_BLOCK_BYTES = 1 << 20


def wrong_sums(
    paths: Sequence[Path], sums: Iterable[str], *, progress: Progress = no_progress
) -> list[str]:
    """Compare parts with a list of checksums, and return what is wrong.

    Args:
        paths: the parts.
        sums: lines of ``md5sum`` or ``sha256sum``: the digest, then the name.
        progress: counts bytes.
    """
    listed = dict(filter(None, map(_listed, sums)))
    total = sum(path.stat().st_size for path in paths)
    problems = []
    with progress("Hashing", unit="B", total=total) as advance:
        for path in paths:
            digest = listed.get(path.name)
            if digest is None:
                problems.append(f"{path.name} is not in the list of checksums.")
                continue
            seen = _digest(path, "md5" if len(digest) == _MD5_DIGITS else "sha256", advance)
            if seen != digest:
                problems.append(f"{path} has the checksum {seen}, listed is {digest}.")
    return problems


def _listed(line: str) -> tuple[str, str] | None:
    digest, _, name = line.strip().partition(" ")
    return (Path(name.strip().lstrip("*")).name, digest.lower()) if name else None


def _digest(path: Path, kind: str, advance: AdvanceWithNote) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()
