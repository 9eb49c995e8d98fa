"""A run that works in a scratch store, and publishes what is finished.

::

    lease      another process that publishes to the URL is waited for, or this run is refused
    begin      a new scratch store takes up what is published; a present one must be of it
    run        as in any local store; every few minutes what is new is published
    end        however the run ended, the rest is published; the lease is given back
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from voxblink2_lib.errors import StoreBusyError, StoreError, VoxBlink2Error
from voxblink2_lib.progress import Progress, no_progress, size_text
from voxblink2_lib.published.fetching import fetch_files
from voxblink2_lib.published.lease import UrlLease
from voxblink2_lib.published.manifest import LEDGER, TOMBSTONES, Manifest
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import Place, Published
from voxblink2_lib.published.publisher import Publisher
from voxblink2_lib.published.remote_errors import store_errors
from voxblink2_lib.published.scratch import FOLDER, check_base, last_manifest, note_published
from voxblink2_lib.published.slices import check_whole
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.redaction import redacted_source
from voxblink2_lib.store.checksums import write_checksum
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

# After each of these, and after ten times as long as it took before, what is new is published.
PUBLISH_SECONDS = 300.0
_REST = 10.0
_WAIT_SECONDS = 10.0
_READ_ONLY = ("http://", "https://")
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def publishing(
    url: str, store: Store, *, wait: bool = False, progress: Progress = no_progress
) -> Iterator[Publisher]:
    """Publish what the body makes in a scratch store.

    Args:
        url: where it is published.
        store: the scratch store; a new one first takes up what is published.
        wait: wait, with a message, while another process publishes; otherwise raise.
        progress: counts what is downloaded before, and published at the end.

    Raises:
        StoreBusyError: another process publishes to the URL, or has published since this scratch
            store was.
        StoreDamagedError: a file, here or at the URL, is not what was written.
        StoreError, StoreDiskError: the URL cannot be read or written to.
    """
    with publisher_of(url, store, wait=wait, progress=progress) as publisher:
        with _in_background(publisher, progress):
            yield publisher
        publisher.publish(progress=progress)


@contextlib.contextmanager
def publisher_of(
    url: str, store: Store, *, wait: bool = False, progress: Progress = no_progress
) -> Iterator[Publisher]:
    """Have the right to publish a scratch store, in which the body alone decides when.

    Args:
        url: where it is published.
        store: the scratch store; a new one first takes up what is published.
        wait: wait, with a message, while another process publishes; otherwise raise.
        progress: counts what is downloaded before.

    Raises:
        Exception: see :func:`publishing`.
    """
    place = open_place(url)
    refuse_read_only(url)
    lease = place.lease()
    with store_errors(url, "published"):
        _acquire(lease, place, wait=wait)
    try:
        lease.keep()
        base = begin(place, store, progress=progress)
        publisher = Publisher(store, place, lease, base)
        publisher.sweep()
        yield publisher
    finally:
        lease.release()


def refuse_read_only(url: str) -> None:
    """Refuse a URL that nothing can be published at.

    Raises:
        StoreError: it is one.
    """
    if url.startswith(_READ_ONLY):
        raise StoreError(
            f"The store {redacted_source(url)} is at an address that can only be read. Name a "
            "folder, or a URL that can be written to, such as s3://bucket/store or "
            "hf://datasets/USER/NAME."
        )


def _acquire(lease: UrlLease, place: Place, *, wait: bool) -> None:
    if lease.acquire():
        return
    if not wait:
        raise StoreBusyError(
            f"Another process publishes to {place}. Nothing was changed. Run this again when it is "
            "done, or name another store."
        )
    _log.warning("Another process publishes to %s; waiting for it to finish.", place)
    while not lease.acquire():
        time.sleep(_WAIT_SECONDS)


# -- The beginning ---------------------------------------------------------------------------------


def begin(place: Place, store: Store, *, progress: Progress = no_progress) -> Published:
    """Make sure that a scratch store is what is published; a new one takes it up.

    Returns:
        What is published.

    Raises:
        Exception: see :func:`publishing`.
    """
    base = place.read()
    if store.ledger.exists():
        check_base(store, base.manifest, str(place))
    elif base.manifest is None:
        check_whole(place)
    else:
        _take_up(place, store, base.manifest, progress)
    _fetch_tails(place, store, progress)
    return base


def _take_up(place: Place, store: Store, manifest: Manifest, progress: Progress) -> None:
    """Download all but the shards; the ledger comes last, so that a kill leaves no store."""
    kept = (TOMBSTONES, "index/", "archive/", "parts/", "shards/")
    targets = {store.root / file.path: file for file in manifest.below(*kept)}
    targets |= {
        store.root / FOLDER / f"{config}.arrow": file
        for config in CONFIG_NAMES
        for file in manifest.below(f"catalogue/{config}.arrow")
    }
    total = sum(file.size_bytes for file in targets.values())
    _log.warning(
        "The scratch store %s takes up generation %d of %s: %s of %d files are downloaded, no "
        "shards.",
        *(store.root, manifest.generation, place, size_text(total), len(targets)),
    )
    fetch_files(place, targets, task="Taking up the store", progress=progress)
    note_published(store, manifest)
    fetch_files(place, {store.ledger: manifest.files[LEDGER]})


def _fetch_tails(place: Place, store: Store, progress: Progress) -> None:
    """Download the last shard of recovered videos, which may be superseded by a fuller one."""
    last = last_manifest(store)
    if last is None or not store.ledger.exists():
        return
    for config in CONFIG_NAMES:
        with Ledger(store.ledger, config, readonly=True) as ledger:
            tail = ledger.recovered.last()
        if tail is None or (path := store.shards(config) / tail.name).exists():
            continue
        if file := last.shards(config).get(tail.name):
            fetch_files(place, {path: file}, progress=progress)
            write_checksum(path, file.sha256)


# -- While the run works ---------------------------------------------------------------------------


@contextlib.contextmanager
def _in_background(publisher: Publisher, progress: Progress) -> Iterator[None]:
    """Publish in a thread; at the end of a body that raises, publish what is finished."""
    background = _Background(publisher)
    try:
        background.start()
        yield
        background.end()
    except BaseException as error:
        background.end()
        if background.conflict is not None:  # it is what has ended the run
            raise background.conflict from error
        _publish_rest(publisher, progress)
        raise
    if background.conflict is not None:
        raise background.conflict


def _publish_rest(publisher: Publisher, progress: Progress) -> None:
    """Publish after an error, which is the one to report; nothing, if it is a refusal."""
    if not publisher.has_jobs():
        return
    try:
        publisher.publish(progress=progress)
    except VoxBlink2Error as error:
        _log.warning("What was finished is kept, but not published yet: %s", error)


class _Background:
    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="voxblink2-publish", daemon=True)
        self.conflict: VoxBlink2Error | None = None

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """End it; what is being published is waited for."""
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        wait_seconds = PUBLISH_SECONDS
        while not self._ended.wait(wait_seconds):
            began = time.monotonic()
            try:
                self._publisher.publish()
            except StoreBusyError as error:
                # Whatever the run does from now on would be done twice.
                self.conflict = error
                if not self._ended.is_set():
                    _thread.interrupt_main()
                return
            except StoreError as error:
                _log.warning("It is tried again later: %s", error)
            except Exception as error:  # reported by the main thread, which publishes at the end
                _log.warning("Publishing failed, and is tried again later: %s", error)
            wait_seconds = max(PUBLISH_SECONDS, _REST * (time.monotonic() - began))
