"""Decide what a run has to do, and refuse what would leave two corpora in one store."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from voxblink2_lib.materialize.slice_planning import SlicePart, check_planned_slice, slice_part
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.progress import Advance, Progress, no_progress
from voxblink2_lib.published.uploads import shards_at_url
from voxblink2_lib.records import VideoKey, options_of
from voxblink2_lib.release.index import (
    KEY_COLUMNS,
    Index,
    VideoKeys,
    is_of_earlier_format,
    video_keys,
)
from voxblink2_lib.release.location import Release
from voxblink2_lib.release.selection import Selection, select
from voxblink2_lib.store.advice import repair_advice
from voxblink2_lib.store.clip_format import CLIP_FORMAT, read_clip_format
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_damage import lost_ledger
from voxblink2_lib.store.verdicts import Verdicts
from voxblink2_lib.store.view import names_of


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is going to do; nothing of it is written yet.

    Attributes:
        options: how the store's clips are made.
        failed: failed videos of sealed jobs that are tried again in new jobs, since they are due.
        reopened: failed videos, of these and of open jobs, that are tried again though not due.
        settings: what the ledger is to remember of the request.
        diff: what the selection changes; ``None`` if it is that of the run before.
        excluded: what the user excludes, if the selection changes anything.
        outside: number of videos in the store for good that are not selected.
        part: which of the selected videos are in the slice that the run makes, if it makes one.
    """

    options: ClipOptions
    failed: Sequence[VideoKey] = ()
    reopened: Sequence[VideoKey] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    diff: PlanDiff | None = None
    excluded: pa.Table | None = None
    outside: int = 0
    part: SlicePart | None = None

    @property
    def new(self) -> Sequence[VideoKey]:
        """Selected videos that the store does not know yet."""
        return () if self.diff is None else VideoKeys(self.diff.new)


def plan_run(
    request: MaterializeRequest,
    store: Store,
    index: Index,
    ledger: Ledger,
    *,
    failed: Sequence[VideoKey] = (),
    reopened: Sequence[VideoKey] = (),
) -> Plan:
    """Plan jobs for all selected videos that have none, and forget unfinished ones of others.

    Args:
        request: the request of the user.
        store: the store, locked by this process.
        index: its index.
        ledger: its ledger, which is not changed.
        failed: failed videos of sealed jobs to try again.
        reopened: those of them, and of open jobs, that are not due.

    Raises:
        StoreMismatchError: the store holds clips by other annotations or options.
        StoreDamagedError: the ledger and the shards do not belong together.
        StoreError: the store would have too many shards.
    """
    check_shards(request, store, ledger)
    options = clip_options(request, store, ledger)
    if read_clip_format(store, ledger) != CLIP_FORMAT:
        # No work is left in it, and the version that made it must be able to go on.
        _check_corpus(
            store, diff_plan(select(index, request.selection)[0], ledger.planned_videos())
        )
        return Plan(options)
    settings = clip_settings(request, ledger, options)
    digest = plan_digest(request.selection, index)
    failed = only_selected(failed, index, request.selection)
    reopened = only_selected(reopened, index, request.selection)
    # Comparing millions of videos takes seconds; the same plan has been compared already.
    if ledger.setting("plan") == digest:
        _check_shard_count(ledger, failed=len(failed))
        outside = int(ledger.setting("outside") or 0)
        return Plan(options, failed, reopened, settings, outside=outside)
    if check_planned_slice(request, index, ledger):
        return Plan(options, failed, reopened, settings)
    selected, excluded = select(index, request.selection)
    part = slice_part(request, index, selected, _clip_texts(request, options))
    if part is not None:
        selected, settings = part.selected, {**settings, **part.settings}
    diff = diff_plan(selected, ledger.planned_videos(), excluded)
    _check_corpus(store, diff)
    _check_shard_count(ledger, new=len(diff.new), failed=len(failed))
    outside = len(diff.outside)
    settings |= {"plan": digest, "outside": str(outside)}
    return Plan(options, failed, reopened, settings, diff, excluded, outside, part)


def only_selected(
    keys: Sequence[VideoKey], index: Index, selection: Selection
) -> Sequence[VideoKey]:
    """Return those of some videos that are selected, in order.

    A store may hold more than a selection has: what failed of the rest is not asked for again.
    """
    if not keys or selection == Selection():
        return keys
    selected, _ = select(index, selection)
    is_in = pc.is_in(pa.array(map("/".join, keys), pa.string()), names_of(selected))
    return list(itertools.compress(keys, is_in.to_pylist()))


