"""Build an index from annotation files, in one pass and bounded memory, or go on with one."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from voxblink2_lib.errors import ReleaseError, StoreMismatchError
from voxblink2_lib.files import TEMP_GLOB, atomic_write, named_system_errors, sha256_of
from voxblink2_lib.progress import AdvanceWithNote, Progress, no_progress
from voxblink2_lib.records import FRAMES_PER_SECOND
from voxblink2_lib.release.annotation_batch import AnnotatedBatch
from voxblink2_lib.release.annotation_files import BatchPlace, PlacedBatch, read_batches
from voxblink2_lib.release.annotation_workers import read_in_order
from voxblink2_lib.release.index import (
    KEY_COLUMNS,
    Index,
    IndexInfo,
    is_of_earlier_format,
    read_videos,
)
from voxblink2_lib.release.index_writer import (
    UNFINISHED,
    IndexWriter,
    read_checkpoint,
)
from voxblink2_lib.release.location import Release
from voxblink2_lib.release.speaker_index import keep_speakers
from voxblink2_lib.release.tombstones import Tombstones

_FINGERPRINT_ROWS = 65_536  # at a time
_BY_KEY = [(name, "ascending") for name in KEY_COLUMNS]


def open_index(release: Release, folder: Path, *, progress: Progress = no_progress) -> Index:
    """Return the index of a release, built now if there is none or the release has changed.

    Args:
        release: where the release is.
        folder: folder of the index.
        progress: counts files.

    Raises:
        ReleaseError: see :func:`build_index`.
        StoreMismatchError: the release contradicts the index.
    """
    # The earlier format is not compared: nothing is added to the clips of stores of that time.
    is_known = (folder / "index.json").exists() and not is_of_earlier_format(folder)
    old = Index(folder) if is_known else None
    if old is not None and old.info.signature == release.signature(progress=progress):
        return old
    fresh = folder.with_name(f"{folder.name}.new")
    new = build_index(release, fresh, progress=progress)
    try:
        if old is not None:
            check_growth(old, new)
        # Renamed first, so that a kill never leaves half an index under its name.
        stale = folder.with_name(f"{folder.name}.old")
        shutil.rmtree(stale, ignore_errors=True)
        if folder.exists():
            folder.rename(stale)
        fresh.rename(folder)
        keep_speakers(stale, folder)
        shutil.rmtree(stale, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Index(folder)


def build_index(
    release: Release,
    folder: Path,
    *,
    progress: Progress = no_progress,
    processes: int | None = None,
) -> Index:
    """Read a whole release into an index. An existing folder is replaced.

    What was purged from the store, the folder around that of the index, is left out.

    What was written before a stop is kept in the folder, which is no index until all is done. The
    next call goes on after its last group of rows if the release has not changed.

    Args:
        release: where the release is.
        folder: where to put the index.
        progress: counts the bytes of an archive, or the speakers and the files of a folder.
        processes: how many read annotations; see :func:`read_in_order`.

    Returns:
        The new index.

    Raises:
        ReleaseError: the release is damaged, or no file of it could be read. Nothing is left.
        StoreFullError: the disk is full. What is written is kept.
    """
    state = release.state(progress=progress)
    checkpoint = read_checkpoint(folder, state.signature)
    if checkpoint is None:
        shutil.rmtree(folder, ignore_errors=True)
    with named_system_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in (folder / "index.json", *folder.rglob(TEMP_GLOB)):
                left.unlink(missing_ok=True)
            with IndexWriter(folder, signature=state.signature, checkpoint=checkpoint) as writer:
                place = checkpoint.place if checkpoint else BatchPlace()
                batches = read_batches(release.path, place=place)
                with (
                    closing(read_in_order(batches, processes=processes)) as annotated,
                    progress(
                        "Reading annotations",
                        unit="B" if release.is_archive else "file",
                        total=state.size,
                        done=place.position,
                    ) as advance,
                ):
                    size = state.size - place.position
                    _write(annotated, writer, advance, Tombstones.of(folder.parent), left=size)
                _finish(writer, folder, release, state.signature)
        except BaseException as error:
            # What follows a damaged release is another one.
            if isinstance(error, ReleaseError) or not read_checkpoint(folder, state.signature):
                shutil.rmtree(folder, ignore_errors=True)
            raise
    return Index(folder)


def _write(
    annotated_batches: Iterable[tuple[PlacedBatch, AnnotatedBatch]],
    writer: IndexWriter,
    advance: AdvanceWithNote,
    tombstones: Tombstones,
    *,
    left: int,
) -> None:
    for placed, (rows, rejects) in annotated_batches:
        shown = [each for each in rejects if not tombstones.mentioned_in(each.path)]
        writer.take(placed, AnnotatedBatch(tombstones.without(rows), shown))
        files = placed.place.files + len(placed.batch.paths)
        read = placed.end_position - placed.place.position
        advance(read, note=f"{files:,} files")
        left -= read
    advance(max(0, left))  # the end of an archive has no file


def _finish(writer: IndexWriter, folder: Path, release: Release, signature: str) -> None:
    """Complete the files, write the table of videos and the summary."""
    counts = writer.counts
    if not counts.rows:
        rejects = ""
        if counts.rejected:
            rejects = f" ({counts.rejected} files were rejected; {writer.first_reject()})"
        raise ReleaseError(f"The release {release.path} has no usable annotation{rejects}.")
    videos = writer.finish()
    pq.write_table(videos, folder / "videos.parquet", compression="zstd")
    info = IndexInfo(
        speakers=pc.count_distinct(videos["speaker_id"]).as_py(),
        videos=len(videos),
        utterances=counts.rows,
        boxes=counts.boxes,
        hours=round(counts.frames / FRAMES_PER_SECOND / 3600, 4),
        rejected=counts.rejected,
        fingerprint=fingerprint_of(videos),
        signature=signature,
        files={path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()},
    )
    with atomic_write(folder / "index.json") as file:
        file.write(info.as_json())
    shutil.rmtree(folder / UNFINISHED)


def fingerprint_of(videos: pa.Table) -> str:
    """Return a digest of the keys of videos and of their annotations."""
    digest = hashlib.sha256()
    for batch in videos.select([*KEY_COLUMNS, "digest"]).to_batches(_FINGERPRINT_ROWS):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        lines = (f"{speaker} {video} {content}\n" for speaker, video, content in rows)
        digest.update("".join(lines).encode())
    return digest.hexdigest()


def check_growth(old: Index, new: Index) -> None:
    """Refuse a release that contradicts the one a store was made from.

    New videos are fine; earlier videos must still exist, with the same annotations.

    Raises:
        StoreMismatchError: with the first difference.
    """
    if old.info.fingerprint == new.info.fingerprint:
        return
    keys = [*KEY_COLUMNS, "digest"]
    before = read_videos(old.folder, keys)
    after = read_videos(new.folder, keys)
    lost = before.join(after, keys=keys, join_type="left anti", use_threads=False).sort_by(_BY_KEY)
    if len(lost):
        first = lost.slice(0, 1).to_pylist()[0]
        raise StoreMismatchError(
            f"This release is not the one that the store was made from: {len(lost)} of its "
            f"{len(before)} videos are missing or annotated otherwise, the first is "
            f"{first['speaker_id']}/{first['video_id']}. Mixing them would give a wrong corpus. "
            "Use the old release, or another store."
        )
