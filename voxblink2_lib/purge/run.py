"""Entry point: purge a store, such that a kill at any moment leaves all of it or nothing.

    tombstones    written first: until the end, only a purge may change the store
    rest          what is left of index and shards, in files that nothing names yet
    ledger        one transaction names these files: from here on nothing of it is read any more
    index         the new one takes the place of the old one
    files         old shards, parts, staged media, outcomes, tables, lost+found, temporary files
    ledger        written anew, so that its free pages are gone, and copied
    tombstones    the purge has ended

Each step looks for what is purged by its hashes. So a purge that was killed is run again, with or
without ids, and does what is left.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import StoreError, UsageError
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.purge.ids import all_ids, unknown_ids
from voxblink2_lib.purge.index_files import (
    clear_drafts,
    fresh_index,
    mend_place,
    mentions_purged,
    put_in_place,
    write_fresh_index,
)
from voxblink2_lib.purge.other_files import (
    clean_lists,
    clear_unreadable,
    job_of_open_shard,
    key_of_name,
    purged_media,
    purged_parts,
    remove_parts,
    rewrite_outcomes,
)
from voxblink2_lib.purge.shard_files import (
    ConcernedShard,
    clips_lost,
    concerned_shards,
    remove_strangers,
    write_rest,
)
from voxblink2_lib.purge.traces import caches_with
from voxblink2_lib.records import CONFIG_NAMES, VideoKey
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.tombstones import PurgedIds, Tombstones
from voxblink2_lib.store.backup import back_up_ledger
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.outcome_files import write_outcomes, write_stale_outcomes
from voxblink2_lib.store.provenance import copies_from


@dataclass(frozen=True, slots=True)
class RewrittenShard:
    """A shard that had something of what was purged.

    Attributes:
        config: the configuration.
        before, after: its name, and that of what is left; empty if that is nothing.
        sha256: of the shard before: what was made from it still has what was purged.
        clips: how many of its clips were purged.
    """

    config: str
    before: str
    after: str
    sha256: str
    clips: int


@dataclass(frozen=True, slots=True)
class Purge:
    """What was purged from a store, or would be.

    Attributes:
        store: the folder.
        is_dry: nothing was changed.
        tombstones: how many the store has.
        unknown: ids that the store does not have, and that will not come into it.
        shards: those that were rewritten.
        ledger_rows: rows of the ledger that are removed or rewritten.
        has_index: the index has something of what is purged.
        files: other files that were removed or rewritten, by their paths in the store.
        caches: folders of the cache of ``datasets``, and files in that of embeddings, that still
            have something of what was purged.
        copies: exports and files of embeddings, as far as they are known, that were made from
            shards that had something of it: paths, and URLs.
    """

    store: str
    is_dry: bool
    tombstones: int
    unknown: tuple[str, ...] = ()
    shards: tuple[RewrittenShard, ...] = ()
    ledger_rows: int = 0
    has_index: bool = False
    files: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()

    @property
    def has_work(self) -> bool:
        """Whether anything of it was in the store."""
        return bool(self.shards or self.ledger_rows or self.has_index or self.files)

    @property
    def clips(self) -> int:
        """How many clips are purged."""
        return sum(shard.clips for shard in self.shards)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``voxblink2 purge --json`` writes."""
        record = asdict(self)
        return {"store": self.store, "dry_run": record.pop("is_dry"), "clips": self.clips, **record}


def purge_store(
    store: Store, ids: PurgedIds, *, reason: str = "", progress: Progress = no_progress
) -> Purge:
    """Take speakers, videos and utterances out of a store, and see that they never come back.

    Args:
        store: the store.
        ids: what to purge; none ends a purge that was stopped, and looks for what has come back.
        reason: kept with the tombstones.
        progress: counts utterances, shards and files.

    Raises:
        StoreError: there is no store, or nothing would be left of it.
        StoreDamagedError: a shard that is to be rewritten is damaged.
        StoreBusyError: another process works on the store.
        UsageError: there are no ids, and nothing was purged before.
    """
    _check_is_store(store)
    with store.locked(wait=False, is_half_purged=True):
        mend_place(store)
        work = _Work.of(store, ids, reason, progress)
        work.tombstones = work.tombstones.begun(each.shard.sha256 for each in work.concerned)
        work.tombstones.write(store.root)
        work.purge()
        work.tombstones.finished().write(store.root)
        return work.result(is_dry=False)


def plan_purge(store: Store, ids: PurgedIds, *, progress: Progress = no_progress) -> Purge:
    """Return what :func:`purge_store` would do, and change nothing.

    Raises:
        Exception: see :func:`purge_store`.
    """
    _check_is_store(store)
    work = _Work.of(store, ids, "", progress)
    work.look()
    return work.result(is_dry=True)


def _check_is_store(store: Store) -> None:
    if not (store.ledger.exists() or store.index.exists()):
        raise StoreError(
            f"There is no store at {store.root}: it has neither a ledger nor an index. Name the "
            "folder of a store with --store."
        )


