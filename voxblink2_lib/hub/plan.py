"""What a publication would do: compared with the store and with the data set, before it begins.

A publication is one commit, which has all that is new and nothing of what is gone. So whoever loads
the data set reads all of it at any time, and a killed publication has changed nothing; what it had
uploaded by then is not sent again. Several commits would let readers see half of it, and rows that
are on their way out beside those that take their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxblink2_lib.export.contents import features_of, joined_columns, selected_view
from voxblink2_lib.export.manifest import selection_record
from voxblink2_lib.hub.description import PublishedRows, described
from voxblink2_lib.hub.present import PresentDataSet
from voxblink2_lib.hub.record import PublishedConfig
from voxblink2_lib.hub.units import DataUnit, data_units
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.published.repository import Repository
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.release.speaker_split import SpeakerSplit
from voxblink2_lib.store.joined_columns import RowOptions
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.split_views import split_views


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """What a user wants to publish.

    Attributes:
        store: the store.
        config: the configuration.
        repository: the data set.
        present: what it is now.
        selection: which part of the store.
        rows: further columns, and the file of a split.
        is_public: everybody is to see it.
    """

    store: Store
    config: str
    repository: Repository
    present: PresentDataSet
    selection: Selection = field(default_factory=Selection)
    rows: RowOptions = field(default_factory=RowOptions)
    is_public: bool = False


@dataclass(frozen=True, slots=True)
class PublishPlan:
    """What there is to do.

    Attributes:
        request: what was requested.
        now: what this configuration will be, but for sizes of files that are not made yet.
        units: all its files.
        kept: sizes of those that are there, by their paths.
        removed: paths of files that are there and go.
    """

    request: PublishRequest
    now: PublishedConfig
    units: tuple[DataUnit, ...]
    kept: Mapping[str, int]
    removed: tuple[str, ...]

    @property
    def left(self) -> list[DataUnit]:
        """The files to make and upload."""
        return [unit for unit in self.units if unit.path not in self.kept]

    @property
    def becomes_public(self) -> bool:
        """Whether it is seen by everybody afterwards, and not before."""
        state = self.request.present.state
        return self.request.is_public and (state is None or state.is_private)

    @property
    def before(self) -> PublishedConfig | None:
        """What the data set has of the configuration; ``None`` if nothing."""
        return self.request.present.record.get(self.request.config)

    @property
    def changes(self) -> list[str]:
        """What differs from the last publication of this configuration, in words."""
        before, now = self.before, self.now
        if before is None:
            return []
        words = {
            "no shard of the store is the same": not _is_same_store(before, now),
            "another part of the store is selected": before.selection != now.selection,
            "it has other columns, or another split": before.options != now.options,
        }
        return [text for text, applies in words.items() if applies]


def plan_publication(request: PublishRequest, *, progress: Progress = no_progress) -> PublishPlan:
    """Compare a request with its store and its data set. Changes nothing.

    Raises:
        StoreError: there is no store, or no clip in it.
        SelectionError: nothing is selected, or there is no clip of it.
    """
    store, config, rows = request.store, request.config, request.rows
    view = selected_view(store, config, request.selection, progress=progress)
    split = None
    if rows.validation is not None:
        split = SpeakerSplit.read(Path(rows.validation).expanduser())
    views = {"train": view} if split is None else split_views(store, config, view, split)
    columns = joined_columns(store, rows)
    chosen = PublishedRows(views, columns, features_of(store, config, view, columns))
    now = described(
        store,
        config,
        view,
        chosen,
        selection=selection_record(request.selection),
        options=_options(rows, split),
    )
    units = []
    with progress("Comparing", unit="utterance", total=now.utterances) as advance:
        for unit in data_units(store, config, chosen):
            units.append(unit)
            advance(unit.utterances)
    paths, files = {unit.path for unit in units}, request.present.files
    ours = [path for path in files if path.startswith(f"{config}/")]
    return PublishPlan(
        request=request,
        now=now,
        units=tuple(units),
        kept={path: files[path] for path in ours if path in paths},
        removed=tuple(path for path in ours if path not in paths),
    )


def _is_same_store(before: PublishedConfig, now: PublishedConfig) -> bool:
    """Return whether two publications are of one store, which may have grown or been purged."""
    shared = set(before.shards.values()) & set(now.shards.values())
    return bool(shared) or bool(now.annotations and before.annotations == now.annotations)


def _options(rows: RowOptions, split: SpeakerSplit | None) -> dict[str, Any]:
    """Return what else decides which rows and columns there are; the split by its rule."""
    return {
        **({"with_speaker_info": True} if rows.with_speaker_info else {}),
        **({"validation": split.signature.decode()} if split else {}),
    }
