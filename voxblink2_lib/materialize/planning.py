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
from voxblink2_lib.materialize.jobs import (
    check_shard_count,
    count_jobs,
    full_shards,
    make_jobs,
)
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import VideoKey, options_of
from voxblink2_lib.release.index import KEY_COLUMNS, Index, VideoKeys, video_keys
from voxblink2_lib.release.location import Release
from voxblink2_lib.release.selection import select
from voxblink2_lib.store.clip_format import CLIP_FORMAT, read_clip_format
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger


def plan_run(
    request: MaterializeRequest, store: Store, index: Index, ledger: Ledger, *, retry: bool
) -> ClipOptions:
    """Plan jobs for all selected videos that have none; drop those no longer selected.

    Args:
        request: the request of the user.
        store: the store, locked by this process.
        index: its index.
        ledger: its ledger.
        retry: also plan jobs for failed videos whose back-off has elapsed.

    Returns:
        How the store's clips are made.

    Raises:
        StoreMismatchError: the store holds what the request excludes.
        StoreDamagedError: the ledger and the shards do not belong together.
        StoreError: the store would have too many shards.
    """
    _check_shards(request, store, ledger)
    options = _clip_options(request, store, ledger)
    if read_clip_format(store, ledger) != CLIP_FORMAT:
        # No work is left in it, and the version that made it must be able to go on.
        _check_corpus(
            store, diff_plan(select(index, request.selection)[0], ledger.planned_videos())
        )
        return options
    plan = _plan_digest(request, index)
    # Comparing millions of videos takes seconds; the same plan has been compared already.
    if ledger.setting("plan") != plan:
        selected, excluded = select(index, request.selection)
        diff = diff_plan(selected, ledger.planned_videos())
        _check_corpus(store, diff)
        check_shard_count(_shards_to_be(ledger), count_jobs(len(diff.new)))
        ledger.drop(video_keys(diff.deselected))
        ledger.exclude(video_keys(excluded))
        ledger.add_jobs(make_jobs(VideoKeys(diff.new)))
        ledger.set_setting("plan", plan)
    for name in ClipOptions.names(request.config):
        if ledger.setting(name) is None:
            value = getattr(options, name)
            ledger.set_setting(name, "" if value is None else str(value))
    if retry:
        _add_retries(ledger, ledger.due())
    return options


def plan_retry(
    request: MaterializeRequest, store: Store, ledger: Ledger, due: Sequence[VideoKey]
) -> ClipOptions:
    """Plan new jobs for videos that were tried before, without reading a release.

    Args:
        request: the request of the user.
        store: the store, locked by this process.
        ledger: its ledger.
        due: the videos; their jobs must be sealed.

    Returns:
        How the store's clips are made.

    Raises:
        StoreDamagedError: the ledger and the shards do not belong together.
        StoreError: the store would have too many shards.
    """
    _check_shards(request, store, ledger)
    _add_retries(ledger, due)
    return _clip_options(request, store, ledger)


def _add_retries(ledger: Ledger, due: Sequence[VideoKey]) -> None:
    # They share shards; at worst all of them come back.
    check_shard_count(_shards_to_be(ledger), full_shards(len(due)))
    ledger.add_jobs(make_jobs(due), kind="retry")


def _shards_to_be(ledger: Ledger) -> int:
    retry_jobs = len(ledger.recovered.retry_jobs())
    return len(ledger.shards()) + len(ledger.open_jobs()) - retry_jobs


def _plan_digest(request: MaterializeRequest, index: Index) -> str:
    selection = {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in asdict(request.selection).items()
    }
    text = json.dumps([index.info.fingerprint, selection])
    return hashlib.sha256(text.encode()).hexdigest()


def is_complete(request: MaterializeRequest, store: Store, release: Release) -> bool:
    """Return whether a store that cannot be written to already holds all that is requested."""
    if not (store.ledger.exists() and (store.index / "index.json").exists()):
        return False
    index = Index(store.index)
    if index.info.signature != release.signature():
        return False
    with Ledger(store.ledger, request.config, readonly=True) as ledger:
        diff = diff_plan(select(index, request.selection)[0], ledger.planned_videos())
        _check_corpus(store, diff)
        _clip_options(request, store, ledger)
        return not len(diff.new) and not ledger.open_jobs()


