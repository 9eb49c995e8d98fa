"""The options of ``load_dataset("voxblink2", ...)``, and what they mean for a store."""

from __future__ import annotations

import os
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any

import datasets

from voxblink2_lib.errors import SelectionError, StoreDamagedError, StoreError
from voxblink2_lib.materialize.places import find_store, is_cut_audio
from voxblink2_lib.materialize.request import MaterializeRequest, user_options
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.progress import show_progress
from voxblink2_lib.published.manifest import ABOUT_ROWS
from voxblink2_lib.published.place import is_url
from voxblink2_lib.published.reading import find_published, no_store
from voxblink2_lib.published.scratch import scratch_store
from voxblink2_lib.published.streaming import StreamedShard, opened_shard
from voxblink2_lib.records import SealedShard, options_of
from voxblink2_lib.release.location import RELEASE_VARIABLE
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.release.speaker_split import SpeakerSplit
from voxblink2_lib.store.arrow_stream import ArrowStream
from voxblink2_lib.store.joined_columns import JoinedColumns, RowOptions
from voxblink2_lib.store.layout import Store, named_store
from voxblink2_lib.store.schema import row_features
from voxblink2_lib.store.split_views import split_views
from voxblink2_lib.store.status import open_ledger
from voxblink2_lib.store.summary import read_summary
from voxblink2_lib.store.view import View, view_of
from voxblink2_lib.store.view_table import config_id

# The configuration, the release and the number of workers have names of their own in datasets. Who
# makes a slice of a corpus has nothing to load yet.
_OPTIONS = {
    name: option
    for name, option in user_options().items()
    if name not in {"config", "data_dir", "workers", "shard_of_jobs"}
}
_ROW_OPTIONS = options_of(RowOptions)
_NAMES = sorted((*_OPTIONS, *_ROW_OPTIONS), key="scratch".__eq__)  # the newest last
_OptionsConfig = make_dataclass(
    "_OptionsConfig",
    [(name, Any, field(default=None)) for name in _NAMES],
    bases=(datasets.BuilderConfig,),
    namespace={"__module__": __name__},
)


class VoxBlink2Config(_OptionsConfig):  # type: ignore[misc, valid-type]  # made at run time
    """Options of ``load_dataset("voxblink2", ...)``."""

    published = None  # no option: what of a store at a URL is read, until the next look

    def request(self, *, workers: int | None = None) -> MaterializeRequest:
        """Return these options as the library takes them."""
        options = {name: getattr(self, name) for name in ("data_dir", *_OPTIONS)}
        return MaterializeRequest.of(config=self.name, workers=workers, **options)

    def find_store(self) -> Store:
        """Return the store; of one at a URL, the copy of what was published at the last look."""
        if is_url(self.store):
            self.published = self.published or self._find_published()
            return self.published or scratch_store(self.store, self.scratch)
        if self.store is not None:
            return named_store(self.store)
        return find_store(self.request())

    def _find_published(self) -> Store | None:
        """Return a copy of the files of a store at a URL that a load of these options needs."""
        if self.selection() == Selection() and self.validation is None:
            store = find_published(self.store, ABOUT_ROWS, progress=show_progress)
            summary = read_summary(store.root, self.name) if store else None
            if store is None or (summary and summary.shards):
                return store
        return find_published(self.store, progress=show_progress)

    def sealed_shards(self) -> list[SealedShard]:
        """Return the shards that the store holds now; none if it does not exist yet.

        None either if no option and no variable says which store, as for
        ``datasets.get_dataset_infos("voxblink2")``.
        """
        named = self.store or self.data_dir or os.environ.get(RELEASE_VARIABLE)
        if not (named or is_cut_audio(self.source)):
            self.request()  # refuses empty texts
            return []
        store = self.find_store()
        if summary := read_summary(store.root, self.name):
            return list(summary.shards)
        if not store.ledger.exists():
            return []
        with open_ledger(store, self.name) as ledger:
            return ledger.shards()

    def selection(self) -> Selection:
        """Return what is selected."""
        chosen = {name: getattr(self, name) for name in options_of(Selection)}
        return Selection.of(**{name: ids for name, ids in chosen.items() if ids is not None})

    def view(self) -> View:
        """Return the rows of the store that are selected, as it is now.

        Raises:
            SelectionError: a speaker or video is unknown, or nothing is selected.
            StoreDamagedError: a shard cannot be read.
        """
        shards, selection = self.sealed_shards(), self.selection()
        while shards:
            try:
                return view_of(self.find_store(), self.name, shards, selection)
            except StoreDamagedError:
                self.published = None
                before, shards = shards, self.sealed_shards()
                if shards == before:
                    raise
                # A run has removed a shard meanwhile, as its rows are in a fuller one.
        return View(())

    def split(self, view: View) -> dict[str, View]:
        """Return the rows of each split.

        Raises:
            SelectionError: the file of the split cannot be used, or a split has no rows.
        """
        rule = None if self.validation is None else SpeakerSplit.read(Path(self.validation))
        if rule is None or not view.shards:
            return dict.fromkeys(["train", "validation"] if rule else ["train"], view)
        return split_views(self.find_store(), self.name, view, rule)

    def views_before_a_load(self) -> dict[str, View]:
        """Return the rows that are selected now; none if a load may bring them, or says why not."""
        self.sealed_shards(), self.selection()  # refuse options that are wrong
        nothing = self.split(View(()))
        try:
            return self.split(self.view())
        except (SelectionError, StoreError):
            return nothing

    def columns(self) -> JoinedColumns:
        """Return the columns that are joined to those of the shards, as the index has them now."""
        folder = self.find_store().index if self.sealed_shards() else None
        return JoinedColumns.of(folder, RowOptions.of(self))

    def features(self) -> datasets.Features:
        """Return the columns of the store's rows, or of those that a new store will have."""
        shard, shards = None, self.sealed_shards()
        if shards:
            shard = self.shard(shards[0].name).schema
        return datasets.Features({**row_features(self.name, shard), **self.columns().features})

    def shard(self, name: str) -> ArrowStream | StreamedShard:
        """Open a shard, which is streamed if it is only at a URL."""
        return opened_shard(self.store, self.find_store(), self.name, name)

    def create_config_id(
        self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None
    ) -> str:
        """Return a name of the cache folder that follows what the store holds now."""
        del config_kwargs
        return config_id(self.name, self.views_before_a_load(), custom_features, self.columns())

    def is_store_only(self) -> bool:
        """Return whether an existing store was given without a release and is used as is.

        Raises:
            SelectionError: options are given that would change nothing in it.
        """
        if self.data_dir or os.environ.get(RELEASE_VARIABLE) or not self.store:
            return False
        if is_cut_audio(self.source):
            return False
        store = self.find_store()
        if not (store.ledger.exists() or read_summary(store.root, self.name)):
            if is_url(self.store):
                raise no_store(self.store)
            return False
        useless = [name for name in options_of(ClipOptions) if getattr(self, name) is not None]
        if useless:
            raise SelectionError(
                f"The store {self.store} is used as is, since no release is given; "
                f"{', '.join(useless)} would change nothing. Give the release with data_dir=..., "
                "or leave out these options."
            )
        return True


VoxBlink2Config.__doc__ = "\n".join(
    [
        'Options of ``load_dataset("voxblink2", ...)``.\n',
        "An existing store keeps its clip options; their defaults are those of a new store.\n",
        "Attributes:",
        *(f"    {name}: {option.summary}." for name, option in (_OPTIONS | _ROW_OPTIONS).items()),
    ]
)
