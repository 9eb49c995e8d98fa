"""Open a remote store: its catalogue is copied, and what was opened is noted to be read offline."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from voxblink2_lib.errors import StoreDiskError, StoreError, TrainingError
from voxblink2_lib.files import atomic_write, short_digest
from voxblink2_lib.published.remote_errors import is_worth_another_try, store_errors
from voxblink2_lib.published.training_shards import (
    MANIFEST,
    TrainingShards,
    catalogue_name,
    clear_purged_pieces,
    open_place,
    training_shards,
)
from voxblink2_lib.store.catalogue import FOLDER
from voxblink2_lib.training import patient_downloads
from voxblink2_lib.training.byte_ranges import connect, read_range, version_text

_NOTE = ".opened.json"
# For a store of which this machine has a copy of the catalogue.
OFFLINE_SECONDS = 5.0
_log = logging.getLogger(__name__)


class OpenedStore(NamedTuple):
    """A store at one moment.

    Attributes:
        names: of the files of its shards at the URL, by the names of the shards; ``None`` of a
            store that was uploaded as it is.
        catalogue: the copy of its catalogue.
    """

    names: Mapping[str, str] | None
    catalogue: Path


def open_remote(url: str, config: str, cache: Path) -> OpenedStore:
    """Return what is at a URL; if its server does not answer, what was when it was opened last.

    Args:
        url: of the store.
        config: name of the configuration.
        cache: folder of the pieces.

    Raises:
        TrainingError: there is no such store, or it cannot be read.
        StoreDamagedError, StoreFullError: its catalogue is not what was published, or has no room.
    """
    last = _last(cache)
    try:
        _check_server(url, patient_downloads.DEADLINE_SECONDS if last is None else OFFLINE_SECONDS)
        opened = _opened(url, config, cache)
    except StoreDiskError as error:
        if last is None:
            raise TrainingError(str(error)) from error
        _log.warning("%s What was opened last is used, as far as it is in %s.", error, cache)
        return last
    except StoreError as error:
        if type(error) is not StoreError:  # a full disk or a damaged file: as everywhere
            raise
        raise TrainingError(str(error)) from error
    _note(cache, opened)
    return opened


def _check_server(url: str, seconds: float) -> None:
    """Return when the server of a store answers, whatever it answers.

    Raises:
        StoreDiskError: it does not.
    """

    def ask() -> None:
        try:
            read_range(*connect(f"{url}/{MANIFEST}"), 0, 1, None)  # one request, found or not
        except Exception as error:
            if is_worth_another_try(error):
                raise

    with store_errors(url, "read"):
        patient_downloads.PatientDownloads(url, [ask], seconds).run()


def _opened(url: str, config: str, cache: Path) -> OpenedStore:
    published = training_shards(url, config)
    if published is None:
        return OpenedStore(None, _uploaded_catalogue(url, config, cache))
    clear_purged_pieces(cache, published)
    return OpenedStore(published.names, _published_catalogue(url, cache, published))


def _published_catalogue(url: str, cache: Path, published: TrainingShards) -> Path:
    file = published.catalogue
    if isinstance(file, Path):
        return file
    copy = cache / FOLDER / catalogue_name(published)
    if not copy.exists():
        size, sha256 = file.size_bytes, file.sha256
        open_place(url).download(file.name, copy, size_bytes=size, sha256=sha256)
    return copy


def _uploaded_catalogue(url: str, config: str, cache: Path) -> Path:
    place = f"{url}/{FOLDER}/{config}.arrow"
    try:
        system, path = connect(place)
        version = version_text(system.info(path))
        copy = cache / FOLDER / f"{short_digest(version.encode())}.arrow"
        if not copy.exists():
            with atomic_write(copy) as file:
                file.write(system.cat_file(path))
    except FileNotFoundError as error:
        raise TrainingError(
            f"There is no catalogue at {place}. Corpus.open() on the local store makes it, in "
            f"its folder {FOLDER!r}; upload that folder together with the shards."
        ) from error
    except StoreError:
        raise
    except Exception as error:  # of botocore and aiohttp, many are no OSError
        raise TrainingError(f"The store {url} cannot be opened: {error}") from error
    return copy


# -- What was opened last --------------------------------------------------------------------------


def _note(cache: Path, opened: OpenedStore) -> None:
    names = None if opened.names is None else dict(opened.names)
    content = json.dumps({"names": names, "catalogue": str(opened.catalogue)}).encode()
    path = cache / _NOTE
    with contextlib.suppress(OSError, StoreError):  # of a cache that is only read
        if not path.exists() or path.read_bytes() != content:
            with atomic_write(path) as file:
                file.write(content)


def _last(cache: Path) -> OpenedStore | None:
    """Return what was opened last, if its catalogue is still there."""
    try:
        record: dict[str, Any] = json.loads((cache / _NOTE).read_bytes())
        opened = OpenedStore(record["names"], Path(record["catalogue"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return opened if opened.catalogue.exists() else None
