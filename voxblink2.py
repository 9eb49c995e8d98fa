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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

# Before datasets, which makes tqdm warn in a notebook without widgets.
from voxblink2_lib.progress import show_progress

# isort: split
import datasets
import pyarrow as pa

from voxblink2_lib import __version__
from voxblink2_lib.builder.config import VoxBlink2Config
from voxblink2_lib.errors import SelectionError, StoreError
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.published.reading import fetch_shards
from voxblink2_lib.published_results import CITATION, HOMEPAGE, LICENSE
from voxblink2_lib.store.joined_columns import joined_file
from voxblink2_lib.store.shard_check import CheckedShards, shard_batches
from voxblink2_lib.store.status import (
    empty_store_message,
    incomplete_messages,
    unavailable_messages,
)
from voxblink2_lib.store.view import Ranges, empty_view_message, rows_in
from voxblink2_lib.store.view_table import config_id, fill_cache, read_view, spans_of

_log = logging.getLogger("voxblink2_lib")


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
        self._views, self._columns = self.config.views_before_a_load(), self.config.columns()

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="VoxBlink2: utterances of 111,284 speakers, cropped from videos.",
            features=self.config.features(),
            homepage=HOMEPAGE,
            license=LICENSE,
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
        links = [link for name in self._views for link in self._links(name)]
        if store.url and not (is_prepared and all(link.exists() for link in links)):
            names = {part.shard.name for view in self._views.values() for part in view.shards}
            place = self.config.store, store, self.config.name
            fetch_shards(*place, sorted(names), progress=show_progress)

    def _check_shards(self) -> None:
        """Check shards that are new or have changed: ``datasets`` reads them as they are."""
        if self._custom_features is not None or not (folder := Path(self._output_dir)).is_dir():
            return
        shards = [shard for name in self._views for shard in self._paths(name) if shard.exists()]
        checked = CheckedShards(folder / "checked_shards.json")
        checked.check(shards, progress=show_progress)
        # Usually the same files under other names. A shard that was replaced since is still there.
        checked.check([link for name in self._views for link in self._links(name) if link.exists()])

    def _paths(self, split: str) -> list[Path]:
        if not self._views[split].shards:
            return []
        folder = self.config.find_store().shards(self.config.name)
        return [folder / part.shard.name for part in self._views[split].shards]

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
        view, self._columns = self.config.view(), self.config.columns()
        store, name = self.config.find_store(), self.config.name
        if not view.shards:
            if shards := self.config.sealed_shards():
                raise SelectionError(empty_view_message(store, name, shards, view))
            raise StoreError(empty_store_message(store, name))
        self._views = self.config.split(view)
        new_id = config_id(self.config.name, self._views, self._custom_features, self._columns)
        if new_id != self.config_id:
            self._move_cache(new_id)
            self._warn_of(unavailable_messages(store, name))
        if self.config.is_store_only():
            self._warn_of(incomplete_messages(store, name, view))

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
        generators = []
        for name, view in self._views.items():
            ranges = [part.ranges for part in view.shards]
            shards = list(zip(map(str, self._paths(name)), ranges, strict=True))
            generators.append(datasets.SplitGenerator(name=name, gen_kwargs={"shards": shards}))
        return generators

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
        info, name = split_generator.split_info, str(split_generator.name)
        view = self._views[name]
        info.shard_lengths = [part.rows for part in view.shards]
        info.num_examples = sum(info.shard_lengths)
        info.num_bytes = sum(shard.stat().st_size for shard in shards)
        fill_cache(view, shards, self._links(name), self._columns, progress=show_progress)

    def _links(self, split: str) -> list[Path]:
        lengths = [part.rows for part in self._views[split].shards]
        links = self._names(split, lengths)
        if len(links) > 1:
            return links
        # Versions of datasets name a single file in two ways, and find what another one has made.
        (plain,) = self._names(split, None)
        numbered = plain.with_stem(f"{plain.stem}-00000-of-00001")
        made = [link for link in (plain, numbered) if joined_file(link).exists()]
        return made or links

    def _names(self, split: str, lengths: list[int] | None) -> list[Path]:
        names = datasets.naming.filenames_for_dataset_split(
            self._output_dir, self.dataset_name, split, "arrow", lengths
        )
        return list(map(Path, names))

    def _as_dataset(self, split: Any = datasets.Split.TRAIN, in_memory: bool = False) -> Any:
        """Return rows of the shards, all or those of the view, with the columns joined to them."""
        if self._custom_features is not None:
            return super()._as_dataset(split, in_memory)
        fingerprint = self._get_dataset_fingerprint(split)
        parts = []
        for name, spans in spans_of(split, self._views):
            places = self._paths(name), self._links(name)
            view, info = self._views[name], self.info
            rows = read_view(view, *places, spans, info, split=split, in_memory=in_memory)
            parts.append(datasets.Dataset(**rows, fingerprint=fingerprint))
        return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


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
