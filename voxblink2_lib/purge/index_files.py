"""The index of a store without what was purged, in a folder that takes its place."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from voxblink2_lib.errors import StoreError
from voxblink2_lib.files import atomic_write, sha256_of, sync_folder
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import FRAMES_PER_SECOND, Utterance, VideoKey
from voxblink2_lib.release.annotation import Header, digest_of
from voxblink2_lib.release.index import Index, IndexInfo, read_videos
from voxblink2_lib.release.index_build import fingerprint_of
from voxblink2_lib.release.index_writer import (
    BOXES_PER_GROUP,
    UNFINISHED,
    Counts,
    IndexWriter,
)
from voxblink2_lib.release.speaker_facts import SpeakerFacts
from voxblink2_lib.release.speaker_index import (
    FACT_COLUMNS,
    INFO,
    SPEAKERS,
    TRANSCRIPTS,
    SpeakerIndex,
    SpeakerInfo,
    read_speaker_info,
)
from voxblink2_lib.release.speaker_writer import Speaker, SpeakerWriter, without_purged
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.release.transcripts import Transcript
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.view import names_of

_SPEAKERS_AT_ONCE = 256
_REJECTS = "rejects.csv"
_HALF = 1 << 63  # digests are sums that wrap around at 64 bits, signed


def fresh_index(store: Store) -> Path:
    """Return the folder of an index without what was purged, which is there once it is whole."""
    return store.index.with_name(f"{store.index.name}.purged")


def mentions_purged(
    store: Store, tombstones: Tombstones, *, progress: Progress = no_progress
) -> bool:
    """Return whether the index of a store, or a file in it, has something of what was purged.

    Raises:
        StoreError: nothing would be left of it.
    """
    if not store.index.exists():
        return False
    index = Index(store.index)
    purged = _count_purged(index, tombstones, progress)
    if purged == index.info.utterances:
        raise StoreError(
            f"The purge would leave nothing of the store {store.root}: delete its folder."
        )
    rejects = (index.folder / _REJECTS).read_text(encoding="utf-8")
    if purged or tombstones.mentioned_in(rejects):
        return True
    return read_speaker_info(index.folder) is not None and _speakers_mention(index, tombstones)


def _count_purged(index: Index, tombstones: Tombstones, progress: Progress) -> int:
    names, purged = ["speaker_id", "video_id", "utterance_id"], 0
    with (
        progress("Looking at the index", unit="utterance", total=index.info.utterances) as advance,
        pq.ParquetFile(index.folder / "utterances.parquet", pre_buffer=False) as file,
    ):
        for batch in file.iter_batches(columns=names, use_threads=False):
            purged += int(tombstones.purged(batch).sum())
            advance(len(batch))
    return purged


def _speakers_mention(index: Index, tombstones: Tombstones) -> bool:
    known = SpeakerIndex(index.folder)
    if tombstones.mentioned_in(known.info.as_json().decode()):
        return True
    for speaker in _speakers(index, known):
        left = without_purged(speaker, tombstones)
        if tombstones.covers(speaker.speaker_id) or left != speaker:
            return True
    return False


def write_fresh_index(
    store: Store, tombstones: Tombstones, *, progress: Progress = no_progress
) -> frozenset[VideoKey]:
    """Write the index of a store once more, without what was purged.

    Args:
        store: the store, locked by this process.
        tombstones: what was purged.
        progress: counts utterances.

    Returns:
        The videos of which something was purged.
    """
    index, folder = Index(store.index), store.index.with_name(f"{store.index.name}.purging")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    dropped: Counter[VideoKey] = Counter()
    with (
        progress("Rewriting the index", unit="utterance", total=index.info.utterances) as advance,
        IndexWriter(folder) as writer,
    ):
        for rows in _rows(index):
            is_purged = tombstones.purged(rows)
            for key, digest in _digests(rows.filter(pa.array(is_purged))):
                dropped[key] += digest
            left = rows.filter(pa.array(~is_purged))
            if len(left):
                writer.add(left.append_column("digest", pa.array(np.zeros(len(left), np.int64))))
            advance(len(rows))
        videos = _with_digests(writer.finish(), index, dropped)
        counts = writer.counts
    pq.write_table(videos, folder / "videos.parquet", compression="zstd")
    shutil.rmtree(folder / UNFINISHED)
    rejected = _copy_rejects(index.folder, folder, tombstones)
    _write_info(index.info, folder, videos, replace(counts, rejected=rejected))
    _copy_speakers(index, folder, tombstones)
    sync_folder(folder)
    shutil.rmtree(fresh_index(store), ignore_errors=True)
    folder.rename(fresh_index(store))
    return frozenset(dropped)


def _rows(index: Index) -> Iterator[pa.RecordBatch]:
    """Yield all annotations in the order of the index, with their boxes."""
    with (
        pq.ParquetFile(index.folder / "utterances.parquet", pre_buffer=False) as utterances,
        pq.ParquetFile(index.folder / "boxes.parquet", pre_buffer=False) as boxes,
    ):
        parts = (
            file.iter_batches(BOXES_PER_GROUP, use_threads=False) for file in (utterances, boxes)
        )
        for about, tracks in zip(*parts, strict=True):
            yield pa.RecordBatch.from_arrays(
                [*about.columns, *tracks.columns], [*about.schema.names, *tracks.schema.names]
            )


def _digests(rows: pa.RecordBatch) -> Iterator[tuple[VideoKey, int]]:
    """Yield the digest of each annotation with its video, as the digest of that has it."""
    for row in rows.to_pylist():
        key = VideoKey(row["speaker_id"], row["video_id"])
        utterance = Utterance(*key, row["utterance_id"], row["first_frame"], row["last_frame"])
        size = None if row["header_width"] is None else (row["header_width"], row["header_height"])
        header = Header(row["header_start_seconds"], row["header_duration_seconds"], size)
        frames = np.array(row["frame"], np.int32)
        boxes = np.stack([np.array(row[name], np.int16) for name in ("x", "y", "width", "height")])
        yield key, digest_of(f"{utterance}", header, frames.tobytes(), boxes.T.tobytes())


def _with_digests(videos: pa.Table, index: Index, dropped: Counter[VideoKey]) -> pa.Table:
    """Return videos with their digests: those in the index, less those of what was dropped."""
    before = read_videos(index.folder, ["speaker_id", "video_id", "digest"])
    names = names_of(videos)
    digests = before["digest"].take(pc.index_in(names, names_of(before))).to_numpy().copy()
    for key, digest in dropped.items():
        place = pc.index(names, "/".join(key)).as_py()
        if place >= 0:  # something of the video is left
            digests[place] = np.int64((int(digests[place]) - digest + _HALF) % (2 * _HALF) - _HALF)
    column = videos.schema.get_field_index("digest")
    return videos.set_column(column, videos.schema.field(column), pa.array(digests))


def _write_info(info: IndexInfo, folder: Path, videos: pa.Table, counts: Counts) -> None:
    new = replace(
        info,
        speakers=pc.count_distinct(videos["speaker_id"]).as_py(),
        videos=len(videos),
        utterances=counts.rows,
        boxes=counts.boxes,
        hours=round(counts.frames / FRAMES_PER_SECOND / 3600, 4),
        rejected=counts.rejected,
        fingerprint=fingerprint_of(videos),
        files={path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    )
    with atomic_write(folder / "index.json") as file:
        file.write(new.as_json())


def _copy_rejects(before: Path, folder: Path, tombstones: Tombstones) -> int:
    """Copy which files were rejected, and return how many."""
    with open(before / _REJECTS, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if not tombstones.mentioned_in(row)]
    with open(folder / _REJECTS, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return len(rows) - 1


# -- Speakers --------------------------------------------------------------------------------------


def _copy_speakers(index: Index, folder: Path, tombstones: Tombstones) -> None:
    """Write the files about speakers into another folder, if there are any."""
    before = read_speaker_info(index.folder)
    if before is None:
        return
    known = SpeakerIndex(index.folder)
    speakers = listed_videos = 0
    with SpeakerWriter(folder) as writer:
        for speaker in _speakers(index, known):
            if not tombstones.covers(speaker.speaker_id):
                writer.add(without_purged(speaker, tombstones), {})
                speakers += 1
                listed_videos += speaker.listed_videos or 0
    info = SpeakerInfo(
        speakers=speakers,
        listed_videos=listed_videos,
        transcripts=writer.transcripts,
        unmatched=before.unmatched,
        signature=before.signature,
        annotations=Index(folder).info.fingerprint,
        content=writer.content,
        problems=tuple(text for text in before.problems if not tombstones.mentioned_in(text)),
        files={name: sha256_of(folder / name) for name in (SPEAKERS, TRANSCRIPTS)},
    )
    with atomic_write(folder / INFO) as file:
        file.write(info.as_json())


def _speakers(index: Index, known: SpeakerIndex) -> Iterator[Speaker]:
    """Yield the speakers of an index as they were written."""
    with pq.ParquetFile(index.folder / SPEAKERS, pre_buffer=False) as file:
        for batch in file.iter_batches(_SPEAKERS_AT_ONCE, use_threads=False):
            for row in batch.to_pylist():
                yield _speaker(row, known)


def _speaker(row: dict[str, Any], known: SpeakerIndex) -> Speaker:
    texts = ("info_text", "info_bytes", "asr_text", "asr_bytes")
    rows = (each for table in known.transcripts(row["speaker_id"]) for each in table.to_pylist())
    return Speaker(
        row["speaker_id"],
        SpeakerFacts(**{name: row[name] for name in FACT_COLUMNS}),
        row["listed_videos"],
        **{name: row[name] for name in texts},
        transcripts=[
            Transcript(each["video_id"], each["utterance_id"], each["transcript"], each["language"])
            for each in rows
        ],
    )


# -- Its place -------------------------------------------------------------------------------------


def mend_place(store: Store) -> None:
    """Make good what a kill has left of :func:`put_in_place`: a store without an index."""
    if not store.index.exists() and fresh_index(store).exists():
        fresh_index(store).rename(store.index)


def put_in_place(store: Store) -> None:
    """Let the new index, if there is one, take the place of the old one."""
    if fresh_index(store).exists():
        old = store.index.with_name(f"{store.index.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        store.index.rename(old)
        mend_place(store)
        sync_folder(store.root)


def clear_drafts(store: Store) -> None:
    """Remove what was begun and not ended: it may have anything of the release."""
    for path in store.root.glob(f"{store.index.name}.*"):
        shutil.rmtree(path)
