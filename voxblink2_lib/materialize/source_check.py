"""Refuse a source before the first video, and before anything is written, if it cannot be right."""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from voxblink2_lib.errors import (
    DependencyError,
    SourceError,
    StoppedError,
    StoreFullError,
    UnreachableError,
)
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import video_keys
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.sources.folder_check import folder_problem
from voxblink2_lib.sources.probe import probe_server
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

_log = logging.getLogger(__name__)

# With less than this not even the plan can be written.
_LEAST_FREE_BYTES = 64 << 10


def check_source(
    source: SourceSpec,
    store: Store,
    ledger: Ledger,
    request: MaterializeRequest,
    *,
    new: Iterable[VideoKey] = (),
) -> None:
    """Check that media can come, and that there is space for them.

    Args:
        source: where media come from.
        store: where clips go.
        ledger: its ledger, which is not changed.
        request: the request of the user.
        new: videos that the ledger does not know yet.

    Raises:
        SourceError: none of the videos is in the folder, or options are not allowed.
        StoppedError: a remote source does not answer on any route.
        DependencyError: the JavaScript runtime is missing, which YouTube needs.
        StoreFullError: the disk is full.
    """
    check_space(store)
    if source.is_remote:
        _check_options(source)
        _check_network(source)
        return
    keys = itertools.chain(new, video_keys(ledger.planned_videos()))
    problem = folder_problem(Path(source.place), keys, with_video=request.with_faces)
    if problem:
        raise SourceError(problem)


def check_space(store: Store) -> None:
    """Refuse a store on a full disk.

    Raises:
        StoreFullError: there is no space for anything.
    """
    free_bytes = shutil.disk_usage(store.root).free
    if free_bytes < _LEAST_FREE_BYTES:
        raise StoreFullError(
            f"No space is left for the store {store.root}: {free_bytes:,} bytes are free. Nothing "
            "was changed: free some space and run the same command again."
        )


def _check_options(source: SourceSpec) -> None:
    from voxblink2_lib.sources.first_checks import check_downloads

    _report_plugins(source)
    check_downloads(source)
    if source.kind == "youtube":
        from voxblink2_lib.sources.javascript import javascript_problem

        if problem := javascript_problem():
            raise DependencyError(problem)


def _report_plugins(source: SourceSpec) -> None:
    """Report the foreign code that downloads, before it is loaded; turn it off if requested."""
    from voxblink2_lib.sources.plugins import allow_plugins, find_plugins

    allow_plugins(not source.options.no_plugins)
    if plugins := find_plugins():
        _log.warning("yt-dlp plugins: %s. --no-plugins turns them off.", ", ".join(plugins))


def _check_network(source: SourceSpec) -> None:
    """Refuse a source that answers on no route: its videos would all wait for nothing."""
    reason = ""
    for route in source.options.routes():
        try:
            probe_server(source.front_page, proxy=route.proxy)
        except UnreachableError as error:
            reason = str(error)
        else:
            return
    raise StoppedError(
        f"The source does not answer: {visible(reason)}. Nothing was changed. Check the network, "
        "the URL of the source and the proxies, then run the same command again."
    )