def _check_shards(request: MaterializeRequest, store: Store, ledger: Ledger) -> None:
    folder = store.shards(request.config)
    sealed = {shard.name for shard in ledger.shards()}
    files = {path.name for path in folder.glob("*.arrow")}
    if files and not sealed and not ledger.statistics.videos():
        raise StoreDamagedError(
            f"The store {store.root} has {len(files)} shards and a ledger that lists none, so "
            "their content is unknown. Restore the ledger, or name another store."
        )
    if lost := sorted(sealed - files):
        raise StoreDamagedError(
            f"{len(lost)} of the {len(sealed)} shards of the store {store.root} are missing, the "
            f"first is {folder / lost[0]}. Restore them, or name another store."
        )


def _check_corpus(store: Store, diff: PlanDiff) -> None:
    if len(diff.outside):
        first = next(video_keys(diff.outside))
        raise StoreMismatchError(
            f"The store {store.root} already holds {len(diff.outside)} videos that this "
            f"selection leaves out, the first is {first.speaker_id}/{first.video_id}. A selection "
            "may grow, not shrink: widen it, or name another store."
        )
    if len(diff.changed):
        first = next(video_keys(diff.changed))
        raise StoreMismatchError(
            f"The store {store.root} holds {len(diff.changed)} videos cropped by other "
            f"annotations than this release has, the first is {first.speaker_id}/{first.video_id}. "
            "Use the old release, or another store."
        )


def _clip_options(request: MaterializeRequest, store: Store, ledger: Ledger) -> ClipOptions:
    """Return how clips are made: as those in the store, else as requested, else the default."""
    options: dict[str, Any] = {}
    declared = options_of(ClipOptions)
    for name in ClipOptions.names(request.config):
        text = ledger.setting(name)
        if text is None:
            options[name] = request.clips.get(name, getattr(ClipOptions(), name))
            continue
        stored = declared[name].parse(text) if text else None
        options[name] = request.clips.get(name, stored)
        if stored != options[name]:
            advice = f"Leave {name} out" if stored is None else f"Use {name}={stored!r}"
            raise StoreMismatchError(
                f"The store {store.root} holds clips with {name}={stored!r}, requested is "
                f"{options[name]!r}. {advice}, or name another store."
            )
    return ClipOptions(**options)


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """Difference between a selection and a store.

    Each table has ``speaker_id`` and ``video_id``, sorted.

    Attributes:
        new: videos without a job.
        deselected: videos that are planned or failed, and no longer selected.
        outside: videos that are in the store for good, and not selected.
        changed: videos that are in the store for good, cropped by other annotations.
    """

    new: pa.Table
    deselected: pa.Table
    outside: pa.Table
    changed: pa.Table


def diff_plan(selected: pa.Table, planned: pa.Table) -> PlanDiff:
    """Compare a selection with the videos of a ledger.

    Args:
        selected: the result of :func:`select`.
        planned: columns ``speaker_id``, ``video_id``, ``status`` and ``digest`` (of the
            annotations that its clips were cropped by).
    """
    if not len(planned):
        nothing = selected.slice(0, 0)
        return PlanDiff(new=selected, deselected=nothing, outside=nothing, changed=nothing)
    done = pc.equal(planned["status"], "done")
    others = _without(planned, selected)
    finished = pc.equal(others["status"], "done")
    return PlanDiff(
        new=_without(selected, planned),
        deselected=others.filter(pc.invert(finished)),
        outside=others.filter(finished),
        changed=_changed(planned.filter(done), selected),
    )


def _changed(done: pa.Table, selected: pa.Table) -> pa.Table:
    now = selected.rename_columns([*KEY_COLUMNS, "digest_now"])
    both = done.join(now, keys=KEY_COLUMNS, join_type="inner")
    return _sorted(both.filter(pc.not_equal(both["digest"], both["digest_now"])))


def _without(table: pa.Table, others: pa.Table) -> pa.Table:
    return _sorted(table.join(others.select(KEY_COLUMNS), keys=KEY_COLUMNS, join_type="left anti"))


def _sorted(videos: pa.Table) -> pa.Table:
    # A join does not preserve the order.
    return videos.sort_by([(key, "ascending") for key in KEY_COLUMNS])
