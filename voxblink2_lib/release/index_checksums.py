"""Compare the files of an index with the checksums in its summaries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from voxblink2_lib.files import sha256_of
from voxblink2_lib.progress import Progress


def checksum_problems(folder: Path, files: Mapping[str, str], progress: Progress) -> Iterator[str]:
    """Yield how files differ from what was written.

    Args:
        folder: the index.
        files: SHA-256 by name.
        progress: shows the bytes read.
    """
    paths = {folder / name: sha256 for name, sha256 in files.items()}
    total = sum(os.path.getsize(path) for path in paths if os.path.exists(path))
    with progress("Hashing the index", unit="B", total=total) as advance:
        for path, sha256 in paths.items():
            try:
                digest = sha256_of(path, advance=advance)
            except OSError as error:
                yield f"The file {path} of the index cannot be read: {error.strerror}."
                continue
            if digest != sha256:
                yield (
                    f"The file {path} of the index is damaged: its SHA-256 is {digest}, written "
                    f"was {sha256}."
                )
