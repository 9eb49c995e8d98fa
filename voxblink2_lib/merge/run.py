"""Entry point: join stores in one, such that a kill at any moment costs a part of the work at most.

    check        the stores are of one corpus, and their clips made in one way; nothing is changed
    assemble     files of the new store, beside the place where it will be; its ledger comes last
    purge        what was purged from any of the stores is taken out of it, if anything was
    rename       now it is there, whole
    publish      if it is to be at a URL: it was made as the scratch store of that

Run again, it goes on where it was, unless a store was changed meanwhile: then it begins anew.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import StoreError, UsageError
from voxblink2_lib.files import atomic_write, named_system_errors, sync_folder
from voxblink2_lib.merge.assembly import Assembly
from voxblink2_lib.merge.checks import check_stores
from voxblink2_lib.merge.stores import digest_of, opened_stores
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import is_url
from voxblink2_lib.published.scratch import scratch_store
from voxblink2_lib.published.session import publishing, refuse_read_only
from voxblink2_lib.purge.run import purge_store
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.release.tombstones import PurgedIds, Tombstones
from voxblink2_lib.store.layout import Store, named_store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.lock import hold_lock

_RECORD, _JOINED = "merge.json", "joined.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Merge:
    """What was merged.

    Attributes:
        store: where the new store is.
        stores: what it was made of.
        videos: how many it has clips of, by configuration.
        shards: how many it has, by configuration.
        rewritten: how many shards were rewritten; the others are byte for byte as they were.
        tombstones: how many ids were purged from any of the stores.
    """

    store: str
    stores: tuple[str, ...]
    videos: dict[str, int]
    shards: dict[str, int]
    rewritten: int
    tombstones: int

    def as_dict(self) -> dict[str, Any]:
        """Return what ``voxblink2 merge --json`` writes."""
        return asdict(self)


def merge_stores(
    named: Sequence[str], into: str, *, scratch: str | None = None, progress: Progress = no_progress
) -> Merge:
    """Join stores in a new one. They are not changed.

    Of a video that several have, the clips of one are kept: clips win over failures, then the most
    clips, then the store that is named first.

    Args:
        named: folders and URLs of stores; that of a store in slices names all of them.
        into: folder, or URL, of the new store.
        scratch: folder in which a store at a URL is made.
        progress: counts ledgers, bytes, shards and jobs.

    Raises:
        StoreMismatchError: the stores are not of one corpus, or not of one kind of clips.
        StoreError: there is something else at the place of the new store, or no store at another.
        StoreBusyError: another process works on one of them.
        StoreDamagedError: a store is damaged.
        StoreFullError, StoreDiskError: a disk is full, or a server does not answer.
        UsageError: no store is named, or one twice.
    """
    if not named:
        raise UsageError("merge needs a store. Name its folder or its URL.")
    if scratch is not None and not is_url(into):
        raise UsageError(
            "scratch would change nothing: only a store at a URL is made in another folder. Leave "
            "it out, or merge into a URL."
        )
    store = scratch_store(into, scratch) if is_url(into) else named_store(into)
    if is_url(into):
        refuse_read_only(into)
    work = store.root.with_name(f"{store.root.name}.merging")
    with named_system_errors(store.root):
        work.mkdir(parents=True, exist_ok=True)
        try:
            with hold_lock(work, wait=False):
                result = _merge(named, store, into, work, progress)
        finally:
            if not (work / _RECORD).exists():
                shutil.rmtree(work, ignore_errors=True)
    if is_url(into):
        with publishing(into, store, progress=progress):
            pass
    return result


def _merge(named: Sequence[str], store: Store, into: str, work: Path, progress: Progress) -> Merge:
    with opened_stores(named, work / "ledgers", progress=progress) as stores:
        record = {"stores": [each.place for each in stores], "digest": digest_of(stores)}
        before = _read(store.root / _RECORD)
        if before is not None and record.items() <= before.items():
            _forget(work)  # it was killed after its end
            return _result(store, before)
        _check_target(store, into)
        check_stores(stores)
        _begin(work, record)
        assembly = Assembly(work, stores, progress)
        joined = _read(work / _JOINED)
        if joined is None:
            assembly.assemble()
            assembly.finish()
            joined = {"rewritten": assembly.rewritten}
            _write(work / _JOINED, joined)
        if Tombstones.of(assembly.target.root):
            purge_store(assembly.target, PurgedIds(), progress=progress)
            assembly.finish()
        record |= joined
        _write(assembly.target.root / _RECORD, record)
        _rename(assembly.target.root, store.root)
        _forget(work)
        return _result(store, record)


def _check_target(store: Store, into: str) -> None:
    """Refuse a place where there is something else.

    Raises:
        StoreError: there is.
    """
    is_taken = store.root.exists() and any(store.root.iterdir())
    if is_url(into):
        is_taken |= open_place(into).read().manifest is not None
    if is_taken:
        raise StoreError(
            f"There is something at {store.place} already. Nothing was merged. Name a new place "
            "for the merged store."
        )


def _begin(work: Path, record: dict[str, Any]) -> None:
    """Begin anew, unless an earlier run has begun with the same stores as they are now."""
    before = _read(work / _RECORD)
    if before == record:
        return
    if before is not None:
        _log.warning("A store was changed since this merge was stopped: it begins anew.")
    (work / _JOINED).unlink(missing_ok=True)
    for path in (work / "store", work / "rewritten"):
        shutil.rmtree(path, ignore_errors=True)
    _write(work / _RECORD, record)


def _rename(made: Path, root: Path) -> None:
    if root.exists():
        root.rmdir()  # it is empty
    os.rename(made, root)
    sync_folder(root.parent)


def _forget(work: Path) -> None:
    (work / _RECORD).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def _write(path: Path, record: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(record).encode())


def _result(store: Store, record: dict[str, Any]) -> Merge:
    videos, shards = {}, {}
    for config in CONFIG_NAMES:
        with Ledger(store.ledger, config, readonly=True) as ledger:
            if counts := ledger.statistics.videos():
                videos[config], shards[config] = counts.get("done", 0), len(ledger.shards())
    return Merge(
        store=store.place,
        stores=tuple(record["stores"]),
        videos=videos,
        shards=shards,
        rewritten=record["rewritten"],
        tombstones=len(Tombstones.of(store.root).stones),
    )
