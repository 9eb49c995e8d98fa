"""Entry points: index a release, materialize what a store lacks, retry videos."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from voxblink2_lib.errors import DependencyError, StoreError, StoreReadOnlyError
from voxblink2_lib.materialize.clip_format import check_clip_format
from voxblink2_lib.materialize.planning import is_complete, plan_retry, plan_run
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.scheduler import Scheduler
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.media.versions import decoder_versions
from voxblink2_lib.outcomes import POLICIES, Status
from voxblink2_lib.progress import show_progress
from voxblink2_lib.redaction import redacted_source
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.index_build import open_index
from voxblink2_lib.release.location import Release, open_release
from voxblink2_lib.sources import SourceSpec, parse_source
from voxblink2_lib.sources.rate_limits import RateLimiter, shared_file
from voxblink2_lib.store.catalogue import local_catalogue
from voxblink2_lib.store.clip_format import record_format
from voxblink2_lib.store.layout import Store, named_store, open_store
from voxblink2_lib.store.ledger import Ledger

_log = logging.getLogger(__name__)


def find_store(request: MaterializeRequest) -> tuple[Release, Store]:
    """Return the release and the store of a request."""
    release = open_release(request.data_dir)
    return release, open_store(request.store, release)


def index_release(request: MaterializeRequest) -> Index:
    """Build the index of a store, or check the existing one.

    Raises:
        ReleaseError: the release cannot be read.
        StoreMismatchError: the store was made from another release.
        StoreBusyError: another process works on the store.
    """
    release, store = find_store(request)
    with store.locked(wait=False):
        return _index(release, store)


def _index(release: Release, store: Store) -> Index:
    index = open_index(release, store.index, progress=show_progress)
    if index.info.rejected:
        _log.warning(
            "%d annotation files could not be read and are left out; %s lists the reasons.",
            index.info.rejected,
            store.index / "rejects.csv",
        )
    return index


def materialize(request: MaterializeRequest, *, retry: bool, wait: bool) -> Store:
    """Download, crop and seal every selected video that the store does not have yet.

    Args:
        request: what to do, and where.
        retry: also retry failures of earlier runs whose back-off has elapsed.
        wait: wait, with a message, while another process works on the store.

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
    release, store = find_store(request)
    named = request.source or release.default_source
    source = parse_source(named, request.fetch)
    try:
        with store.locked(wait=wait):
            index = _index(release, store)
            with Ledger(store.ledger, request.config) as ledger:
                retried = _classes_for_source(ledger, source) if retry else None
                check_clip_format(request, store, ledger, index=index, retried=retried)
                ledger.reset_for_retry(retried or ())
                options = plan_run(request, store, index, ledger, retry=retry)
                limiter = RateLimiter(shared_file())
                context = RunContext(request, store, index, source, ledger, options, limiter)
                _run_open_jobs(context, retry=retry)
    except StoreReadOnlyError:
        if not is_complete(request, store, release):
            raise
    return store


def retry_videos(request: MaterializeRequest, statuses: Iterable[Status]) -> tuple[Store, int]:
    """Retry the videos of some classes, also of those that are final. No video is added.

    Args:
        request: what to do; its store must exist, its release and selection are not used.
        statuses: the classes.

    Returns:
        The store, and the number of videos that were retried.

    Raises:
        StoreError: the store does not exist.
        Exception: see :func:`materialize`.
    """
    store = named_store(request.store) if request.store else find_store(request)[1]
    if not (store.ledger.exists() and (store.index / "index.json").exists()):
        raise StoreError(
            f"There is no store at {store.root}. Name the store of an earlier "
            "'voxblink2 materialize' with --store."
        )
    with store.locked(wait=False), Ledger(store.ledger, request.config) as ledger:
        source = parse_source(request.source or ledger.setting("source"), request.fetch)
        retried = tuple(statuses)
        check_clip_format(request, store, ledger, index=None, retried=retried)
        count = ledger.reset_for_retry(retried)
        options = plan_retry(request, store, ledger, ledger.due(statuses=retried))
        index, limiter = Index(store.index), RateLimiter(shared_file())
        context = RunContext(request, store, index, source, ledger, options, limiter)
        _run_open_jobs(context, retry=False)
    return store, count


def _classes_for_source(ledger: Ledger, source: SourceSpec) -> tuple[Status, ...]:
    """Return which failures to retry at once; in a folder, a look costs nothing."""
    # An earlier version stored secrets too.
    before = redacted_source(ledger.setting("source") or "")
    if before == source.label and source.is_remote:
        return ()
    # Another source may have what the one before lacked. A file of the same folder that was
    # unusable still is.
    final = {"done", "excluded"} | ({"media-unusable"} if before == source.label else set())
    return tuple(status for status in POLICIES if status not in final)


def _record_format(context: RunContext) -> None:
    """Record the format of this run's clips; report once that other decoders made those before."""
    versions = decoder_versions()
    if before := record_format(context.ledger, versions):
        _log.warning(
            "The clips of the store %s so far were made with %s; this run makes them with %s. "
            "Clips of the same media may differ by rounding. 'voxblink2 verify' shows all "
            "versions of a store.",
            context.store.root,
            " and with ".join(before),
            versions,
        )


def _run_open_jobs(context: RunContext, *, retry: bool) -> None:
    """Run the open jobs; then, if requested, those of videos whose back-off has elapsed since."""
    request, store, ledger = context.request, context.store, context.ledger
    if ledger.open_jobs():
        _record_format(context)
        _report_plugins(context.source)
    while open_jobs := ledger.open_jobs():
        _check_machine(context.source)
        store.clear_leftovers(request.config, open_jobs=open_jobs)
        ledger.set_setting("source", context.source.label)
        Scheduler(context).run(open_jobs)
        # What a folder lacks has not appeared in the meantime.
        if retry and context.source.is_remote:
            plan_retry(request, store, ledger, ledger.due(after_a_wait=True))
    store.clear_leftovers(request.config, open_jobs=())
    if any(store.shards(request.config).glob("*.arrow")):
        # Made now, training can use it at once, and it is uploaded with the shards.
        local_catalogue(store.root, request.config, progress=show_progress)


def _report_plugins(source: SourceSpec) -> None:
    """Report the foreign code that downloads, before it is loaded; turn it off if requested."""
    if not source.is_remote:
        return
    from voxblink2_lib.sources.plugins import allow_plugins, find_plugins

    allow_plugins(not source.options.no_plugins)
    if plugins := find_plugins():
        _log.warning("yt-dlp plugins: %s. --no-plugins turns them off.", ", ".join(plugins))


def _check_machine(source: SourceSpec) -> None:
    """Refuse before the first video what would make every video fail.

    Raises:
        DependencyError: the JavaScript runtime is missing, which YouTube needs.
        SourceError: options of yt-dlp are not allowed.
    """
    if not source.is_remote:
        return
    from voxblink2_lib.sources.ytdlp_options import ydl_options

    ydl_options(source.options, source.route)
    if source.kind == "youtube":
        from voxblink2_lib.sources.javascript import javascript_problem

        if problem := javascript_problem():
            raise DependencyError(problem)
