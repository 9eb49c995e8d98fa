"""The files of a merged store, which are made beside the place where it will be.

::

    OUT.merging/
      merge.json          which stores, as they were when it was begun
      ledgers/            copies of their ledgers
      rewritten/          what a shard that was rewritten has: it is not written again
      store/              the store; it is renamed to OUT when it is whole

Shards of which all clips are kept are taken over byte for byte.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.files import atomic_write, sync_folder
from voxblink2_lib.merge.stores import StoreToMerge, take_file
from voxblink2_lib.progress import Progress
from voxblink2_lib.records import CONFIG_NAMES, SealedShard, VideoKey
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.arrow_stream import open_stream
from voxblink2_lib.store.catalogue import local_catalogue
from voxblink2_lib.store.checksums import write_checksum
from voxblink2_lib.store.cut_jobs import POSITION, STREAM
from voxblink2_lib.store.job_slices import SLICE
from voxblink2_lib.store.joined_ledgers import JoinedJob, LedgerJoin
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_checksums import write_checksums
from voxblink2_lib.store.ledger_purge import TOMBSTONES
from voxblink2_lib.store.outcome_files import (
    outcomes_path,
    read_outcomes,
    write_outcomes,
    write_stale_outcomes,
)
from voxblink2_lib.store.row_digests import row_digests, row_names
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.store.shards import read_batches, seal_shard

# Of one store alone: what it has planned, where its archive goes on, which slice it is.
_NOT_KEPT = {"plan", "outside", STREAM, POSITION, SLICE}

Entries = dict[tuple[int, str, int], SealedShard]


@dataclass(slots=True)
class Assembly:
    """A merged store that is being made.

    Attributes:
        work: folder for everything.
        stores: what is merged; of the same clips of a video, the first one gives them.
        progress: counts ledgers, bytes, shards and jobs.
        rewritten: how many shards were rewritten.
    """

    work: Path
    stores: Sequence[StoreToMerge]
    progress: Progress
    rewritten: int = 0
    _digests: dict[tuple[str, int], Mapping[str, bytes]] = field(default_factory=dict)

    @property
    def target(self) -> Store:
        """The store."""
        return Store(self.work / "store")

    def assemble(self) -> None:
        """Make all files; the ledger comes last.

        Raises:
            StoreDamagedError: a store is not what its ledger says.
            StoreFullError: the disk is full; run again, it goes on.
        """
        self.target.root.mkdir(parents=True, exist_ok=True)
        self._unite_tombstones()
        self._take_index()
        draft = self.work / "ledger.sqlite"
        for path in self.work.glob(f"{draft.name}*"):
            path.unlink()
        ledgers = [each.ledger for each in self.stores]
        with LedgerJoin(draft, ledgers, progress=self.progress) as join:
            entries: Entries = {}
            for place in range(len(self.stores)):
                jobs = [job for job in join.jobs if job.part == place]
                entries |= self._shards_of(place, [job for job in jobs if job.shard], join)
                for job in jobs:
                    if job.shard is None:
                        self._take_parts(job, join)
            join.write(entries, drops=_is_dropped)
        self._put_in_place(draft)

    # -- What is not of a job ----------------------------------------------------------------------

    def _unite_tombstones(self) -> None:
        """Until the end, only a purge may change the store: what was purged is still in it."""
        first, *others = (Tombstones.of(each.store.root) for each in self.stores)
        for tombstones in others:
            first = first.united(tombstones)
        if first:
            first.begun().write(self.target.root)

    def _take_index(self) -> None:
        folders = [each.store.index for each in self.stores if each.store.index.exists()]
        for path in folders[0].iterdir() if folders else ():
            if path.is_file():
                take_file(path, self.target.index / path.name)

    def _put_in_place(self, draft: Path) -> None:
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, self.target.ledger)
        write_checksums(self.target.ledger)
        sync_folder(self.target.root)

    # -- Shards ------------------------------------------------------------------------------------

    def _shards_of(self, place: int, jobs: list[JoinedJob], join: LedgerJoin) -> Entries:
        """Return what has the clips of the sealed jobs of a store, when it is on disk."""
        entries: Entries = {}
        whole: dict[str, dict[Path, SealedShard]] = defaultdict(dict)
        partly: list[JoinedJob] = []
        for job in jobs:
            shard, number = job.shard, job.number
            assert shard is not None
            entry = SealedShard(number, "", "", 0, 0)
            if shard.name and job.has_clips and job.is_whole:
                name = shard_name(job.config, number)
                entry = SealedShard(number, name, shard.sha256, shard.rows, shard.size_bytes)
                whole[job.config][self.target.shards(job.config) / name] = shard
            elif shard.name and job.has_clips:
                partly.append(job)
            entries[place, job.config, job.job] = entry
        for config, shards in whole.items():
            self._take_shards(place, config, shards)
        with self.progress("Rewriting shards", unit="shard", total=len(partly)) as advance:
            for job in partly:
                entries[place, job.config, job.job] = self._rewrite(job, join.kept_videos(job))
                advance(1)
        for job in jobs:
            self._note_digests(job, entries[place, job.config, job.job])
        return entries

    def _take_shards(self, place: int, config: str, shards: Mapping[Path, SealedShard]) -> None:
        lacking = {
            path: shard
            for path, shard in shards.items()
            if not (path.exists() and path.stat().st_size == shard.size_bytes)
        }
        self.stores[place].provide(config, lacking, self.progress)
        for path, shard in shards.items():
            write_checksum(path, shard.sha256)

    def _rewrite(self, job: JoinedJob, kept: list[VideoKey]) -> SealedShard:
        """Write the rows of some videos of a shard, unless an earlier run has."""
        receipt = self.work / "rewritten" / f"{job.config}-{job.number}.json"
        target = self.target.shards(job.config) / shard_name(job.config, job.number)
        self.rewritten += 1
        if receipt.exists() and target.exists():
            name, sha256, rows, size_bytes = json.loads(receipt.read_text())
            if target.stat().st_size == size_bytes:
                digests = dict(_digests_in(target))
                return SealedShard(job.number, name, sha256, rows, size_bytes, digests)
        assert job.shard is not None
        source = self.work / "rewritten" / job.shard.name
        self.stores[job.part].provide(job.config, {source: job.shard})
        names = pa.array([f"{key.speaker_id}/{key.video_id}" for key in kept])

        def keep(rows: pa.RecordBatch) -> pa.RecordBatch:
            videos = pc.binary_join_element_wise(rows["speaker_id"], rows["video_id"], "/")
            return rows.filter(pc.is_in(videos, names))

        target.parent.mkdir(parents=True, exist_ok=True)
        schema = open_stream(source).schema
        shard = seal_shard(job.number, [source], target, schema, keep=keep)
        source.unlink()
        if not shard.name:
            raise StoreDamagedError(
                f"The shard {job.shard.name} of {self.stores[job.part].place} has no clip of its "
                "videos."
            )
        with atomic_write(receipt) as file:
            record = [shard.name, shard.sha256, shard.rows, shard.size_bytes]
            file.write(json.dumps(record).encode())
        return shard

    def _note_digests(self, job: JoinedJob, entry: SealedShard) -> None:
        """Keep the digests of the rows of a shard for the file of outcomes beside it."""
        if entry.digests is not None:
            self._digests[job.config, job.number] = entry.digests
        elif entry.name:
            folder = self.stores[job.part].store.shards(job.config)
            with contextlib.suppress(FileNotFoundError, StoreDamagedError):
                before = read_outcomes(outcomes_path(folder, job.config, job.job))
                if before.digests is not None and before.shard == job.shard:
                    self._digests[job.config, job.number] = before.digests

    # -- Parts -------------------------------------------------------------------------------------

    def _take_parts(self, job: JoinedJob, join: LedgerJoin) -> None:
        """Take over what is finished of an open job."""
        store = self.stores[job.part].store
        for key in join.kept_videos(job, only_clips=False):
            part = store.part(job.config, job.job, key)
            if part.exists():
                take_file(part, self.target.part(job.config, job.number, key))

    # -- What is made of it ------------------------------------------------------------------------

    def finish(self) -> None:
        """Write what can be made of ledger and shards: outcomes and catalogues."""
        store = self.target
        for config in CONFIG_NAMES:
            with Ledger(store.ledger, config) as ledger:
                for (name, job), digests in self._digests.items():
                    if name == config:
                        write_outcomes(store, ledger, job, digests)
                write_stale_outcomes(store, ledger, progress=self.progress)
            if any(store.shards(config).glob("*.arrow")):
                local_catalogue(store.root, config, progress=self.progress)


def _digests_in(shard: Path) -> Iterator[tuple[str, bytes]]:
    for rows in read_batches(shard):
        yield from zip(row_names(rows), row_digests(rows), strict=True)


def _is_dropped(name: str) -> bool:
    return name == TOMBSTONES or name.partition(".")[2] in _NOT_KEPT
