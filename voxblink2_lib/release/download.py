"""Download parts of the release: planned first, resumable, with checksums kept of every file."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from voxblink2_lib.errors import (
    DependencyError,
    ReleaseError,
    SourceError,
    StoppedError,
    StoreBusyError,
    StoreFullError,
)
from voxblink2_lib.files import named_system_errors, short_digest, sync_folder
from voxblink2_lib.progress import AdvanceWithNote, Progress, no_progress, size_text
from voxblink2_lib.release.by_hand import by_hand, parts_by_hand, unreachable
from voxblink2_lib.release.drive import AUTHORS_FOLDER, DrivePlace, drive_folder, folder_address
from voxblink2_lib.release.manifest import FileRecord, read_manifest, write_manifest
from voxblink2_lib.release.places import Digests, Offer, Place, UrlPlace
from voxblink2_lib.release.release_parts import PARTS

PARTIAL = ".partial"

State = Literal["present", "by hand", "missing"]


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that is wanted.

    Attributes:
        offer: where it comes from.
        target: where it goes.
        partial: where it is until it is complete.
        kept_bytes: how much an earlier run kept of it.
        state: ``present`` if the folder has it and knows its checksums, ``by hand`` if it has it
            without, else ``missing``.
    """

    offer: Offer
    target: Path
    partial: Path
    kept_bytes: int
    state: State


@dataclass(frozen=True, slots=True)
class Plan:
    """What a download will do.

    Attributes:
        folder: where the release goes.
        place: where it comes from.
        files: all that is wanted, sorted.
    """

    folder: Path
    place: Place
    files: tuple[PlannedFile, ...]

    @property
    def missing(self) -> list[PlannedFile]:
        """What has to be downloaded."""
        return [file for file in self.files if file.state == "missing"]

    @property
    def kept_bytes(self) -> int:
        """How much of that an earlier run kept."""
        return sum(file.kept_bytes for file in self.missing)

    @property
    def total_bytes(self) -> int | None:
        """Size of what has to be downloaded, with what is kept; ``None`` where it is unknown."""
        sizes = [file.offer.size_bytes for file in self.missing]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """A file that the folder now has.

    Attributes:
        path: its place in the folder.
        record: its size and checksums.
        state: ``downloaded``, ``resumed``, ``present``, or ``by hand``: it was there, and its
            checksums are known now.
        fetched_bytes: what this run downloaded of it.
    """

    path: str
    record: FileRecord
    state: Literal["downloaded", "resumed", "present", "by hand"]
    fetched_bytes: int


def find_place(named: str | None, parts: Sequence[str], folder: Path) -> Place:
    """Return the place that a user names.

    Args:
        named: a folder of Google Drive, a URL that fsspec opens, or a local folder; ``None`` for
            the authors' folder.
        parts: names of the parts that are wanted, for the message.
        folder: where the release goes, for the message.

    Raises:
        DependencyError: gdown is not installed.
    """
    drive = AUTHORS_FOLDER if named is None else drive_folder(named)
    if named is not None and drive is None:
        return UrlPlace(named)
    assert drive is not None
    try:
        return DrivePlace(drive)
    except DependencyError as error:
        advice = parts_by_hand(parts, folder=folder, address=folder_address(drive))
        raise DependencyError(f"{error}\n{advice}") from error


def plan_download(parts: Sequence[str], *, folder: Path, place: Place) -> Plan:
    """Look at a place and at a folder, and say what has to be downloaded. Writes nothing.

    Args:
        parts: names of the parts.
        folder: where the release goes.
        place: where it comes from.

    Raises:
        ReleaseError: the place lacks a part; or has another file than the folder has.
        StoreFullError: the disk is too small.
        StoppedError: the place cannot be reached.
    """
    try:
        offers = place.offers(parts)
    except SourceError as error:
        raise unreachable(str(error), parts, folder=folder, address=place.name) from error
    _check_offers(parts, offers, place)
    records = read_manifest(folder)
    files = tuple(
        _planned(offer, folder, place, records.get(offer.path))
        for offer in sorted(offers, key=lambda offer: offer.path)
    )
    plan = Plan(folder, place, files)
    _check_space(plan)
    return plan


