"""Entry points: index a release, materialize what a store lacks, retry videos."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from voxblink2_lib.errors import SourceError, StoreError, StoreReadOnlyError, next_command
from voxblink2_lib.materialize.clip_format import check_clip_format
from voxblink2_lib.materialize.cut_audio_mending import cut_again
from voxblink2_lib.materialize.cut_audio_run import materialize_cut_audio
from voxblink2_lib.materialize.cut_audio_videos import refuse_later_annotations
from voxblink2_lib.materialize.gathering import clear_gathered
from voxblink2_lib.materialize.last_run import remember_run
from voxblink2_lib.materialize.places import (
    find_store,
    is_cut_audio,
    needed_release,
    published_run,
    store_of,
)
from voxblink2_lib.materialize.planning import (
    Plan,
    is_complete,
    only_selected,
    plan_retry,
    plan_run,
    write_plan,
)
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.scheduler import Scheduler
from voxblink2_lib.materialize.slice_planning import agree_on_slices, refuse_cut_audio
from voxblink2_lib.materialize.source_check import check_source
from voxblink2_lib.materialize.speakers import index_speakers, suggest_an_index
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.media.versions import decoder_versions
from voxblink2_lib.outcomes import POLICIES, Status
from voxblink2_lib.progress import show_progress
from voxblink2_lib.published.place import is_url
from voxblink2_lib.published.reading import find_published
from voxblink2_lib.records import CUT_AUDIO, VideoKey
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.index_build import open_index
from voxblink2_lib.release.location import Release, open_release
from voxblink2_lib.sources import SourceSpec, parse_source
from voxblink2_lib.sources.rate_limits import RateLimiter, shared_file
from voxblink2_lib.store.annotations import has_no_annotations
from voxblink2_lib.store.catalogue import local_catalogue
from voxblink2_lib.store.clip_format import CLIP_FORMAT, read_clip_format, record_format
from voxblink2_lib.store.layout import Store, named_store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.outcome_files import outcomes_written, write_stale_outcomes

_log = logging.getLogger(__name__)

# Does all that is left in some jobs of a store, and seals them.
Engine = Callable[[RunContext, list[int]], None]


def run_on_this_machine(context: RunContext, jobs: list[int]) -> None:
    """Do all that is left in some jobs, in processes of this machine."""
    Scheduler(context).run(jobs)


def index_release(request: MaterializeRequest) -> Index:
    """Build the index of a store, or check the existing one.

    Raises:
        ReleaseError: the release cannot be read.
        StoreMismatchError: the store was made from another release.
        StoreBusyError: another process works on the store.
    """
    release = open_release(request.data_dir)
    store = store_of(request, release)
    with published_run(request, wait=False):
        refuse_later_annotations(store)
        with store.locked(wait=False):
            index = _index(release, store)
            index_speakers(release, index)
            return index


def _index(release: Release, store: Store) -> Index:
    index = open_index(release, store.index, progress=show_progress)
    if index.info.rejected:
        _log.warning(
            "%d annotation files could not be read and are left out; %s lists the reasons.",
            index.info.rejected,
            store.index / "rejects.csv",
        )
    return index


def materialize(
    request: MaterializeRequest, *, retry: bool, wait: bool, engine: Engine = run_on_this_machine
) -> Store:
    """Download, crop and seal every selected video that the store does not have yet.

    Args:
        request: what to do, and where. A store at a URL is made in its scratch store.
        retry: also retry failures of earlier runs whose back-off has elapsed.
        wait: wait, with a message, while another process works on the store.
        engine: does the work. Cut audio, which is read in one go, takes no other than the default.

    Returns:
        The store. All jobs in it are sealed.

    Raises:
        ReleaseError, SelectionError, SourceError: the input is not usable.
        StoreMismatchError: the store holds another corpus, or clips of another format.
        StoreBusyError: another process works on the store, and ``wait`` is false.
        StoreReadOnlyError: work is left in a store that cannot be written to.
        StoreFullError: the disk is full.
        StoppedError: work is left, since the source did not answer.
        BlockedError: work is left, since the source refuses every route.
        DependencyError: this machine lacks something that downloading needs.
    """
    if not retry and (store := _published_already(request)):
        return store
    with published_run(request, wait=wait):
        return _materialize(request, retry=retry, wait=wait, engine=engine)


def _published_already(request: MaterializeRequest) -> Store | None:
    """Return the store at a URL if it has all that is requested: then nothing is written to it."""
    if request.store is None or not is_url(request.store) or is_cut_audio(request.source):
        return None
    store = find_published(request.store)
    if store is None or not is_complete(request, store, needed_release(request)):
        return None
    return store


def _materialize(request: MaterializeRequest, *, retry: bool, wait: bool, engine: Engine) -> Store:
    if is_cut_audio(request.source):
        refuse_cut_audio(request)
        source = parse_source(request.source, request.fetch)
        store = materialize_cut_audio(request, source, retry=retry, wait=wait)
        _seal_answered_jobs(request, store, source, wait=wait)
        return store
    release = needed_release(request)
    store = store_of(request, release)
    refuse_later_annotations(store)
    named = request.source or release.default_source
    source = parse_source(named, request.fetch)
    # A load that finds everything writes nothing, not even the lock, whoever works on the store.
    if not retry and is_complete(request, store, release):
        suggest_an_index(store, release)
        return store
    try:
        with store.locked(wait=wait):
            index = _index(release, store)
            with Ledger(store.ledger, request.config) as ledger:
                verdicts = ledger.verdicts(source.label)
                again = _asked_again(source)
                failed = verdicts.due(again=again) if retry else []
                reopened: list[VideoKey] = []
                if retry and again:
                    reopened = [*failed, *verdicts.due(again=again, is_sealed=False)]
                check_clip_format(request, store, ledger, index=index, retried=len(failed))
                plan = plan_run(request, store, index, ledger, failed=failed, reopened=reopened)
                if retry and plan.outside:
                    _log.warning(
                        "The store %s holds %d more videos than are selected; they stay in it.",
                        store.root,
                        plan.outside,
                    )
                has_work = bool(plan.new or plan.failed or ledger.open_jobs())
                if has_work:
                    check_source(source, store, ledger, request, new=plan.new)
                agree_on_slices(request, plan.part)
                index_speakers(release, index)
                # A load for which nothing is left to do is no run.
                if has_work or retry:
                    remember_run(request, store, ledger, source=source.label)
                write_plan(plan, ledger, verdicts, progress=show_progress)
                context = _context(request, store, index, source=source, ledger=ledger, plan=plan)
                _run_open_jobs(context, retry=retry, engine=engine)
    except StoreReadOnlyError:
        if not is_complete(request, store, release):
            raise
    return store


def retry_videos(
    request: MaterializeRequest, statuses: Iterable[Status] = (), *, since: float | None = None
) -> tuple[Store, int]:
    """Retry videos that were tried before, also where the answer was final. No video is added.

    Nothing else is asked for: other work that is left in the store is left to :func:`materialize`.

    Args:
        request: what to do; its store must exist, its release and selection are not used.
        statuses: only videos that ``status`` shows in these classes; none means all classes.
        since: only those that the source answered at or after this Unix time; what it answered is
            no evidence any more.

    Returns:
        The store, and the number of videos that were retried.

    Raises:
        StoreError: the store does not exist.
        Exception: see :func:`materialize`.
    """
    with published_run(request, wait=False):
        return _retry_videos(request, statuses, since=since)


def _retry_videos(
    request: MaterializeRequest, statuses: Iterable[Status], *, since: float | None
) -> tuple[Store, int]:
    is_folder = request.store is not None and not is_url(request.store)
    store = named_store(str(request.store)) if is_folder else find_store(request)
    has_none = has_no_annotations(store)
    if not (has_none or (store.ledger.exists() and (store.index / "index.json").exists())):
        raise StoreError(
            f"There is no store at {store.place}. Name another with --store, or create one with "
            f"{next_command('materialize', data_dir='RELEASE', store=store.place)}."
        )
    with store.locked(wait=False), Ledger(store.ledger, request.config) as ledger:
        source = parse_source(request.source or ledger.setting("source"), request.fetch)
        if source.kind == CUT_AUDIO:
            raise SourceError(
                f"The source {source.label} is cut audio, which was read to its end: what it lacks "
                "will not be in it at another try. Name a source of media with --source."
            )
        refuse_later_annotations(store)
        verdicts = ledger.verdicts(source.label)
        failed = verdicts.missing(statuses, since=since)
        check_clip_format(request, store, ledger, index=None, retried=len(failed))
        plan = plan_retry(request, store, ledger, failed)
        if failed:
            check_source(source, store, ledger, request)
            jobs = write_plan(plan, ledger, verdicts, progress=show_progress)
            verdicts.ask_again(failed, forget=since is not None)
            index = Index(store.index)
            context = _context(request, store, index, source=source, ledger=ledger, plan=plan)
            _run_jobs(context, jobs)
            _finish(context)
    return store, len(failed)


def finish_reopened(request: MaterializeRequest, store: Store) -> int:
    """Crop what is hurt in the jobs that repair opened again, and seal them; nothing else.

    Args:
        request: what to do; its release and selection are not used.
        store: the store, locked by this process.

    Returns:
        The number of jobs.

    Raises:
        Exception: see :func:`materialize`.
    """
    with Ledger(store.ledger, request.config) as ledger:
        jobs = ledger.reopened.jobs()
        if not jobs:
            return 0
        source = parse_source(request.source or ledger.setting("source"), request.fetch)
        check_clip_format(request, store, ledger, index=None, retried=0)
        plan = plan_retry(request, store, ledger, [])
        if source.kind == CUT_AUDIO:
            workers = request.worker_count
            cut_again(store, ledger, source, jobs=jobs, options=plan.options, workers=workers)
        elif ledger.verdicts(source.label).count_pending(jobs):
            check_source(source, store, ledger, request)
        index = None if has_no_annotations(store) else Index(store.index)
        context = _context(request, store, index, source=source, ledger=ledger, plan=plan)
        _run_jobs(context, jobs)
        _finish(context)
    return len(jobs)


def _seal_answered_jobs(
    request: MaterializeRequest, store: Store, source: SourceSpec, *, wait: bool
) -> None:
    """Seal jobs of runs with other sources that have nothing left to wait for."""
    with Ledger(store.ledger, request.config, readonly=True) as ledger:
        if not ledger.open_jobs():
            return
    with store.locked(wait=wait), Ledger(store.ledger, request.config) as ledger:
        plan = plan_retry(request, store, ledger, [])
        index = Index(store.index)
        context = _context(request, store, index, source=source, ledger=ledger, plan=plan)
        _run_jobs(context, ledger.open_jobs())
        _finish(context)


def _asked_again(source: SourceSpec) -> tuple[Status, ...]:
    """Return which final answers are asked for again: in a folder, a look costs nothing."""
    if source.is_remote:
        return ()
    # A file of the same folder that was unusable still is.
    final = {"done", "excluded", "media-unusable"}
    return tuple(status for status in POLICIES if status not in final)


def _context(
    request: MaterializeRequest,
    store: Store,
    index: Index | None,
    *,
    source: SourceSpec,
    ledger: Ledger,
    plan: Plan,
) -> RunContext:
    return RunContext(
        request=request,
        store=store,
        index=index,
        source=source,
        ledger=ledger,
        verdicts=ledger.verdicts(source.label),
        options=plan.options,
        rate_limiter=RateLimiter(shared_file()),
    )


def _record_format(context: RunContext) -> None:
    """Record the format of this run's clips; report once that other decoders made those before."""
    versions = decoder_versions()
    if before := record_format(context.ledger, versions):
        _log.warning(
            "The clips of the store %s so far were made with %s; this run makes them with %s. "
            "Clips of the same media may differ by rounding. %s shows all versions of a store.",
            context.store.root,
            " and with ".join(before),
            versions,
            next_command("verify", store=context.store.place, config=context.request.config),
        )


