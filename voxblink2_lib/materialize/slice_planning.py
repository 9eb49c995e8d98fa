"""Which of the selected videos are in the slice that a run makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from voxblink2_lib.errors import SelectionError, SourceError, StoreMismatchError
from voxblink2_lib.materialize.jobs import count_jobs, job_size
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.slices import CommonPlan, agree, common_plan, slice_at
from voxblink2_lib.records import options_of
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.job_slices import SLICE
from voxblink2_lib.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class SlicePart:
    """The part of a selection that is in a slice.

    Attributes:
        selected: its videos.
        job_size: number of videos of a job.
        settings: what the ledger is to remember of the slice.
        common: what the other slices must have too.
    """

    selected: pa.Table
    job_size: int
    settings: Mapping[str, str]
    common: CommonPlan


def slice_part(
    request: MaterializeRequest, index: Index, selected: pa.Table, clips: Mapping[str, str]
) -> SlicePart | None:
    """Return the part of a selection that is in the slice of a request; ``None`` if it names none.

    The jobs of the whole selection are dealt out, so every video is in one slice.

    Args:
        request: the request of the user.
        index: the index.
        selected: all videos that are selected, sorted.
        clips: how clips are made, by option.

    Raises:
        SelectionError: there are fewer jobs than slices.
    """
    named = slice_at(request.store)
    if named is None:
        return None
    job_slice, size, jobs = named[1], job_size(len(selected)), count_jobs(len(selected))
    if jobs < job_slice.slices:
        raise SelectionError(
            f"The {len(selected):,} selected videos make {jobs:,} jobs, too few for "
            f"{job_slice.slices:,} slices. Name at most {jobs:,} slices, or select more videos."
        )
    starts = job_slice.starts(len(selected), size)
    return SlicePart(
        selected=pa.concat_tables(selected.slice(start, size) for start in starts),
        job_size=size,
        settings={SLICE: str(job_slice)},
        common=CommonPlan(
            slices=job_slice.slices,
            release=index.info.fingerprint,
            selection=selection_digest(request.selection),
            clips=clips,
        ),
    )


def selection_digest(selection: Selection) -> str:
    """Return a digest of what is selected of any release."""
    values = {name: getattr(selection, name) for name in options_of(Selection)}
    chosen = {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in values.items()
    }
    return hashlib.sha256(json.dumps(chosen).encode()).hexdigest()


def check_planned_slice(request: MaterializeRequest, index: Index, ledger: Ledger) -> bool:
    """Return whether the videos of a slice were planned by an earlier run: then there are no more.

    What was purged since is left out of the index, and changes nothing in which slice the others
    are.

    Raises:
        StoreMismatchError: the release or the selection is another one than that of the slices.
    """
    named = slice_at(request.store)
    if named is None or ledger.setting(SLICE) is None:
        return False
    root = open_place(named[0])
    common = common_plan(root, request.config)
    is_same_release = Tombstones.of(index.folder.parent) or (
        common and common.release == index.info.fingerprint
    )
    is_same_selection = common and common.selection == selection_digest(request.selection)
    if not (is_same_release and is_same_selection):
        what = "selection" if is_same_release else "release"
        raise StoreMismatchError(
            f"The slices of {root} are of another {what} than this run. A corpus that is made in "
            "slices does not grow: use what the first runs had, or another store."
        )
    return True


def agree_on_slices(request: MaterializeRequest, part: SlicePart | None) -> None:
    """Make sure that the other slices have the same plan, after every other check has passed.

    Raises:
        StoreMismatchError: another slice has another plan.
    """
    named = slice_at(request.store)
    if named is not None and part is not None:
        agree(open_place(named[0]), request.config, part.common)


def refuse_cut_audio(request: MaterializeRequest) -> None:
    """Refuse a slice of cut audio, whose jobs are known when all of it was read.

    Raises:
        SourceError: the request names a slice.
    """
    if slice_at(request.store) is not None:
        raise SourceError(
            f"The source {request.source} is cut audio, which is read as one stream by one "
            "machine. Leave out --shard-of-jobs, and name another store."
        )
