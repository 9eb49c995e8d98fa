"""What an export would write: checked against the store and the target, before anything is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from voxblink2_lib import __version__
from voxblink2_lib.errors import ExportError, StoreFullError
from voxblink2_lib.export.contents import (
    features_of,
    joined_columns,
    listed_rows,
    selected_view,
)
from voxblink2_lib.export.formats import Format
from voxblink2_lib.export.manifest import (
    Manifest,
    check_same,
    read_manifest,
    selection_record,
)
from voxblink2_lib.export.rows import UnitRows
from voxblink2_lib.export.target import Target
from voxblink2_lib.export.units import Receipt, UnitTask, read_receipts, signature_of, unit_name
from voxblink2_lib.progress import Progress, no_progress, size_text
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.joined_columns import JoinedColumns, RowOptions
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.status import open_ledger
from voxblink2_lib.store.view import ShardRows, View

# Changes with what is written for the same rows.
_EXPORT_FORMAT = b"export 1"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What a user wants to export.

    Attributes:
        store: the store.
        config: the configuration.
        chosen: the format.
        target: where it goes.
        selection: which part of the store.
        rows: which further columns are joined.
    """

    store: Store
    config: str
    chosen: Format
    target: Target
    selection: Selection = field(default_factory=Selection)
    rows: RowOptions = field(default_factory=RowOptions)


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What there is to do.

    Attributes:
        request: what was requested.
        manifest: as it will be, but for what is counted on the way.
        units: all units, in the order of the shards.
        done: receipts of those that are finished, by their names.
        outdated: receipts of units that are not in the store any more.
        needed_bytes: about what is left to write.
        free_bytes: what is free there; ``None`` if that is unknown.
        is_audio_only: the store has faces, and the format carries none.
        current: the manifest of the target, if there is nothing to do.
    """

    request: ExportRequest
    manifest: Manifest
    units: tuple[UnitTask, ...]
    done: dict[str, Receipt]
    outdated: tuple[Receipt, ...]
    needed_bytes: int
    free_bytes: int | None
    is_audio_only: bool
    current: Manifest | None

    @property
    def left(self) -> list[UnitTask]:
        """The units to write."""
        return [task for task in self.units if task.unit not in self.done]


def plan_export(request: ExportRequest, *, progress: Progress = no_progress) -> ExportPlan:
    """Compare a request with its store and its target. Writes nothing to the target.

    Args:
        request: what is requested.
        progress: counts shards whose rows are not known yet.

    Raises:
        StoreError: there is no store, or no clip in it.
        SelectionError: nothing is selected, or there is no clip of it.
        ExportError: the target is not of this export.
        StoreFullError: there is too little space.
    """
    _check_place(request)
    view = selected_view(request.store, request.config, request.selection, progress=progress)
    measures = list(_measures(request, view))
    columns = _columns(request)
    units = tuple(_tasks(request, view, columns))
    now = _manifest(request, view, measures)
    before = read_manifest(request.target)
    if before is not None:
        check_same(before, now, request.target)
    receipts = read_receipts(request.target)
    done = dict(_finished(units, receipts, request.target))
    is_current = len(done) == len(units) == len(receipts) and _is_same(before, now, request)
    sizes = zip(units, measures, strict=True)
    plan = ExportPlan(
        request=request,
        manifest=now,
        units=units,
        done=done,
        outdated=tuple(receipt for name, receipt in receipts.items() if name not in done),
        needed_bytes=sum(size.bytes for task, size in sizes if task.unit not in done),
        free_bytes=request.target.free_bytes(),
        is_audio_only=request.config == "audio-visual" and not request.chosen.faces,
        current=before if is_current else None,
    )
    _check_space(plan)
    return plan


def _check_place(request: ExportRequest) -> None:
    place, root = Path(request.target.url), request.store.root
    if request.target.is_local and place.resolve().is_relative_to(root.resolve()):
        raise ExportError(f"{place} is in the store itself. Name a folder outside of {root}.")


@dataclass(frozen=True, slots=True)
class _Measure:
    """How much the selected rows of a shard are: in samples, in bytes when exported."""

    speakers: frozenset[str]
    utterances: int
    samples: int
    bytes: int


def _measures(request: ExportRequest, view: View) -> Iterator[_Measure]:
    for part, rows in listed_rows(request.store, request.config, view):
        samples, clip_bytes = (int(pc.sum(rows[name]).as_py()) for name in ("samples", "size"))
        if "video" in request.chosen.faces:  # nearly all that is in a shard is media
            clip_bytes = part.shard.size_bytes * part.rows // part.shard.rows
        speakers = frozenset(pc.unique(rows["speaker_id"]).to_pylist())
        size = request.chosen.size_bytes(part.rows, clip_bytes, samples)
        yield _Measure(speakers, part.rows, samples, size)


def _columns(request: ExportRequest) -> JoinedColumns | None:
    """Return the columns to join; ``None`` if the format has none, or the store knows nothing."""
    columns = joined_columns(request.store, request.rows)
    if request.chosen.has_all_columns:
        return columns
    is_known = columns.info is not None and request.chosen.with_transcripts
    return columns if is_known else None


def _tasks(request: ExportRequest, view: View, columns: JoinedColumns | None) -> Iterator[UnitTask]:
    chosen, folder = request.chosen, request.store.shards(request.config)
    metadata = None
    if chosen.has_all_columns and columns is not None:
        features = features_of(request.store, request.config, view, columns)
        metadata = features.arrow_schema.metadata
    known = b"" if columns is None else columns.signature
    for part in view.shards:
        shard_file = folder / part.shard.name
        rows = UnitRows(
            shard_file, part.ranges, chosen.faces, chosen.with_transcripts, columns, metadata
        )
        yield UnitTask(
            unit=unit_name(part.shard.name),
            rows=rows,
            chosen=chosen,
            target=request.target,
            sha256=part.shard.sha256,
            signature=_signature(request, part, known),
            utterances=part.rows,
        )


def _signature(request: ExportRequest, part: ShardRows, known: bytes) -> str:
    options = repr((request.chosen.name, request.chosen.options, request.rows)).encode()
    return signature_of(_EXPORT_FORMAT, options, part.signature, known)


def _manifest(request: ExportRequest, view: View, measures: Sequence[_Measure]) -> Manifest:
    store = request.store
    speakers = set(itertools.chain.from_iterable(part.speakers for part in measures))
    options: dict[str, Any] = dict(request.chosen.options or {})
    with open_ledger(store, request.config) as ledger:
        store_id = ledger.store_id
    if request.rows.with_speaker_info:
        options["with_speaker_info"] = True
    return Manifest(
        store=store.place,
        annotations=Index(store.index).info.fingerprint if store.index.exists() else "",
        target=request.target.shown,
        config=request.config,
        format=request.chosen.name,
        options=options,
        selection=selection_record(request.selection),
        shards={part.shard.name: part.shard.sha256 for part in view.shards},
        is_complete=False,
        utterances=sum(part.utterances for part in measures),
        speakers=len(speakers),
        hours=round(sum(part.samples for part in measures) / SAMPLE_RATE_HZ / 3600, 4),
        made_by=f"voxblink2 {__version__}",
        store_id=store_id,
    )


def _finished(
    units: Sequence[UnitTask], receipts: dict[str, Receipt], target: Target
) -> Iterator[tuple[str, Receipt]]:
    for task in units:
        receipt = receipts.get(task.unit)
        if receipt and receipt.signature == task.signature and receipt.is_whole(target):
            yield task.unit, receipt


def _is_same(before: Manifest | None, now: Manifest, request: ExportRequest) -> bool:
    """Return whether an export is complete, in the place where it was written to."""
    return (
        before is not None
        and before.is_complete
        and before.target == now.target
        and all(request.target.size_of(name) is not None for name in request.chosen.list_names)
    )


def _check_space(plan: ExportPlan) -> None:
    if plan.free_bytes is not None and plan.needed_bytes > plan.free_bytes:
        raise StoreFullError(
            f"The export takes about {size_text(plan.needed_bytes)}, and "
            f"{size_text(plan.free_bytes)} are free for {plan.request.target.shown}. Nothing was "
            "written: free some space, select less, or name another disk."
        )