def _check_offers(parts: Sequence[str], offers: Sequence[Offer], place: Place) -> None:
    by_path: dict[str, Offer] = {}
    for offer in offers:
        if (other := by_path.setdefault(offer.path, offer)) is not offer:
            raise ReleaseError(
                f"{place.name} has the file {offer.path} twice: {other.address} and "
                f"{offer.address}. Name the folder of one of them with --from."
            )
    lacking = [name for name in parts if not any(offer.part == name for offer in offers)]
    if lacking:
        request = " The authors hand it out on request." if "audio" in lacking else ""
        raise ReleaseError(
            f"{place.name} has no {' and no '.join(lacking)} ({PARTS[lacking[0]].content}, "
            f"such as {PARTS[lacking[0]].files[0]}).{request} Name another place with --from, or "
            "leave that part out."
        )


def _planned(offer: Offer, folder: Path, place: Place, record: FileRecord | None) -> PlannedFile:
    target = folder / offer.path
    # What was begun of another version has another name: two are never joined.
    tag = short_digest(f"{offer.size_bytes} {offer.version} {offer.address}".encode())[:8]
    partial = folder / PARTIAL / f"{offer.path.replace('/', ',')}.{tag}"
    if not target.exists():
        return PlannedFile(offer, target, partial, place.kept_bytes(partial), "missing")
    size_bytes = target.stat().st_size
    if offer.size_bytes not in (None, size_bytes):
        raise _other(target, f"it has {size_bytes:,} bytes, there it has {offer.size_bytes:,}")
    if record is None or record.size_bytes != size_bytes:
        return PlannedFile(offer, target, partial, 0, "by hand")
    for name in ("md5", "sha256"):
        if offer.checksums.get(name, getattr(record, name)) != getattr(record, name):
            raise _other(target, f"there it has the {name} {offer.checksums[name]}")
    if record.place == place.name and record.version and record.version != offer.version:
        raise _other(target, "since it was downloaded, it has changed there")
    return PlannedFile(offer, target, partial, 0, "present")


def _other(target: Path, difference: str) -> ReleaseError:
    return ReleaseError(
        f"{target} is not the file of that place: {difference}. Remove it to download that one."
    )


