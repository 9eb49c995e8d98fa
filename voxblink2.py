"""VoxBlink2 as a Hugging Face dataset.

    import voxblink2                      # registers the builder with datasets >= 4
    from datasets import load_dataset

    ds = load_dataset("voxblink2", "audio", data_dir=RELEASE, source=SOURCE, store=STORE)
    ds = load_dataset("voxblink2", "audio-visual", ...)  # with the speakers' faces

The first load brings the media, cuts them and seals Arrow shards in the store; every load links
those shards into the ``datasets`` cache. With datasets 3.6 this file runs as a script:
``load_dataset("voxblink2.py", "audio", trust_remote_code=True, ...)``.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pyarrow as pa

from voxblink2_lib import __version__
from voxblink2_lib.errors import SelectionError, StoreError
from voxblink2_lib.files import link_file
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import find_store, materialize
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import SealedShard
from voxblink2_lib.release.location import RELEASE_VARIABLE
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources.options import FetchOptions
from voxblink2_lib.store.layout import Store, named_store
from voxblink2_lib.store.schema import FEATURES
from voxblink2_lib.store.shards import read_batches
from voxblink2_lib.store.status import empty_store_message, open_ledger

# Options that need a release to mean anything.
_IDS = ("speakers", "videos", "exclude")
_CLIPS = ClipOptions.names("audio-visual")
_CHOICES = (*_IDS, "max_speakers", "max_videos_per_speaker", *_CLIPS)
# Videos that no one needs to be told of.
_NOT_ABSENT = ("done", "planned", "excluded")

_log = logging.getLogger("voxblink2_lib")

_CITATION = """\
@inproceedings{lin24voxblink2,
  title = {VoxBlink2: A 100K+ Speaker Recognition Corpus and the Open-Set Speaker-Identification
           Benchmark},
  author = {Lin, Yuke and Cheng, Ming and Zhang, Fulin and Gao, Yingying and Zhang, Shilei and
            Li, Ming},
  booktitle = {Interspeech},
  year = {2024}
}
"""


@dataclass
class VoxBlink2Config(datasets.BuilderConfig):  # type: ignore[misc]  # no type hints there
    """Options of ``load_dataset("voxblink2", ...)``.

    Attributes:
        source: ``"youtube"``, an address with ``{video_id}``, or a folder of media named
            ``<speaker>/<video>.<ext>``. Default: YouTube.
        store: folder that keeps index, ledger and shards. Default: one for this release under
            ``VOXBLINK2_HOME`` or the user's cache folder.
        audio_format: ``"flac"``, ``"wav"`` or ``"opus"``. Default: what the store holds, and
            FLAC for a new one.
        video_size: width and height of the faces in pixels; default 112. This and the next
            three are for ``audio-visual``; a store keeps what it began with.
        video_margin: what to add around a box, as a part of its size on each side; default 0.
        video_shape: ``"square"`` (default) or ``"stretched"``.
        video_crf: x264's quality, 0 to 51; default 20.
        speakers: ids, or a file of ids; only these speakers.
        videos: ids, or a file of ids; only these videos.
        exclude: ids, or a file of ids, of speakers and videos to leave out.
        max_speakers: the first so many speakers.
        max_videos_per_speaker: the first so many videos of each.
        proxy, cookies, cookies_from_browser, budget, sleep, limit_rate, extractor_args, yt_dlp,
            fetches, reasons: how media are fetched, see
            :class:`voxblink2_lib.sources.options.FetchOptions`.
    """

    source: str | None = None
    store: str | None = None
    audio_format: str | None = None
    video_size: int | None = None
    video_margin: float | None = None
    video_shape: str | None = None
    video_crf: int | None = None
    speakers: str | list[str] | None = None
    videos: str | list[str] | None = None
    exclude: str | list[str] | None = None
    max_speakers: int | None = None
    max_videos_per_speaker: int | None = None
    proxy: str | list[str] | None = None
    cookies: str | list[str] | None = None
    cookies_from_browser: str | None = None
    budget: float | None = None
    sleep: float | None = None
    limit_rate: str | None = None
    extractor_args: str | list[str] | None = None
    yt_dlp: str | None = None
    fetches: int | None = None
    reasons: str | None = None

    def request(self, *, workers: int | None = None) -> MaterializeRequest:
        """Return these options as the library takes them."""
        for name in _IDS:
            ids = getattr(self, name)
            if ids is not None and not isinstance(ids, (str, os.PathLike)):
                setattr(self, name, list(ids))  # options are read more than once
        return MaterializeRequest(
            config=self.name,
            data_dir=None if self.data_dir is None else os.fspath(self.data_dir),
            source=None if self.source is None else os.fspath(self.source),
            store=None if self.store is None else os.fspath(self.store),
            **{name: getattr(self, name) for name in _CLIPS},
            selection=Selection.of(
                speakers=self.speakers,
                videos=self.videos,
                exclude=self.exclude,
                max_speakers=self.max_speakers,
                max_videos_per_speaker=self.max_videos_per_speaker,
            ),
            workers=workers,
            fetch=FetchOptions.of(**{name: getattr(self, name) for name in FetchOptions.names()}),
        )

    def create_config_id(
        self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None
    ) -> str:
        """Name the cache folder after what the store holds, so that a grown store is seen."""
        del config_kwargs
        digest = hashlib.sha256(repr(custom_features).encode())
        self._shards = sealed_shards(self.find_store(), self.name)
        for shard in self._shards:
            digest.update(f"{shard.name} {shard.sha256}\n".encode())
        return f"{self.name}-{digest.hexdigest()[:16]}"

    @property
    def named_shards(self) -> list[SealedShard]:
        """The shards that :meth:`create_config_id` saw last."""
        return self._shards

    def names_only_a_store(self) -> bool:
        """Say whether a store that is there was named and no release: then it is taken as it is."""
        if self.data_dir or os.environ.get(RELEASE_VARIABLE) or not self.store:
            return False
        if not named_store(self.store).ledger.exists():
            return False
        chosen = [name for name in _CHOICES if getattr(self, name) is not None]
        if chosen:
            raise SelectionError(
                f"The store {self.store} is taken as it is, since no release is named; "
                f"{', '.join(chosen)} would change nothing. Name the release with data_dir=..., "
                "or leave that out and filter the dataset."
            )
        return True

    def find_store(self) -> Store:
        """Return the store."""
        if self.store is not None:
            return named_store(self.store)
        return find_store(self.request())[1]


def sealed_shards(store: Store, config: str) -> list[SealedShard]:
    """Return the sealed shards of a store; none if there is no store yet."""
    if not store.ledger.exists():
        return []
    with open_ledger(store, config) as ledger:
        return ledger.shards()


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
            description="The same, and the speaker's face as video at 25 pictures a second.",
        ),
    ]
    DEFAULT_CONFIG_NAME = "audio"

    config: VoxBlink2Config
    config_id: str

    def __init__(self, *args: Any, features: datasets.Features | None = None, **kwargs: Any):
        self._custom_features = features
        super().__init__(*args, features=features, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="VoxBlink2: utterances of 111,284 speakers, cut from videos.",
            features=FEATURES[self.config.name],
            homepage="https://VoxBlink2.github.io",
            license="Annotations: CC BY-NC-SA 4.0. Media: their owners'.",
            citation=_CITATION,
        )

    def download_and_prepare(self, *args: Any, num_proc: int | None = None, **kwargs: Any) -> None:
        """Bring what the store lacks, then link its shards into the cache."""
        self._bring(workers=num_proc)
        super().download_and_prepare(*args, num_proc=num_proc, **kwargs)

    def as_streaming_dataset(self, *args: Any, **kwargs: Any) -> Any:
        """Bring what the store lacks, then read its shards where they are."""
        self._bring(workers=None)
        return super().as_streaming_dataset(*args, **kwargs)

    def _bring(self, *, workers: int | None) -> None:
        if self.config.names_only_a_store():
            return
        before = self.config_id
        request = self.config.request(workers=workers)
        store = materialize(request, retry=False, wait=True)
        self.config_id = self.config.create_config_id({}, self._custom_features)
        if self.config_id == before:
            return
        self._cache_dir = self._output_dir = self._build_cache_dir()
        self.info.splits = None
        self.info.download_size = self.info.dataset_size = self.info.size_in_bytes = None
        with open_ledger(store, self.config.name) as ledger:
            counts = ledger.statistics.videos()
        absent = sum(counts.values()) - sum(counts.get(one, 0) for one in _NOT_ABSENT)
        if absent:
            _log.warning(
                "%d videos did not come. 'voxblink2 status --store %s --missing' lists them with "
                "the reasons; 'voxblink2 materialize' asks again where that may help.",
                absent,
                shlex.quote(str(store.root)),
            )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        del dl_manager
        store = self.config.find_store()
        # The very shards that the cache folder is named after: the store may have grown since.
        shards = self.config.named_shards
        if not shards:
            raise StoreError(empty_store_message(store, self.config.name))
        folder = store.shards(self.config.name)
        self._rows = {str(folder / shard.name): shard.rows for shard in shards}
        split = datasets.SplitGenerator(
            name=datasets.Split.TRAIN, gen_kwargs={"shards": list(self._rows)}
        )
        return [split]

    def _generate_tables(self, shards: Iterable[str]) -> Iterator[tuple[Any, pa.Table]]:
        for number, shard in enumerate(shards):
            for batch_number, batch in enumerate(read_batches(Path(shard))):
                yield _key(number, batch_number), pa.Table.from_batches([batch])

    def _prepare_split(
        self, split_generator: datasets.SplitGenerator, file_format: str = "arrow", **kwargs: Any
    ) -> None:
        """Link sealed shards into the cache: they already are what ``datasets`` reads."""
        if (
            file_format != "arrow"
            or self._custom_features is not None  # then columns must be written anew
            or datasets.filesystems.is_remote_filesystem(self._fs)
        ):
            kwargs.pop("num_proc", None)
            super()._prepare_split(split_generator, file_format=file_format, **kwargs)
            return
        shards = [Path(shard) for shard in split_generator.gen_kwargs["shards"]]
        info = split_generator.split_info
        info.shard_lengths = [self._rows[str(shard)] for shard in shards]
        info.num_examples = sum(info.shard_lengths)
        info.num_bytes = sum(shard.stat().st_size for shard in shards)
        names = datasets.naming.filenames_for_dataset_split(
            self._output_dir, self.dataset_name, info.name, "arrow", info.shard_lengths
        )
        for shard, name in zip(shards, names, strict=True):
            Path(name).unlink(missing_ok=True)  # a killed load may have left its links
            link_file(shard, Path(name))


def _key(shard: int, batch: int) -> Any:
    # datasets 5 wants its own key, datasets 3 any text.
    key = getattr(datasets.builder, "Key", None)
    return key(shard, batch) if key else f"{shard}_{batch}"


def _register() -> None:
    """Teach ``datasets`` >= 4, which runs no scripts, where this builder is."""

    def taught(original: Any) -> Any:
        @functools.wraps(original)
        def factory(path: str, *args: Any, **kwargs: Any) -> Any:
            if path == "voxblink2":
                code = hashlib.sha256(__version__.encode()).hexdigest()[:16]
                return datasets.load.DatasetModule("voxblink2", code, {})
            return original(path, *args, **kwargs)

        return factory

    for module in (datasets.load, datasets.inspect):
        module.dataset_module_factory = taught(module.dataset_module_factory)


# As a script of datasets 3.6 the module has another name, and datasets knows where it is.
if __name__ == "voxblink2":
    _register()