@dataclass(slots=True)
class _Work:
    """A purge of a store.

    Attributes:
        store: the store.
        tombstones: those set before, and those of the ids that are purged now.
        unknown: ids that the store does not have.
        progress: counts utterances, shards and files.
        configs: configurations of which the store has anything.
    """

    store: Store
    tombstones: Tombstones
    unknown: list[str]
    progress: Progress
    configs: list[str]
    concerned: list[ConcernedShard]
    has_index: bool
    ledger_rows: int
    store_id: str
    hurt: frozenset[VideoKey] = frozenset()
    after: dict[tuple[str, str], str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, store: Store, ids: PurgedIds, reason: str, progress: Progress) -> _Work:
        """Look at what a purge is about; every check of it is made here."""
        before = Tombstones.of(store.root)
        if not (any(ids) or before):
            raise UsageError(
                f"Nothing to purge: name speakers, videos or utterances. Nothing was purged from "
                f"the store {store.place} before."
            )
        unknown = unknown_ids(store, ids)
        tombstones = before.added(all_ids(store, ids), reason=reason)
        configs = _configs(store)
        ledger_rows, store_id = 0, ""
        if store.ledger.exists():
            with Ledger(store.ledger, "", readonly=True) as ledger:
                ledger_rows, store_id = ledger.purge.count(tombstones), ledger.store_id
        return cls(
            store,
            tombstones,
            unknown,
            progress,
            configs,
            concerned_shards(store, configs, tombstones, progress),
            mentions_purged(store, tombstones, progress=progress),
            ledger_rows,
            store_id,
        )

    def look(self) -> None:
        """Take note of the files that a purge would change."""
        store, tombstones = self.store, self.tombstones
        parts = (purged_parts(store, config, tombstones) for config in self.configs)
        self.files += chain(
            purged_media(store, tombstones, self.hurt),
            *parts,
            clean_lists(store, tombstones, is_dry=True),
            [path for path in [store.lost_and_found] if path.exists()],
        )

    def purge(self) -> None:
        """Do all steps in order, when the tombstones are written."""
        store, tombstones = self.store, self.tombstones
        if self.has_index:
            self.hurt = write_fresh_index(store, tombstones, progress=self.progress)
        for path in purged_media(store, tombstones, self.hurt):
            shutil.rmtree(path, ignore_errors=True)
            self.files.append(path)
        parts = {name: [*purged_parts(store, name, tombstones)] for name in self.configs}
        if store.ledger.exists():
            self._switch(parts)
        put_in_place(store)
        clear_drafts(store)
        remove_parts([*chain.from_iterable(parts.values())])
        self.files += chain(chain.from_iterable(parts.values()), self._clean())
        if store.ledger.exists():
            self._renew_ledger()

    def _switch(self, parts: dict[str, list[Path]]) -> None:
        """Write what is left of the shards; then let the ledger name that, all at once."""
        store, tombstones = self.store, self.tombstones
        written = write_rest(store, self.concerned, tombstones, self.progress)
        folder = self._index_folder()
        lost = clips_lost(self.concerned, tombstones, Index(folder) if folder else None)
        with Ledger(store.ledger, "") as ledger, ledger.together():
            for each, rest in written:
                ledger.purge.replace(each.config, each.shard, rest)
                self.after[each.config, each.shard.name] = rest.name
            for config, videos in lost.items():
                ledger.purge.shrink(config, videos)
            ledger.purge.forget(tombstones)
            for config, paths in parts.items():
                for job in {job_of_open_shard(path) for path in paths}:
                    if job is not None:
                        ledger.purge.cut_again(config, job)
                keys = [key for path in paths if (key := key_of_name(path.name))]
                ledger.purge.crop_again(config, keys)
        for config in self.configs:
            with Ledger(store.ledger, config) as ledger:
                for each, rest in written:
                    if each.config == config and rest.name:
                        write_outcomes(store, ledger, rest.job, rest.digests)
                write_stale_outcomes(store, ledger, progress=self.progress)

    def _index_folder(self) -> Path | None:
        fresh = fresh_index(self.store)
        folders = [folder for folder in (fresh, self.store.index) if folder.exists()]
        return folders[0] if folders else None

    def _clean(self) -> Iterable[Path]:
        store, tombstones = self.store, self.tombstones
        for config in self.configs:
            yield from remove_strangers(store, config, tombstones)
            yield from rewrite_outcomes(store, config, tombstones)
        yield from clean_lists(store, tombstones, is_dry=False)
        yield from clear_unreadable(store, self.configs)

    def _renew_ledger(self) -> None:
        with Ledger(self.store.ledger, "") as ledger:
            ledger.purge.vacuum()
        back_up_ledger(self.store)
        shutil.rmtree(self.store.tmp, ignore_errors=True)

    def result(self, *, is_dry: bool) -> Purge:
        """Return what was done, or would be."""
        return Purge(
            store=self.store.place,
            is_dry=is_dry,
            tombstones=len(self.tombstones.stones),
            unknown=tuple(self.unknown),
            shards=tuple(
                RewrittenShard(
                    each.config,
                    each.shard.name,
                    self.after.get((each.config, each.shard.name), ""),
                    each.shard.sha256,
                    each.rows,
                )
                for each in self.concerned
            ),
            ledger_rows=self.ledger_rows,
            has_index=self.has_index,
            files=tuple(sorted({str(path.relative_to(self.store.root)) for path in self.files})),
            caches=tuple(map(str, caches_with(self.tombstones, progress=self.progress))),
            copies=tuple(copies_from(self.store_id, self._former_shards())),
        )

    def _former_shards(self) -> frozenset[str]:
        """Return the SHA-256 of all shards that were rewritten, by this purge or one before."""
        return self.tombstones.shards.union(each.shard.sha256 for each in self.concerned)


def _configs(store: Store) -> list[str]:
    """Return the configurations of which a store, or only its ledger, has anything."""
    known = set()
    if store.ledger.exists():
        with Ledger(store.ledger, "", readonly=True) as ledger:
            known = set(ledger.configs())
    places = {name: (store.shards(name), store.parts(name)) for name in CONFIG_NAMES}
    has_files = {name for name, pair in places.items() if any(folder.exists() for folder in pair)}
    return [name for name in CONFIG_NAMES if name in known | has_files]
