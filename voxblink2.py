"""VoxBlink2 as a Hugging Face dataset.

    import voxblink2                      # registers the builder with datasets >= 4
    from datasets import load_dataset

    ds = load_dataset("voxblink2", "audio", data_dir=RELEASE, source=SOURCE, store=STORE)
    ds = load_dataset("voxblink2", "audio-visual", ...)  # with the speakers' faces

The first load downloads the media, crops every utterance and seals Arrow shards in the store; every
load links those shards into the ``datasets`` cache. A smaller selection than the store holds is a
view: some rows of the linked shards. With datasets 3.6 this file runs as a script:
``load_dataset("voxblink2.py", "audio", trust_remote_code=True, ...)``.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pyarrow as pa

from voxblink2_lib import __version__
from voxblink2_lib.errors import SelectionError, StoreDamagedError, StoreError
from voxblink2_lib.materialize.places import find_store, is_cut_audio
from voxblink2_lib.materialize.request import MaterializeRequest, user_options
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.progress import show_progress
from voxblink2_lib.published.place import is_url
from voxblink2_lib.published.reading import fetch_shards, find_published, no_store
from voxblink2_lib.published.scratch import scratch_store
from voxblink2_lib.published.streaming import StreamedShard, opened_shard
from voxblink2_lib.published_results import CITATION
from voxblink2_lib.records import SealedShard, options_of
from voxblink2_lib.release.location import RELEASE_VARIABLE
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.arrow_stream import ArrowStream
from voxblink2_lib.store.joined_columns import JoinedColumns, RowOptions
from voxblink2_lib.store.layout import Store, named_store
from voxblink2_lib.store.schema import row_features
from voxblink2_lib.store.shard_check import CheckedShards, shard_batches
from voxblink2_lib.store.status import (
    empty_store_message,
    incomplete_messages,
    open_ledger,
    unavailable_messages,
)
from voxblink2_lib.store.view import Ranges, View, empty_view_message, rows_in, view_of
from voxblink2_lib.store.view_table import config_id, fill_cache, read_view

_log = logging.getLogger("voxblink2_lib")


# -- Configuration --------------------------------------------------------------------------------

# The configuration, the release and the number of workers have names of their own in datasets.
_OPTIONS = {
    name: option
    for name, option in user_options().items()
    if name not in {"config", "data_dir", "workers"}
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
            self.published = self.published or find_published(self.store, progress=show_progress)
            return self.published or scratch_store(self.store, self.scratch)
        if self.store is not None:
            return named_store(self.store)
        return find_store(self.request())

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

    def view_before_a_load(self) -> View:
        """Return the rows that are selected now; none if a load may bring them, or says why not."""
        self.sealed_shards(), self.selection()  # refuse options that are wrong
        try:
            return self.view()
        except (SelectionError, StoreError):
            return View(())

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
        return config_id(self.name, self.view_before_a_load(), custom_features, self.columns())

    def is_store_only(self) -> bool:
        """Return whether an existing store was given without a release and is used as is.

        Raises:
            SelectionError: options are given that would change nothing in it.
        """
        if self.data_dir or os.environ.get(RELEASE_VARIABLE) or not self.store:
            return False
        if is_cut_audio(self.source):
            return False
        if not self.find_store().ledger.exists():
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


# -- Builder --------------------------------------------------------------------------------------


class VoxBlink2(datasets.ArrowBasedBuilder):  # type: ignore[misc]  # no type hints there
    """Builder of the ``voxblink2`` dataset."""

    VERSION = datasets.Version(__version__)
    BUILDER_CONFIG_CLASS = VoxBlink2Config
    BUILDER_CONFIGS: ClassVar = [
        VoxBlink2Config(
            name="audio", version=VERSION, description="Every utterance as 16 kHz mono audio."
        ),
        VoxBlink2Config(
            name="audio-visual",
            version=VERSION,
            description="The same, and the speaker's face as video at 25 fps.",
        ),
    ]
    DEFAULT_CONFIG_NAME = "audio"

    config: VoxBlink2Config
    config_id: str

    def __init__(self, *args: Any, features: datasets.Features | None = None, **kwargs: Any):
        self._custom_features = features
        # Options are read more than once, and a generator only once.
        kwargs |= {
            name: list(value) for name, value in kwargs.items() if isinstance(value, Iterator)
        }
        super().__init__(*args, features=features, **kwargs)
        self._view, self._columns = self.config.view_before_a_load(), self.config.columns()

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="VoxBlink2: utterances of 111,284 speakers, cropped from videos.",
            features=self.config.features(),
            homepage="https://VoxBlink2.github.io",
            license="Annotations: CC BY-NC-SA 4.0. Media: their owners'.",
            citation=CITATION,
        )

    def download_and_prepare(self, *args: Any, num_proc: int | None = None, **kwargs: Any) -> None:
        """Materialize what the store lacks, then link its shards into the cache."""
        self._materialize(workers=num_proc)
        while True:
            tried = self.config_id
            try:
                self._fetch_shards()
                super().download_and_prepare(*args, num_proc=num_proc, **kwargs)
                self._check_shards()
                return
            except Exception:  # datasets wraps what is raised in it
                self.config.published = None
                self._read_view()
                if self.config_id == tried:
                    raise
                # A run has removed a shard meanwhile, as its rows are in a fuller one.

    def _fetch_shards(self) -> None:
        """Download the shards of a store at a URL, unless they are in the cache."""
        store, is_prepared = self.config.find_store(), Path(self._output_dir).is_dir()
        if store.url and not (is_prepared and all(link.exists() for link in self._links())):
            names = [part.shard.name for part in self._view.shards]
            place = self.config.store, store, self.config.name
            fetch_shards(*place, names, progress=show_progress)

    def _check_shards(self) -> None:
        """Check shards that are new or have changed: ``datasets`` reads them as they are."""
        if self._custom_features is not None or not (folder := Path(self._output_dir)).is_dir():
            return
        shards = [shard for shard in self._paths() if shard.exists()]
        checked = CheckedShards(folder / "checked_shards.json")
        checked.check(shards)
        # Usually the same files under other names. A shard that was replaced since is still there.
        checked.check([link for link in self._links() if link.exists()])

    def _paths(self) -> list[Path]:
        if not self._view.shards:
            return []
        folder = self.config.find_store().shards(self.config.name)
        return [folder / part.shard.name for part in self._view.shards]

    def as_streaming_dataset(self, *args: Any, **kwargs: Any) -> Any:
        """Materialize what the store lacks, then stream its shards."""
        self._materialize(workers=None)
        return super().as_streaming_dataset(*args, **kwargs)

    def _materialize(self, *, workers: int | None) -> None:
        if not self.config.is_store_only():
            materialize(self.config.request(workers=workers), retry=False, wait=True)
            self.config.published = None
        self._read_view()

    def _read_view(self) -> None:
        # The very shards that the cache folder is named after: the store may grow meanwhile.
        self._view, self._columns = self.config.view(), self.config.columns()
        store, name = self.config.find_store(), self.config.name
        if not self._view.shards:
            if shards := self.config.sealed_shards():
                raise SelectionError(empty_view_message(store, name, shards, self._view))
            raise StoreError(empty_store_message(store, name))
        new_id = config_id(self.config.name, self._view, self._custom_features, self._columns)
        if new_id != self.config_id:
            self._move_cache(new_id)
            self._warn_of(unavailable_messages(store, name))
        if self.config.is_store_only():
            self._warn_of(incomplete_messages(store, name, self._view))

    def _move_cache(self, new_id: str) -> None:
        self.config_id = new_id
        self._cache_dir = self._output_dir = self._build_cache_dir()
        self.info.splits = None
        self.info.download_size = self.info.dataset_size = self.info.size_in_bytes = None

    def _warn_of(self, messages: Iterable[str]) -> None:
        for message in messages:
            _log.warning("%s", message)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        del dl_manager
        ranges = [part.ranges for part in self._view.shards]
        shards = list(zip(map(str, self._paths()), ranges, strict=True))
        return [datasets.SplitGenerator(name=datasets.Split.TRAIN, gen_kwargs={"shards": shards})]

    def _generate_tables(
        self, shards: Iterable[tuple[str, Ranges]]
    ) -> Iterator[tuple[Any, pa.Table]]:
        joiner = self._columns.open()
        for shard_index, (path, ranges) in enumerate(shards):
            tables = rows_in(shard_batches(self.config.shard(Path(path).name)), ranges)
            for batch_index, table in enumerate(tables):
                yield _key(shard_index, batch_index), joiner.join(table)

    def _prepare_split(
        self, split_generator: datasets.SplitGenerator, file_format: str = "arrow", **kwargs: Any
    ) -> None:
        """Link sealed shards into the cache: they are in the format that ``datasets`` reads."""
        if (
            file_format != "arrow"
            or self._custom_features is not None  # then columns must be rewritten
            or datasets.filesystems.is_remote_filesystem(self._fs)
        ):
            kwargs.pop("num_proc", None)
            super()._prepare_split(split_generator, file_format=file_format, **kwargs)
            self._columns.check()
            return
        shards = [Path(shard) for shard, _ in split_generator.gen_kwargs["shards"]]
        info = split_generator.split_info
        info.shard_lengths = [part.rows for part in self._view.shards]
        info.num_examples = sum(info.shard_lengths)
        info.num_bytes = sum(shard.stat().st_size for shard in shards)
        fill_cache(self._view, shards, self._links(), self._columns, progress=show_progress)

    def _links(self) -> list[Path]:
        lengths = [part.rows for part in self._view.shards]
        names = datasets.naming.filenames_for_dataset_split(
            self._output_dir, self.dataset_name, str(datasets.Split.TRAIN), "arrow", lengths
        )
        return list(map(Path, names))

    def _as_dataset(self, split: Any = datasets.Split.TRAIN, in_memory: bool = False) -> Any:
        """Return rows of the shards, all or those of the view, with the columns joined to them."""
        if self._custom_features is not None:
            return super()._as_dataset(split, in_memory)
        places = self._paths(), self._links()
        rows = read_view(self._view, *places, split, self.info, in_memory=in_memory)
        return datasets.Dataset(**rows, fingerprint=self._get_dataset_fingerprint(split))


def _key(shard: int, batch: int) -> Any:
    # datasets 5 requires its own key, datasets 3 takes any text.
    key = getattr(datasets.builder, "Key", None)
    return key(shard, batch) if key else f"{shard}_{batch}"


# -- Registration ---------------------------------------------------------------------------------


def _register() -> None:
    """Let ``datasets`` >= 4, which runs no scripts, find this builder by its name."""

    def with_builder(original: Any) -> Any:
        @functools.wraps(original)
        def factory(path: str, *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, str) and path.lower() == "voxblink2":
                code = hashlib.sha256(__version__.encode()).hexdigest()[:16]
                return datasets.load.DatasetModule("voxblink2", code, {})
            return original(path, *args, **kwargs)

        return factory

    for module in (datasets.load, datasets.inspect):
        module.dataset_module_factory = with_builder(module.dataset_module_factory)


# As a script of datasets 3.6 the module has another name, and needs no registration.
if __name__ == "voxblink2":
    _register()
