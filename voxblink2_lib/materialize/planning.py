"""Decide what a run has to do, and refuse what would leave two corpora in one store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import StoreDamagedError, StoreMismatchError
from voxblink2_lib.materialize.jobs import make_jobs
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import KEY_COLUMNS, Index, VideoKeys, video_keys
from voxblink2_lib.release.location import Release
from voxblink2_lib.release.selection import select
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger


def plan_run(
    request: MaterializeRequest, store: Store, index: Index, ledger: Ledger, *, retry: bool
) -> ClipOptions:
    """Give every selected video that has none a job; forget those no longer wanted.

    Args:
        request: what the user asked for.
        store: the store, locked by us.
        index: its index.
        ledger: its ledger.
        retry: give videos whose time has come again to new jobs.

    Returns:
        How the store's clips are made.

    Raises:
        StoreMismatchError: the store holds what was not asked for.
        StoreDamagedError: the ledger and the shards do not belong together.
    """
    _check_shards(request, store, ledger)
    options = _clip_options(request, store, ledger)
    plan = _name_of_plan(request, index)
    # Comparing millions of videos takes seconds; the same plan has been compared already.
    if ledger.setting("plan") != plan:
        selected, excluded = select(index, request.selection)
        changes = diff_plan(selected, ledger.planned_videos())
        _check_corpus(store, changes)
        ledger.drop(video_keys(changes.unwanted))
        ledger.exclude(video_keys(excluded))
        ledger.add_jobs(make_jobs(VideoKeys(changes.new)))
        ledger.set_setting("plan", plan)
    for name in ClipOptions.names(request.config):
        if ledger.setting(name) is None:
            ledger.set_setting(name, str(getattr(options, name)))
    if retry:
        ledger.add_jobs(make_jobs(ledger.due()))
    return options


def plan_retry(
    request: MaterializeRequest, store: Store, ledger: Ledger, due: Sequence[VideoKey]
) -> ClipOptions:
    """Give videos that were tried before to new jobs, and look at no release.

    Args:
        request: what the user asked for.
        store: the store, locked by us.
        ledger: its ledger.
        due: the videos; their jobs must be sealed.

    Returns:
        How the store's clips are made.

    Raises:
        StoreDamagedError: the ledger and the shards do not belong together.
    """
    _check_shards(request, store, ledger)
    ledger.add_jobs(make_jobs(due))
    return _clip_options(request, store, ledger)


def _name_of_plan(request: MaterializeRequest, index: Index) -> str:
    chosen = asdict(request.selection)
    said = {name: sorted(v) if isinstance(v, frozenset) else v for name, v in chosen.items()}
    text = json.dumps([index.info.fingerprint, said])
    return hashlib.sha256(text.encode()).hexdigest()


def is_complete(request: MaterializeRequest, store: Store, release: Release) -> bool:
    """Say whether a store that cannot be written to already has all that is asked for."""
    if not (store.ledger.exists() and (store.index / "index.json").exists()):
        return False
    index = Index(store.index)
    if index.info.signature != release.signature():
        return False
    with Ledger(store.ledger, request.config, readonly=True) as ledger:
        changes = diff_plan(select(index, request.selection)[0], ledger.planned_videos())
        _check_corpus(store, changes)
        _clip_options(request, store, ledger)
        return not len(changes.new) and not ledger.open_jobs()


def _check_shards(request: MaterializeRequest, store: Store, ledger: Ledger) -> None:
    folder = store.shards(request.config)
    known = {shard.name for shard in ledger.shards()}
    there = {path.name for path in folder.glob("*.arrow")}
    if there and not known and not ledger.statistics.videos():
        raise StoreDamagedError(
            f"The store {store.root} has {len(there)} shards and a ledger that knows of none, so "
            "nothing tells what is in them. Put the ledger back, or name another store."
        )
    if lost := sorted(known - there):
        raise StoreDamagedError(
            f"{len(lost)} of the {len(known)} shards of the store {store.root} are gone, the first "
            f"is {folder / lost[0]}. Put them back, or name another store."
        )


def _check_corpus(store: Store, changes: PlanDiff) -> None:
    if len(changes.outside):
        first = next(video_keys(changes.outside))
        raise StoreMismatchError(
            f"The store {store.root} already holds {len(changes.outside)} videos that this "
            f"selection leaves out, the first is {first.speaker_id}/{first.video_id}. A selection "
            "may grow, not shrink: widen it, or name another store."
        )
    if len(changes.changed):
        first = next(video_keys(changes.changed))
        raise StoreMismatchError(
            f"The store {store.root} holds {len(changes.changed)} videos cut by other annotations "
            f"than this release has, the first is {first.speaker_id}/{first.video_id}. Use the "
            "old release, or another store."
        )


def _clip_options(request: MaterializeRequest, store: Store, ledger: Ledger) -> ClipOptions:
    """Return how the store's clips are made: as they were, else as asked for, else the default."""
    settled: dict[str, Any] = {}
    for name in ClipOptions.names(request.config):
        default = getattr(ClipOptions(), name)
        said = ledger.setting(name)
        held = None if said is None else type(default)(said)
        settled[name] = request.clips.get(name, default if held is None else held)
        if held not in {None, settled[name]}:
            raise StoreMismatchError(
                f"The store {store.root} holds clips with {name}={held!r}, asked for is "
                f"{settled[name]!r}. Use {name}={held!r}, or another store."
            )
    return ClipOptions(**settled)


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """What a selection asks of a store. Each table has ``speaker_id`` and ``video_id``, sorted.

    Attributes:
        new: videos to be given to new jobs.
        unwanted: videos that are planned or failed, and no longer selected.
        outside: videos that are in the store for good, and not selected.
        changed: videos that are in the store for good, cut by other annotations.
    """

    new: pa.Table
    unwanted: pa.Table
    outside: pa.Table
    changed: pa.Table


def diff_plan(selected: pa.Table, known: pa.Table) -> PlanDiff:
    """Compare a selection with what a ledger knows.

    Args:
        selected: what :func:`select` returned.
        known: columns ``speaker_id``, ``video_id``, ``status`` and ``digest`` (of the
            annotations it was cut by).
    """
    if not len(known):
        nothing = selected.slice(0, 0)
        return PlanDiff(new=selected, unwanted=nothing, outside=nothing, changed=nothing)
    done = pc.equal(known["status"], "done")
    others = _without(known, selected)
    finished = pc.equal(others["status"], "done")
    return PlanDiff(
        new=_without(selected, known),
        unwanted=others.filter(pc.invert(finished)),
        outside=others.filter(finished),
        changed=_changed(known.filter(done), selected),
    )


def _changed(done: pa.Table, selected: pa.Table) -> pa.Table:
    now = selected.rename_columns([*KEY_COLUMNS, "digest_now"])
    both = done.join(now, keys=KEY_COLUMNS, join_type="inner")
    return _sorted(both.filter(pc.not_equal(both["digest"], both["digest_now"])))


def _without(table: pa.Table, others: pa.Table) -> pa.Table:
    return _sorted(table.join(others.select(KEY_COLUMNS), keys=KEY_COLUMNS, join_type="left anti"))


def _sorted(videos: pa.Table) -> pa.Table:
    # A join keeps no order.
    return videos.sort_by([(key, "ascending") for key in KEY_COLUMNS])
