"""What a data set or Space on the Hub is now: looked at, and refused, before anything is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from voxblink2_lib.errors import ExportError
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.hub.record import Record, read_record
from voxblink2_lib.published.hub import DATA_SET_RECORD
from voxblink2_lib.published.manifest import MANIFEST
from voxblink2_lib.published.remote_errors import store_errors, tried
from voxblink2_lib.published.repository import Repository, RepositoryKind, RepositoryState

CARD = "README.md"
# What a new repository may have without being anybody's.
OF_THE_HUB = frozenset({".gitattributes", CARD})
_PLACE = re.compile(r"hf://(dataset|space)s/([\w.-]+/[\w.-]+)")


def find_repository(place: str, kind: RepositoryKind) -> Repository:
    """Return the repository that a user named.

    Raises:
        ExportError: it is named wrongly, or nobody is logged in to the Hub.
    """
    match = _PLACE.fullmatch(place.rstrip("/"))
    if match is None or match[1] != kind:
        what = "a data set for others" if kind == "dataset" else "a metric"
        raise ExportError(
            f"{place!r} is no place for {what}: it must be hf://{kind}s/USER/NAME, with the name "
            "of a user or an organization on the Hugging Face Hub, and one that you choose."
        )
    from huggingface_hub import get_token

    if not get_token():
        raise ExportError(
            f"To publish {place}, log in to the Hub with 'hf auth login', or set HF_TOKEN. The "
            "token must be allowed to write."
        )
    return Repository(match[2], kind)


class PresentDataSet(NamedTuple):
    """A data set as it is.

    Attributes:
        state: ``None`` if it does not exist.
        files: sizes of its files by their paths.
        record: what was published in it.
    """

    state: RepositoryState | None
    files: Mapping[str, int]
    record: Record


def look_at(repository: Repository, *, is_public: bool) -> PresentDataSet:
    """Return what a data set is, if clips may be published to it.

    Args:
        repository: the data set.
        is_public: everybody is to see them.

    Raises:
        ExportError: it holds a store, or is somebody else's; or others see it already.
        StoreError, StoreDiskError: it cannot be read.
    """
    place = str(repository)
    with store_errors(place, "read", noun="data set"):
        state = tried(repository.state)
        if state is None:
            return PresentDataSet(None, {}, {})
        files = tried(lambda: repository.sizes(state.commit))
        content = repository.read(DATA_SET_RECORD, state.commit)
    if content is None:
        _check_new(place, files)
    if not state.is_private and not is_public:
        raise ExportError(
            f"{place} is public: everybody would see what is published. Say so with --public, or "
            "make it private in its settings on the Hub."
        )
    return PresentDataSet(state, files, read_record(content, place))


def _check_new(place: str, files: Mapping[str, int]) -> None:
    """Refuse a data set that holds a store, or is somebody else's."""
    manifests = [path for path in files if PurePosixPath(path).name == MANIFEST]
    if manifests:
        raise ExportError(
            f"{place} holds a store, by its {manifests[0]}: runs publish there, with --store. "
            "Name another data set for others to load."
        )
    if others := sorted(files.keys() - OF_THE_HUB):
        raise ExportError(
            f"{place} has files that this command did not publish, such as {visible(others[0])}. "
            "Name a new data set."
        )
