"""Checksums beside files, in the format of ``sha256sum``."""

from __future__ import annotations

from pathlib import Path

from voxblink2_lib.files import atomic_write, sha256_of


def checksum_file(path: Path) -> Path:
    """Return the path of the checksum file beside a file."""
    return path.with_name(f"{path.name}.sha256")


def checksum_line(path: Path, sha256: str) -> str:
    r"""Return a line of a checksum file.

    >>> checksum_line(Path("shards/audio-00000.arrow"), "12ab")
    '12ab  audio-00000.arrow\n'
    """
    return f"{sha256}  {path.name}\n"


def write_checksum(path: Path, sha256: str | None = None) -> None:
    """Write the checksum file of a file, whose SHA-256 is computed if it is not given."""
    line = checksum_line(path, sha256 or sha256_of(path))
    with atomic_write(checksum_file(path)) as file:
        file.write(line.encode())


def checksum_problem(path: Path, sha256: str) -> str:
    """Return what is wrong with the checksum file of a file; an empty text if nothing is.

    Args:
        path: the file.
        sha256: its checksum, known from elsewhere.
    """
    listed = checksum_file(path)
    try:
        text = listed.read_bytes()
    except OSError as error:
        return f"The checksum file {listed} cannot be read: {error.strerror}."
    if text == checksum_line(path, sha256).encode():
        return ""
    return f"The checksum file {listed} is damaged: it does not have the SHA-256 {sha256}."


def changed_file_problem(path: Path) -> str:
    """Return how a file differs from the checksum beside it; an empty text if it does not.

    A file without a checksum is none of ours, or is just being written.
    """
    listed = checksum_file(path)
    try:
        before = listed.read_bytes()
        digest = sha256_of(path)
        # Whoever writes the file anew removes the checksum first.
        if before == checksum_line(path, digest).encode() or listed.read_bytes() != before:
            return ""
    except OSError:
        return ""
    return f"The file {path} is damaged: its SHA-256 is {digest}, written was another."
