"""The shards of a store that have something of what was purged, and those that take their place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from voxblink2_lib.errors import StoreError
from voxblink2_lib.progress import Progress
from voxblink2_lib.published.scratch import last_manifest, published_catalogue
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.arrow_stream import open_stream
from voxblink2_lib.store.catalogue import Catalogue
from voxblink2_lib.store.checksums import checksum_file
from voxblink2_lib.store.clip_length import samples_in
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_purge import ClipsLost
from voxblink2_lib.store.purged_rows import has_purged_rows
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.store.shards import check_shard, read_batches, seal_shard


@dataclass(slots=True)
class ConcernedShard:
    """A sealed shard that has rows of what was purged.

    Attributes:
        config: the configuration.
        shard: its entry in the ledger.
        lost: numbers of those rows and of their samples, by the video.
    """

    config: str
    shard: SealedShard
    lost: dict[VideoKey, tuple[int, int]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many of its rows are purged."""
        return sum(rows for rows, _ in self.lost.values())


def concerned_shards(
    store: Store, configs: Iterable[str], tombstones: Tombstones, progress: Progress
) -> list[ConcernedShard]:
    """Return the sealed shards that have something of what was purged; each of them is whole.

    Raises:
        StoreDamagedError: such a shard is damaged; nobody should copy damaged rows.
        StoreError: such a shard is not in this scratch store, only at its URL.
    """
    shards = []
    for config in configs:
        elsewhere = shards_elsewhere(store, config, tombstones, progress=progress)
        _refuse_concerned(store, [name for name, is_clean in elsewhere.items() if not is_clean])
        with Ledger(store.ledger, config, readonly=True) as ledger:
            present = [shard for shard in ledger.shards() if shard.name not in elsewhere]
        shards += [ConcernedShard(config, shard) for shard in present]
    with progress("Looking through shards", unit="shard", total=len(shards)) as advance:
        for each in shards:
            folder = store.shards(each.config)
            for key, rows, samples in _lost_rows(folder / each.shard.name, tombstones):
                before = each.lost.get(key, (0, 0))
                each.lost[key] = (before[0] + rows, before[1] + samples)
            if each.lost:
                check_shard(folder, each.shard)
            advance(1)
    return [each for each in shards if each.lost]


def _refuse_concerned(store: Store, names: list[str]) -> None:
    if names:
        raise StoreError(
            f"{len(names):,} shards that are to be rewritten, such as {names[0]}, are not in the "
            f"scratch store {store.root}, only at the URL that it is published at. Nothing was "
            "changed: name that URL with --store."
        )


def shards_elsewhere(
    store: Store, config: str, tombstones: Tombstones, *, progress: Progress
) -> dict[str, bool]:
    """Return the shards that are not in a scratch store, or a copy, but only at its URL.

    Returns:
        Their names; and whether it is certain, by the catalogue, that they have nothing of what was
        purged.
    """
    last, folder = last_manifest(store), store.shards(config)
    published = last.shards(config) if last else {}
    with Ledger(store.ledger, config, readonly=True) as ledger:
        absent = {
            shard.name: shard
            for shard in ledger.shards()
            if shard.name in published
            and published[shard.name].sha256 == shard.sha256
            and not (folder / shard.name).exists()
        }
    is_clean = dict.fromkeys(absent, False)
    path = published_catalogue(store, config)
    if not (absent and path.exists()):
        return is_clean
    with progress("Looking through the catalogue", unit="shard", total=len(absent)) as advance:
        for (name, size_bytes), rows in Catalogue.read(path).tables():
            if name in absent and absent[name].size_bytes == size_bytes:
                ids = rows.set_column(0, "speaker_id", rows["speaker_id"].cast(pa.string()))
                is_clean[name] = not tombstones.purged(ids).any()
                advance(1)
    return is_clean


def _lost_rows(path: Path, tombstones: Tombstones) -> Iterator[tuple[VideoKey, int, int]]:
    for batch in read_batches(path):
        is_purged = tombstones.purged(batch)
        if is_purged.any():
            rows = batch.filter(pa.array(is_purged))
            keys = zip(rows["speaker_id"].to_pylist(), rows["video_id"].to_pylist(), strict=True)
            for key, clip in zip(keys, rows["audio"], strict=True):
                yield VideoKey(*key), 1, samples_in(clip["bytes"].as_buffer().to_pybytes())


def write_rest(
    store: Store, concerned: Iterable[ConcernedShard], tombstones: Tombstones, progress: Progress
) -> list[tuple[ConcernedShard, SealedShard]]:
    """Write the rows of shards that are left into shards of the next numbers.

    The ledger does not name them yet: a kill leaves files that the next purge writes again.
    """
    concerned = list(concerned)
    numbers: dict[str, int] = {}
    steps: dict[str, int] = {}
    written = []
    with progress("Rewriting shards", unit="shard", total=len(concerned)) as advance:
        for each in concerned:
            config, folder = each.config, store.shards(each.config)
            if config not in numbers:
                with Ledger(store.ledger, config, readonly=True) as ledger:
                    numbers[config] = ledger.recovered.next_number()
                    steps[config] = ledger.recovered.step()
            path, number = folder / each.shard.name, numbers[config]
            target = folder / shard_name(config, number)
            schema = open_stream(path).schema
            rest = seal_shard(number, [path], target, schema, keep=tombstones.without)
            numbers[config] += steps[config] * bool(rest.name)
            written.append((each, rest))
            advance(1)
    return written


def clips_lost(
    concerned: Iterable[ConcernedShard], tombstones: Tombstones, index: Index | None
) -> Mapping[str, Mapping[VideoKey, ClipsLost]]:
    """Return what videos have lost of which something is left, by configuration.

    Args:
        concerned: the shards.
        tombstones: what was purged.
        index: the index without that; ``None`` if there is none.
    """
    counts: dict[str, dict[VideoKey, tuple[int, int]]] = defaultdict(dict)
    for each in concerned:
        for key, (rows, samples) in each.lost.items():
            if not tombstones.covers(*key):
                before = counts[each.config].get(key, (0, 0))
                counts[each.config][key] = (before[0] + rows, before[1] + samples)
    keys = frozenset(key for videos in counts.values() for key in videos)
    digests = {video.key: video.digest for video in index.annotated(keys)} if index else {}
    return {
        config: {key: ClipsLost(*count, digests.get(key)) for key, count in videos.items()}
        for config, videos in counts.items()
    }


def remove_strangers(store: Store, config: str, tombstones: Tombstones) -> Iterator[Path]:
    """Remove shards that the ledger does not name and that have something of what was purged.

    So do those that a rewritten one has taken the place of. What cannot be read may have anything.
    """
    with Ledger(store.ledger, config, readonly=True) as ledger:
        sealed = {shard.name for shard in ledger.shards()}
    for path in sorted(store.shards(config).glob("*.arrow")):
        if path.name in sealed:
            continue
        try:
            is_removed = has_purged_rows(path, tombstones)
        except StoreError:
            is_removed = True
        if is_removed:
            checksum_file(path).unlink(missing_ok=True)
            path.unlink()
            yield path