def write_plan(
    plan: Plan, ledger: Ledger, verdicts: Verdicts, *, progress: Progress = no_progress
) -> list[int]:
    """Write a plan at once, after every check has passed; return the numbers of the new jobs."""
    if not (plan.diff or plan.settings or plan.failed or plan.reopened):
        return []
    with (
        ledger.together(new_videos=len(plan.new) + len(plan.excluded or ())),
        progress("Planning", unit="video", total=len(plan.new) + len(plan.failed)) as advance,
    ):
        if plan.diff is not None:
            ledger.drop(video_keys(plan.diff.deselected))
        if plan.excluded is not None:
            ledger.exclude(video_keys(plan.excluded))
        # First: the numbers of jobs depend on the slice.
        for name, value in plan.settings.items():
            ledger.set_setting(name, value)
        size = plan.part.job_size if plan.part else None
        planned = _counted(make_jobs(plan.new, size=size), advance)
        jobs = ledger.add_jobs(planned) if plan.new else []
        if plan.failed:
            jobs += ledger.add_jobs(_counted(make_jobs(plan.failed), advance), kind="retry")
        if plan.reopened:
            verdicts.ask_again(plan.reopened)
    return jobs


def _counted(jobs: Iterable[Sequence[VideoKey]], advance: Advance) -> Iterator[Sequence[VideoKey]]:
    for videos in jobs:
        yield videos
        advance(len(videos))


def plan_retry(
    request: MaterializeRequest, store: Store, ledger: Ledger, failed: Sequence[VideoKey]
) -> Plan:
    """Plan new jobs for videos that were tried before, without reading a release.

    Args:
        request: the request of the user.
        store: the store, locked by this process.
        ledger: its ledger, which is not changed.
        failed: the videos.

    Raises:
        StoreDamagedError: the ledger and the shards do not belong together.
        StoreError: the store would have too many shards.
    """
    check_shards(request, store, ledger)
    _check_shard_count(ledger, failed=len(failed))
    return Plan(clip_options(request, store, ledger), failed)


def clip_settings(
    request: MaterializeRequest, ledger: Ledger, options: ClipOptions
) -> dict[str, str]:
    """Return the options of clips that the ledger does not know yet, as it keeps them."""
    texts = _clip_texts(request, options)
    return {name: text for name, text in texts.items() if ledger.setting(name) is None}


def _clip_texts(request: MaterializeRequest, options: ClipOptions) -> dict[str, str]:
    values = {name: getattr(options, name) for name in ClipOptions.names(request.config)}
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _check_shard_count(ledger: Ledger, *, new: int = 0, failed: int = 0) -> None:
    """Refuse too many shards: of new videos, and of failed ones if all of them come back."""
    unsealed = len(ledger.open_jobs()) - len(ledger.recovered.retry_jobs())
    check_shard_count(len(ledger.shards()) + unsealed, count_jobs(new) + full_shards(failed))


def plan_digest(selection: Selection, index: Index | None) -> str:
    """Return a digest of what is selected of which annotations."""
    values = ((name, getattr(selection, name)) for name in options_of(Selection))
    chosen = {
        name: sorted(value) if isinstance(value, frozenset) else value for name, value in values
    }
    text = json.dumps([index.info.fingerprint if index else "", chosen])
    return hashlib.sha256(text.encode()).hexdigest()


def is_complete(request: MaterializeRequest, store: Store, release: Release | None) -> bool:
    """Return whether a store, which is only read, already holds all that is requested.

    It may hold more, and have work left on that.

    Args:
        request: the request of the user.
        store: the store.
        release: the release; ``None`` for the one that the store's index was made of.

    Raises:
        SelectionError: the release does not have what is selected.
        StoreMismatchError: the store holds clips by other annotations or options.
        StoreDamagedError: shards are missing.
    """
    if not (store.ledger.exists() and (store.index / "index.json").exists()):
        return False
    if is_of_earlier_format(store.index):
        return False
    index = Index(store.index)
    if release is not None and index.info.signature != release.signature():
        return False
    with Ledger(store.ledger, request.config, readonly=True) as ledger:
        check_shards(request, store, ledger)
        clip_options(request, store, ledger)
        if (
            ledger.setting("plan") == plan_digest(request.selection, index)
            and not ledger.open_jobs()
        ):
            return True
        diff = diff_plan(select(index, request.selection)[0], ledger.planned_videos())
        _check_corpus(store, diff)
        return not len(diff.new) and not len(diff.unsealed)


