"""A corpus that is made in slices: below one URL, each slice is a published store of its own.

::

    s3://bucket/voxblink2/
      slices/audio.json                  what all slices have in common, written by the first
      slices/001-of-064/manifest.json    the first slice, with all that a published store has
      slices/003-of-064/manifest.json

Machines share nothing else. Who reads the URL above reads the union of the slices, see
:mod:`~voxblink2_lib.published.union`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from voxblink2_lib.errors import SelectionError, StoreDamagedError, StoreMismatchError, next_command
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.published.manifest import Manifest
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import SLICES, Place, as_url
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.store.job_slices import MOST_SLICES, JobSlice

_FORMAT = 1
_READ_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class CommonPlan:
    """What the slices of a configuration have in common.

    Attributes:
        slices: their number.
        release: fingerprint of the annotations.
        selection: digest of which part of them is selected.
        clips: how clips are made.
    """

    slices: int
    release: str
    selection: str
    clips: Mapping[str, str]

    def as_json(self) -> bytes:
        """Return the content of the file."""
        return json.dumps({"format": _FORMAT, **asdict(self)}).encode()

    @classmethod
    def read(cls, content: bytes, place: str) -> CommonPlan:
        """Return what a file says.

        Raises:
            StoreDamagedError: it says nothing of this kind.
        """
        with as_own_error(StoreDamagedError, f"The file {place} cannot be used"):
            record = json.loads(content)
            if record.pop("format") != _FORMAT:
                raise ValueError(f"it has another format than {_FORMAT}")
            plan = cls(**record)
            if not (type(plan.slices) is int and 1 <= plan.slices <= MOST_SLICES):
                raise ValueError(f"{shortened(plan.slices)} is no number of slices")
            return plan


def slice_place(store: str, job_slice: JobSlice) -> str:
    """Return the URL of a slice; also that of a slice that is named itself.

    Args:
        store: the URL, or a folder that all machines see, of the whole store.
        job_slice: the slice.

    Raises:
        SelectionError: the store is that of another slice.

    >>> slice_place("s3://bucket/store/", JobSlice(3, 64))
    's3://bucket/store/slices/003-of-064'
    """
    url = as_url(store)
    named = slice_at(url)
    if named is None:
        return f"{url.rstrip('/')}/{SLICES}/{job_slice.name}"
    if named[1] != job_slice:
        raise SelectionError(
            f"The store {store} is that of the slice {named[1]}, and {job_slice} was named. Name "
            "the store above it, or leave out the slice."
        )
    return url


def slice_at(url: str | None) -> tuple[str, JobSlice] | None:
    """Return the URL of the whole store and the slice, of the URL of a slice; else ``None``.

    >>> slice_at("s3://bucket/store/slices/003-of-064")
    ('s3://bucket/store', JobSlice(number=3, slices=64))
    """
    root, _, name = (url or "").rstrip("/").rpartition("/")
    job_slice = JobSlice.named(name)
    is_below = root.endswith(f"/{SLICES}") and "://" in root
    return (root.removesuffix(f"/{SLICES}"), job_slice) if job_slice and is_below else None


# -- What slices have in common --------------------------------------------------------------------


def common_plan(place: Place, config: str) -> CommonPlan | None:
    """Return what the slices of a configuration have in common; ``None`` if there are none.

    Args:
        place: of the whole store.
        config: the configuration.
    """
    name = f"{SLICES}/{config}.json"
    content = place.read_small(name)
    return None if content is None else CommonPlan.read(content, f"{place}/{name}")


def slice_count(place: Place) -> int:
    """Return in how many slices a store is made; 0 if it is made in one piece.

    Raises:
        StoreDamagedError: its configurations have different numbers.
    """
    plans = [plan for config in CONFIG_NAMES if (plan := common_plan(place, config))]
    counts = {plan.slices for plan in plans}
    if len(counts) > 1:
        raise StoreDamagedError(f"The store {place} has slices of different kinds: {counts}.")
    return counts.pop() if counts else 0


def check_whole(place: Place) -> None:
    """Refuse a run of the whole of a store that is made in slices.

    Raises:
        StoreMismatchError: it has slices.
    """
    if count := slice_count(place):
        raise StoreMismatchError(
            f"The store {place} is made in {count:,} slices. Nothing was changed. Name one of "
            f"them with --shard-of-jobs, from 1/{count} to {count}/{count}, or join them in one "
            f"store with {next_command('merge', place, into='NEW_STORE')}."
        )


def check_slice(url: str) -> None:
    """Refuse a slice of a store that was made in one piece, or in another number of slices.

    Args:
        url: of the store of a run, which may be no slice.

    Raises:
        StoreMismatchError: there is something else at the URL.
    """
    named = slice_at(url)
    if named is None:
        return
    root = open_place(named[0])
    if root.read().manifest is not None:
        raise StoreMismatchError(
            f"The store {root} was made in one piece, not in slices. Nothing was changed. Leave "
            "out --shard-of-jobs, or name another store."
        )
    count = slice_count(root)
    if count not in {0, named[1].slices}:
        raise StoreMismatchError(
            f"The store {root} is made in {count:,} slices, and {named[1]} was named. Nothing was "
            f"changed. Name one of 1/{count} to {count}/{count}, or another store."
        )


def agree(root: Place, config: str, plan: CommonPlan) -> None:
    """Make sure that all slices have the same plan; the first one writes it.

    Args:
        root: of the whole store.
        config: the configuration.
        plan: of this slice.

    Raises:
        StoreMismatchError: another slice has another plan.
    """
    name = f"{SLICES}/{config}.json"
    others = CommonPlan.read(root.create(name, plan.as_json()), f"{root}/{name}")
    differing = [word for word, value in asdict(plan).items() if value != asdict(others)[word]]
    if differing:
        raise StoreMismatchError(
            f"The other slices of {root} have another plan than this one: {', '.join(differing)} "
            "differ. Nothing was changed. All slices need the same release, selection, options of "
            "clips and number of slices; for others, name another store."
        )


# -- Readers ---------------------------------------------------------------------------------------


def slice_manifests(place: Place) -> dict[JobSlice, Manifest]:
    """Return the manifests of the slices that are published, in order; none of any other store."""
    count = slice_count(place)
    slices = [JobSlice(number, count) for number in range(1, count + 1)]

    def read(job_slice: JobSlice) -> Manifest | None:
        return open_place(slice_place(place.url, job_slice)).read().manifest

    with ThreadPoolExecutor(_READ_AT_ONCE) as threads:
        manifests = dict(zip(slices, threads.map(read, slices), strict=True))
    return {job_slice: manifest for job_slice, manifest in manifests.items() if manifest}


def slice_urls(url: str) -> tuple[list[str], int]:
    """Return the URLs of the slices that are published, and how many there are to be."""
    place = open_place(url)
    urls = [slice_place(place.url, job_slice) for job_slice in slice_manifests(place)]
    return urls, slice_count(place)