def _check_space(plan: Plan) -> None:
    known = sum(file.offer.size_bytes or 0 for file in plan.missing)
    needed = known - plan.kept_bytes
    existing = next(path for path in (plan.folder, *plan.folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise StoreFullError(
            f"No space is left for {plan.folder}: {size_text(needed)} are to come, "
            f"{size_text(free)} are free. Free some, name another folder with --to, or leave parts "
            "out, and run the same command again: nothing was downloaded."
        )


# -- Downloading -----------------------------------------------------------------------------------


def download(plan: Plan, *, progress: Progress = no_progress) -> list[ReleaseFile]:
    """Download what a plan lacks. Whatever ends it, what came is kept.

    Args:
        plan: the plan.
        progress: counts bytes.

    Returns:
        All files of the plan.

    Raises:
        StoppedError: the place does not send a file, or sent one that does not have the checksum
            that the place says.
        StoreBusyError: another process downloads into the folder.
        StoreFullError, StoreDiskError: the disk is full, or fails.
    """
    folder = plan.folder
    with _locked(folder), named_system_errors(folder):
        records = read_manifest(folder)
        _take_files_by_hand(plan, records, progress)
        if plan.missing:
            _fetch_missing(plan, records, progress)
        _clear(folder)
    return [
        ReleaseFile(file.offer.path, records[file.offer.path], *_outcome(file))
        for file in plan.files
    ]


def _outcome(
    file: PlannedFile,
) -> tuple[Literal["downloaded", "resumed", "present", "by hand"], int]:
    if file.state != "missing":
        return file.state, 0
    fetched = file.target.stat().st_size - file.kept_bytes
    return "resumed" if file.kept_bytes else "downloaded", fetched


def _take_files_by_hand(plan: Plan, records: dict[str, FileRecord], progress: Progress) -> None:
    files = [file for file in plan.files if file.state == "by hand"]
    total = sum(file.target.stat().st_size for file in files)
    if not files:
        return
    with progress("Hashing what is there", unit="B", total=total) as advance:
        for file in files:
            digests = _new_digests(file.offer)
            digests.take_file(file.target, advance)
            wrong = _wrong_checksum(digests, file.offer)
            if wrong is not None:
                raise _other(file.target, f"there it has the {wrong} {file.offer.checksums[wrong]}")
            records[file.offer.path] = _record(file.offer, digests, place="")
            write_manifest(plan.folder, records)


def _fetch_missing(plan: Plan, records: dict[str, FileRecord], progress: Progress) -> None:
    with progress("Downloading", unit="B", total=plan.total_bytes, done=plan.kept_bytes) as advance:
        for number, file in enumerate(plan.missing):
            try:
                record = _fetched(file, plan.place, advance, progress)
            except SourceError as error:
                rest = [file.offer for file in plan.missing[number:]]
                raise StoppedError(
                    f"{error} What came before is kept: run the same command again.\n"
                    f"{by_hand(rest, folder=plan.folder)}"
                ) from error
            records[file.offer.path] = record
            write_manifest(plan.folder, records)


def _fetched(
    file: PlannedFile, place: Place, advance: AdvanceWithNote, progress: Progress
) -> FileRecord:
    advance(0, note=file.offer.path)
    file.partial.parent.mkdir(parents=True, exist_ok=True)
    digests = _new_digests(file.offer)
    place.save(file.offer, file.partial, None if file.kept_bytes else digests, advance)
    size_bytes = file.partial.stat().st_size
    if file.kept_bytes:
        with progress("Hashing", unit="B", total=size_bytes) as advance_hashing:
            digests.take_file(file.partial, advance_hashing)
    wrong = _wrong_checksum(digests, file.offer)
    if wrong is not None or file.offer.size_bytes not in (None, size_bytes):
        file.partial.unlink()
        problem = (
            f"it has {size_bytes:,} bytes"
            if wrong is None
            else f"its {wrong} is {digests[wrong]}, that place says {file.offer.checksums[wrong]}"
        )
        raise StoppedError(
            f"{file.offer.address} came damaged: {problem}. It was removed: run the same command "
            "again."
        )
    _put_in_place(file)
    return _record(file.offer, digests, place=place.name)


def _put_in_place(file: PlannedFile) -> None:
    with open(file.partial, "rb") as whole:
        os.fsync(whole.fileno())
    file.target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(file.partial, file.target)
    sync_folder(file.target.parent)
    begun = glob.escape(file.partial.name.rpartition(".")[0])
    for stale in file.partial.parent.glob(f"{begun}.*"):  # of versions that are no more
        stale.unlink()


def _new_digests(offer: Offer) -> Digests:
    return Digests(offer.size_bytes if "git" in offer.checksums else None)


def _wrong_checksum(digests: Digests, offer: Offer) -> str | None:
    for name in ("md5", "sha256", "git"):
        if name in offer.checksums and offer.checksums[name] != digests[name]:
            return name
    return None


def _record(offer: Offer, digests: Digests, *, place: str) -> FileRecord:
    compared = [name for name in ("md5", "sha256", "git") if name in offer.checksums]
    # Only if it is equal: with some kinds of upload and encryption, an ETag is no MD5.
    if offer.checksums.get("etag") == digests["md5"]:
        compared.append("etag")
    sums = {name: digests[name] for name in ("md5", "sha256")}
    version = offer.version if place else ""
    return FileRecord(
        offer.part,
        digests.size_bytes,
        **sums,
        place=place,
        version=version,
        compared=tuple(compared),
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other downloads out of a folder."""
    with named_system_errors(folder):
        (folder / PARTIAL).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / PARTIAL / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreBusyError(
            f"Another process downloads into {folder}. Wait for it, or name another folder with "
            "--to."
        ) from error
    except (OSError, NotImplementedError):  # a disk without locks
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _clear(folder: Path) -> None:
    """Remove the folder of partial files if nothing is begun."""
    begun = [path for path in (folder / PARTIAL).iterdir() if path.name != ".lock"]
    if not begun:
        shutil.rmtree(folder / PARTIAL, ignore_errors=True)


def sizes_by_part(files: Sequence[PlannedFile]) -> Mapping[str, tuple[int, int | None]]:
    """Return the number of files of each part, and their size where it is known."""
    sizes: dict[str, tuple[int, int | None]] = {}
    for file in files:
        count, total = sizes.get(file.offer.part, (0, 0))
        size_bytes = file.offer.size_bytes
        is_known = total is not None and size_bytes is not None
        sizes[file.offer.part] = (count + 1, (total or 0) + (size_bytes or 0) if is_known else None)
    return sizes
