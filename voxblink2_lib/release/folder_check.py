"""Check a folder of the release: with its manifest, with lists of checksums, and gzip's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from voxblink2_lib.archive.gzip_stream import GzipDamageError, GzipStream
from voxblink2_lib.archive.sums import algorithm_of
from voxblink2_lib.errors import ReleaseError, next_command
from voxblink2_lib.progress import AdvanceWithNote, Progress, no_progress
from voxblink2_lib.release.manifest import FileRecord, read_manifest
from voxblink2_lib.release.places import Digests
from voxblink2_lib.release.release_parts import PARTS

_BLOCK_BYTES = 1 << 20
NO_SUMS: Mapping[str, str] = {}

State = Literal["equal", "whole", "missing", "different", "unknown"]


class CheckedFile(NamedTuple):
    """What a check says of one file.

    Attributes:
        path: its place in the folder.
        state: ``equal`` to its checksums; ``whole`` by gzip's own checksum, with no other known;
            ``missing``; ``different``; or ``unknown``: there is nothing to compare it with.
        problem: what is wrong; empty if nothing is.
    """

    path: str
    state: State
    problem: str = ""


def check_folder(
    folder: Path, *, sums: Mapping[str, str] = NO_SUMS, progress: Progress = no_progress
) -> list[CheckedFile]:
    """Compare the files of a folder with what is known of them.

    Args:
        folder: the folder of the release.
        sums: MD5 or SHA-256 by the names of files, see ``archive.sums.read_sums``.
        progress: counts bytes.

    Returns:
        All files that are known or there, sorted.

    Raises:
        ReleaseError: there is no such folder, or its manifest is damaged.
    """
    if not folder.is_dir():
        raise ReleaseError(f"There is no folder {folder}. Name the folder of the release.")
    records = read_manifest(folder)
    paths = {*records, *_usual_files(folder)}
    named = {path.rpartition("/")[2] for path in paths}
    paths |= {name for name in sums if name not in named}
    present = [path for path in sorted(paths) if (folder / path).is_file()]
    total = sum((folder / path).stat().st_size for path in present)
    checked = [CheckedFile(path, "missing", f"{path} is missing.") for path in paths - {*present}]
    with progress("Checking", unit="B", total=total) as advance:
        for path in present:
            digest = sums.get(path.rpartition("/")[2])
            checked.append(_checked(folder, path, records.get(path), digest, advance))
    return sorted(checked)


def _usual_files(folder: Path) -> Iterator[str]:
    for part in PARTS.values():
        yield from (path for path in part.files if (folder / path).is_file())


def _checked(
    folder: Path,
    path: str,
    record: FileRecord | None,
    digest: str | None,
    advance: AdvanceWithNote,
) -> CheckedFile:
    file = folder / path
    size_bytes = file.stat().st_size
    if record is None and digest is None:
        return _checked_by_itself(file, path, advance)
    if record is not None and size_bytes != record.size_bytes:
        advance(size_bytes)
        problem = f"{path} has {size_bytes:,} bytes, {record.size_bytes:,} are right."
        return CheckedFile(path, "different", problem)
    digests = Digests()
    digests.take_file(file, advance)
    known = {} if record is None else {"md5": record.md5, "sha256": record.sha256}
    for name, right, source in (
        *((name, right, "release.json") for name, right in known.items()),
        *([(algorithm_of(digest), digest, "the list")] if digest else ()),
    ):
        if digests[name] != right:
            problem = f"{path} has the {name} {digests[name]}, in {source} it is {right}."
            return CheckedFile(path, "different", problem)
    return CheckedFile(path, "equal")


def _checked_by_itself(file: Path, path: str, advance: AdvanceWithNote) -> CheckedFile:
    """Check a file of which no checksum is known: gzip has one of its own."""
    if not path.endswith(".gz"):
        advance(file.stat().st_size)
        is_part = path in PARTS["audio"].files
        hint = f" {next_command('archive check', file.parent)} reads all parts." if is_part else ""
        return CheckedFile(path, "unknown", f"Of {path}, no checksum is known.{hint}")
    done = 0
    with open(file, "rb") as packed:
        stream = GzipStream(packed)
        try:
            while stream.read(_BLOCK_BYTES):
                advance(stream.packed_offset - done)
                done = stream.packed_offset
        except GzipDamageError as error:
            return CheckedFile(path, "different", f"{path} is damaged: {error}.")
        finally:
            stream.close()
    return CheckedFile(path, "whole")
