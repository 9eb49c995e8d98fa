"""What is published at a URL at one moment: a store in one piece, or the union of slices.

No two slices have a job, a shard or a video in common, so their files lie side by side; only the
ledgers, the catalogues and the tombstones are joined, in the copy of whoever reads them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.published.manifest import LEDGER, TOMBSTONES, Manifest, PublishedFile
from voxblink2_lib.published.place import SLICES, Place
from voxblink2_lib.published.slices import slice_manifests
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.catalogue import Catalogue, Shard
from voxblink2_lib.store.job_slices import SLICE, JobSlice
from voxblink2_lib.store.joined_ledgers import LedgerJoin
from voxblink2_lib.store.shard_names import shard_order

_CATALOGUES = tuple(f"catalogue/{config}.arrow" for config in CONFIG_NAMES)
_JOINED = {LEDGER, TOMBSTONES, *_CATALOGUES}
# What one slice knows of the whole: which plan it has done.
_OF_A_PLAN = ("plan", "outside")


class Generation(NamedTuple):
    """What is published at one moment.

    Attributes:
        manifest: all files, those of slices with their folders.
        slices: the manifest of each slice that is published; none of a store in one piece.
    """

    manifest: Manifest
    slices: Mapping[JobSlice, Manifest] = {}  # never written to

    def files(self, root: Path, needs: Collection[str]) -> dict[Path, PublishedFile]:
        """Return the files that a copy needs, by their paths in it.

        Args:
            root: folder of the copy.
            needs: paths of files, and of folders with a slash.
        """
        files = self.manifest.below(*needs)
        targets = {
            root / file.path: file for file in files if not (self.slices and file.path in _JOINED)
        }
        for job_slice, manifest in self.slices.items():
            for file in manifest.below(*_JOINED.intersection(_needed(needs))):
                targets[_part(root, job_slice, file.path)] = in_slice(job_slice, file)
        return targets

    def join(self, root: Path, *, progress: Progress = no_progress) -> None:
        """Join the files of slices that are joined, unless that is done.

        Args:
            root: folder of the copy, which has the others.
            progress: counts ledgers.

        Raises:
            StoreDamagedError: a ledger or a catalogue is damaged.
        """
        if self.slices:
            _join_tombstones(root, self._parts(root, TOMBSTONES))
            for path in _CATALOGUES:
                _join_catalogues(root / path, self._parts(root, path))
            is_complete = len(self.slices) == next(iter(self.slices)).slices
            ledgers = self._parts(root, LEDGER)
            _join_ledgers(root / LEDGER, ledgers, is_complete=is_complete, progress=progress)

    def _parts(self, root: Path, path: str) -> list[Path]:
        parts = [_part(root, job_slice, path) for job_slice in self.slices]
        return [part for part in parts if part.exists()]


def read_generation(place: Place) -> Generation | None:
    """Return what is published at a URL now; ``None`` if nothing is.

    Raises:
        StoreDamagedError: a manifest is none.
        StoreError, StoreDiskError: the URL cannot be read.
    """
    manifest = place.read().manifest
    if manifest is not None:
        return Generation(manifest)
    slices = slice_manifests(place)
    return Generation(_union_of(slices), slices) if slices else None


def in_slice(job_slice: JobSlice, file: PublishedFile) -> PublishedFile:
    """Return a file of a slice as one of the whole store."""
    return replace(file, folder=f"{SLICES}/{job_slice.name}/")


def _needed(needs: Collection[str]) -> Iterator[str]:
    for path in _JOINED:
        if path.startswith(tuple(needs)):
            yield path


def _part(root: Path, job_slice: JobSlice, path: str) -> Path:
    return root / SLICES / job_slice.name / path


def _union_of(slices: Mapping[JobSlice, Manifest]) -> Manifest:
    files: dict[str, PublishedFile] = {}
    for job_slice, manifest in slices.items():
        for path, file in manifest.files.items():
            # All have the same index, and each its own ledger.
            files.setdefault(path, in_slice(job_slice, file))
    stones = [
        manifest.files[TOMBSTONES] for manifest in slices.values() if TOMBSTONES in manifest.files
    ]
    if stones:  # joined in copies; its hash changes with that of any slice
        digest = hashlib.sha256("".join(file.sha256 for file in stones).encode()).hexdigest()
        files[TOMBSTONES] = replace(files[TOMBSTONES], sha256=digest)
    attempts = "".join(manifest.attempt for manifest in slices.values())
    return Manifest(
        generation=sum(manifest.generation for manifest in slices.values()),
        attempt=hashlib.sha256(attempts.encode()).hexdigest()[:12],
        writer=", ".join(sorted({manifest.writer for manifest in slices.values()})),
        written_at=max(manifest.written_at for manifest in slices.values()),
        files=files,
    )


# -- Joined files ----------------------------------------------------------------------------------


def _join_ledgers(path: Path, parts: list[Path], *, is_complete: bool, progress: Progress) -> None:
    if path.exists() or not parts:
        return

    def drops(name: str) -> bool:
        setting = name.partition(".")[2]
        return setting == SLICE or (setting in _OF_A_PLAN and not is_complete)

    with tempfile.TemporaryDirectory(prefix=".join-", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        with LedgerJoin(draft, parts, progress=progress) as join:
            entries = {(job.part, job.config, job.job): job.shard for job in join.jobs if job.shard}
            join.write(entries, drops=drops)
        os.replace(draft, path)


def _join_catalogues(path: Path, parts: list[Path]) -> None:
    if path.exists() or not parts:
        return
    tables = [entry for part in parts for entry in _entries(Catalogue.read(part))]
    tables.sort(key=lambda entry: shard_order(entry[0].name))
    rows = pa.concat_tables(table for _, table in tables)
    Catalogue(rows, tuple(shard for shard, _ in tables)).write(path)


def _entries(catalogue: Catalogue) -> Iterator[tuple[Shard, pa.Table]]:
    tables = (table for _, table in catalogue.tables())
    yield from zip(catalogue.shards, tables, strict=True)


def _join_tombstones(root: Path, parts: list[Path]) -> None:
    if not parts or (root / TOMBSTONES).exists():
        return
    first, *others = (Tombstones.of(part.parent) for part in parts)
    for tombstones in others:
        first = first.united(tombstones)
    first.write(root)
