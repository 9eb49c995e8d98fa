"""Which release and which store a request means."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from voxblink2_lib.archive.recognition import find_cut_audio
from voxblink2_lib.errors import ReleaseError
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.progress import show_progress
from voxblink2_lib.published.manifest import LEDGER_ONLY
from voxblink2_lib.published.place import is_url
from voxblink2_lib.published.reading import find_published
from voxblink2_lib.published.scratch import scratch_store
from voxblink2_lib.published.session import publishing
from voxblink2_lib.published.slices import check_slice
from voxblink2_lib.records import CUT_AUDIO
from voxblink2_lib.release.location import RELEASE_VARIABLE, Release, open_release
from voxblink2_lib.sources import stored_source
from voxblink2_lib.store.layout import Store, open_store, open_store_of


def store_of(request: MaterializeRequest, release: Release) -> Store:
    """Return the store that a run works in: of one at a URL, its scratch store."""
    if request.store is not None and is_url(request.store):
        return scratch_store(request.store, request.scratch)
    return open_store(request.store, release)


@contextlib.contextmanager
def published_run(request: MaterializeRequest, *, wait: bool) -> Iterator[None]:
    """Publish what the body makes, if the store is at a URL; its scratch store is brought up first.

    Args:
        request: names the store.
        wait: wait, with a message, while another process publishes to the URL.

    Raises:
        Exception: see :func:`voxblink2_lib.published.session.publishing`.
    """
    if request.store is None or not is_url(request.store):
        yield
        return
    check_slice(request.store)
    scratch = scratch_store(request.store, request.scratch)
    with publishing(request.store, scratch, wait=wait, progress=show_progress):
        yield


def is_cut_audio(source: str | None) -> bool:
    """Return whether a source has audio that somebody else cut, and needs no annotations.

    Raises:
        SourceError: what is named is no source.
    """
    return source is not None and stored_source(source).kind == CUT_AUDIO


def named_release(data_dir: str | None) -> Release | None:
    """Return the release that is named; ``None`` if none is.

    Raises:
        ReleaseError: what is named is no release.
    """
    return open_release(data_dir) if data_dir or os.environ.get(RELEASE_VARIABLE) else None


def find_store(request: MaterializeRequest) -> Store:
    """Return the store of a request, which need not exist yet.

    Raises:
        ReleaseError: it is that of a release, and none is named.
    """
    if request.store is not None and is_url(request.store):
        return scratch_store(request.store, request.scratch)
    if is_cut_audio(request.source) and named_release(request.data_dir) is None:
        audio = find_cut_audio(str(request.source))
        if audio is not None:
            return open_store_of(request.store, audio.root)
    return open_store(request.store, needed_release(request))


def remembering_store(request: MaterializeRequest) -> Store:
    """Return the store that knows the last run: what is published, if the scratch store is gone."""
    store = find_store(request)
    if request.store is None or not is_url(request.store) or store.ledger.exists():
        return store
    return find_published(request.store, LEDGER_ONLY) or store


def needed_release(request: MaterializeRequest) -> Release:
    """Return the release of a request whose source is no cut audio.

    Raises:
        ReleaseError: none is named, or what is named is no release.
    """
    source = None if request.source is None else stored_source(request.source)
    if source is None or source.kind != "folder" or named_release(request.data_dir):
        return open_release(request.data_dir)
    raise ReleaseError(
        f"No release was named, and the source {source.label} has no cut audio, which would need "
        "none: neither parts (VB2_audio.tar.gz.00 ...) nor a tar in this very folder, nor files "
        "<speaker>/<video>/<utterance>.<ext> in it. Name the folder that holds these with "
        "--source (source=...), or the release of these media with --data-dir (data_dir=...)."
    )