def check_shards(request: MaterializeRequest, store: Store, ledger: Ledger) -> None:
    """Refuse a store whose shards and ledger do not belong together.

    Raises:
        StoreDamagedError: shards are missing, or the ledger is lost.
    """
    folder = store.shards(request.config)
    sealed = {shard.name for shard in ledger.shards()}
    files = {path.name for path in folder.glob("*.arrow")}
    if files and not sealed and not ledger.statistics.videos():
        raise lost_ledger(store.ledger, len(files))
    if lost := sorted(sealed - files - shards_at_url(store, request.config)):
        raise StoreDamagedError(
            f"{len(lost)} of the {len(sealed)} shards of the store {store.place} are missing, the "
            f"first is {folder / lost[0]}. {repair_advice(folder / lost[0])}"
        )


def _check_corpus(store: Store, diff: PlanDiff) -> None:
    if len(diff.changed):
        first = next(video_keys(diff.changed))
        raise StoreMismatchError(
            f"The store {store.place} holds {len(diff.changed)} videos cropped by other "
            f"annotations than this release has, the first is {first.speaker_id}/{first.video_id}. "
            "Use the old release, or another store."
        )


def clip_options(request: MaterializeRequest, store: Store, ledger: Ledger) -> ClipOptions:
    """Return how clips are made: as those in the store, else as requested, else the default.

    Raises:
        StoreMismatchError: requested is something else than the store has.
    """
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
                f"The store {store.place} holds clips with {name}={stored!r}, requested is "
                f"{options[name]!r}. {advice}, or name another store."
            )
    return ClipOptions(**options)


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """Difference between a selection and a store.

    Each table has ``speaker_id`` and ``video_id``, sorted.

    Attributes:
        new: videos without a job.
        unsealed: selected videos whose job is not sealed.
        deselected: videos without clips that are not selected, and whose job is not sealed or
            that are excluded by their ids.
        outside: videos that are in the store for good, and not selected. What is neither is known
            not to be available, and stays so.
        changed: videos that are in the store for good, cropped by other annotations.
    """

    new: pa.Table
    unsealed: pa.Table
    deselected: pa.Table
    outside: pa.Table
    changed: pa.Table


def diff_plan(selected: pa.Table, planned: pa.Table, excluded: pa.Table | None = None) -> PlanDiff:
    """Compare a selection with the videos of a ledger.

    Args:
        selected: the first result of :func:`select`.
        planned: as :meth:`Ledger.planned_videos` returns them.
        excluded: the second result of :func:`select`; default: none.
    """
    if not len(planned):
        nothing = selected.slice(0, 0)
        return PlanDiff(selected, nothing, nothing, nothing, nothing)
    done = pc.equal(planned["status"], "done")
    others = _without(planned, selected)
    finished = pc.equal(others["status"], "done")
    unfinished = others.filter(pc.invert(finished))
    is_dropped = unfinished["is_open"]
    if excluded is not None:
        is_dropped = pc.or_(is_dropped, pc.is_in(names_of(unfinished), names_of(excluded)))
    return PlanDiff(
        new=_without(selected, planned),
        unsealed=_common(selected, planned.filter(planned["is_open"])),
        deselected=unfinished.filter(is_dropped),
        outside=others.filter(finished),
        changed=_changed(planned.filter(done), selected),
    )


def _changed(done: pa.Table, selected: pa.Table) -> pa.Table:
    now = selected.rename_columns([*KEY_COLUMNS, "digest_now"])
    known = done.filter(pc.not_equal(done["digest"], 0))  # not in the first stores
    both = known.join(now, keys=KEY_COLUMNS, join_type="inner", use_threads=False)
    return _sorted(both.filter(pc.not_equal(both["digest"], both["digest_now"])))


def _without(table: pa.Table, others: pa.Table) -> pa.Table:
    return _sorted(
        table.join(
            others.select(KEY_COLUMNS), keys=KEY_COLUMNS, join_type="left anti", use_threads=False
        )
    )


def _common(table: pa.Table, others: pa.Table) -> pa.Table:
    return _sorted(table.join(others.select(KEY_COLUMNS), keys=KEY_COLUMNS, join_type="left semi"))


def _sorted(videos: pa.Table) -> pa.Table:
    # A join does not preserve the order.
    return videos.sort_by([(key, "ascending") for key in KEY_COLUMNS])
