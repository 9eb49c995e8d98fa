"""Files of a store beside index, ledger and sealed shards: what a purge removes or rewrites."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from voxblink2_lib.cut_audio.seek_points import SeekPoints
from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.files import TEMP_GLOB, atomic_write
from voxblink2_lib.published.scratch import FOLDER as SCRATCH
from voxblink2_lib.purge.traces import ids_in
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.catalogue import catalogue_file, keep_shards
from voxblink2_lib.store.checksums import checksum_file
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.open_shard import ROWS
from voxblink2_lib.store.outcome_files import SUFFIX, read_outcomes, write_outcomes

# Of the media, and of the part, of a video; see Store.part.
_NAME = re.compile(r"(id[0-9]{5,6})_([A-Za-z0-9_-]{11})(\.[0-9a-f]+)?(\.arrow)?")


def key_of_name(name: str) -> VideoKey | None:
    """Return the video that a file or folder of a store is named after; ``None`` of any other."""
    match = _NAME.fullmatch(name)
    return VideoKey(match[1], match[2]) if match else None


def purged_media(
    store: Store, tombstones: Tombstones, hurt: Collection[VideoKey]
) -> Iterator[Path]:
    """Yield the folders of staged media that hold something of what was purged.

    Args:
        store: the store.
        tombstones: what was purged.
        hurt: videos of which an utterance is purged.
    """
    for path in sorted((store.root / "media").glob("*/*")):
        key = key_of_name(path.name)
        if key and (key in hurt or tombstones.covers(*key)):
            yield path


def purged_parts(store: Store, config: str, tombstones: Tombstones) -> Iterator[Path]:
    """Yield the part files, and the shards that are being cut, that have something of that."""
    for path in sorted(store.parts(config).glob("*/*.arrow")):
        if ids_in(path, tombstones):
            yield path


def job_of_open_shard(path: Path) -> int | None:
    """Return the job of a file of a shard that is being cut; ``None`` of a part file."""
    is_open = path.name == ROWS or path.name.startswith("waiting.")
    return int(path.parent.name) if is_open else None


def remove_parts(paths: Collection[Path]) -> None:
    """Remove part files, and all of a shard that is being cut."""
    for path in paths:
        if job_of_open_shard(path) is None:
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path.parent, ignore_errors=True)


def clear_unreadable(store: Store, configs: Collection[str]) -> Iterator[Path]:
    """Remove what cannot be searched and may have anything; runs make what they need of it again.

    Yields:
        What there was of it.
    """
    SeekPoints(store.root).forget()  # with audio that comes before them
    for path in (store.lost_and_found, store.tmp):
        if path.exists() and any(path.iterdir()):
            yield path
        shutil.rmtree(path, ignore_errors=True)
    _clear_scratch(store)
    for path in sorted(store.root.rglob(TEMP_GLOB)):
        path.unlink(missing_ok=True)
    for config in configs:
        path = catalogue_file(store.root, store.shards(config), config)
        for file in (checksum_file(path), path):
            file.unlink(missing_ok=True)


def _clear_scratch(store: Store) -> None:
    """Clear what a scratch store has to be published; of its catalogues, unchanged shards stay.

    Its manifests name files, and no ids.
    """
    for path in sorted((store.root / SCRATCH).glob("*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == ".arrow":
            with Ledger(store.ledger, path.stem, readonly=True) as ledger:
                keep_shards(path, {shard.name: shard.size_bytes for shard in ledger.shards()})
        elif path.suffix not in {".json", ".sha256"}:
            path.unlink(missing_ok=True)


def rewrite_outcomes(store: Store, config: str, tombstones: Tombstones) -> Iterator[Path]:
    """Write the files of outcomes again that have something of what was purged; yield them."""
    with Ledger(store.ledger, config) as ledger:
        for path in sorted(store.shards(config).glob(f"*{SUFFIX}")):
            if _mentions(path, tombstones):
                write_outcomes(store, ledger, _job_of(path))
                yield path


def _mentions(path: Path, tombstones: Tombstones) -> bool:
    try:
        outcomes = read_outcomes(path)
    except StoreDamagedError:
        return True
    names = [name.split("/") for name in outcomes.digests or ()]
    names += [[*video.key, missing[0]] for video in outcomes.videos for missing in video.missing]
    names += [[*video.key] for video in outcomes.videos]
    names += [[witness.speaker_id, witness.video_id] for witness in outcomes.witnesses]
    is_covered = any(tombstones.covers(*ids) for ids in names)
    return is_covered or tombstones.mentioned_in(dict(outcomes.settings))


def _job_of(path: Path) -> int:
    digits = re.search(r"[0-9]+$", path.name.removesuffix(SUFFIX))
    if digits is None:
        raise StoreDamagedError(f"The file {path} is no file of outcomes. Move it elsewhere.")
    return int(digits[0])


def clean_lists(store: Store, tombstones: Tombstones, *, is_dry: bool) -> Iterator[Path]:
    """Take lines out of tables, and remove pages of reports, at the top of a store; yield them."""
    for path in sorted(store.root.glob("*.csv")):
        if ids_in(path, tombstones):
            yield path
            if not is_dry:
                _clean_table(path, tombstones)
    for path in sorted(store.root.glob("*.html")):
        if ids_in(path, tombstones):
            yield path
            if not is_dry:
                path.unlink()


def _clean_table(path: Path, tombstones: Tombstones) -> None:
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = [row for row in csv.reader(file) if not tombstones.mentioned_in("/".join(row))]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