def _run_open_jobs(context: RunContext, *, retry: bool, engine: Engine) -> None:
    """Run the open jobs; then, if requested, those of videos whose back-off has elapsed since."""
    ledger, verdicts = context.ledger, context.verdicts
    while open_jobs := ledger.open_jobs():
        _run_jobs(context, open_jobs, engine)
        # What a folder lacks has not appeared in the meantime.
        if retry and context.source.is_remote and isinstance(context.index, Index):
            request, failed = context.request, verdicts.due(after_a_wait=True)
            due = only_selected(failed, context.index, request.selection)
            plan = plan_retry(request, context.store, ledger, due)
            write_plan(plan, ledger, verdicts, progress=show_progress)
    _finish(context)


def _run_jobs(context: RunContext, jobs: list[int], engine: Engine = run_on_this_machine) -> None:
    """Do all that is left in some jobs, and seal them."""
    store, ledger, config = context.store, context.ledger, context.request.config
    _record_format(context)
    store.clear_leftovers(config, open_jobs=ledger.open_jobs())
    clear_gathered(store, ledger)
    ledger.set_setting("source", context.source.label)
    with outcomes_written(store, ledger, progress=show_progress):
        engine(context, jobs)


def _finish(context: RunContext) -> None:
    store, config = context.store, context.request.config
    store.clear_leftovers(config, open_jobs=context.ledger.open_jobs())
    clear_gathered(store, context.ledger)
    if read_clip_format(store, context.ledger) == CLIP_FORMAT:
        write_stale_outcomes(store, context.ledger, progress=show_progress)
    if any(store.shards(config).glob("*.arrow")):
        # Made now, training can use it at once, and it is uploaded with the shards.
        local_catalogue(store.root, config, progress=show_progress)
