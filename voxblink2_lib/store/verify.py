"""Check a store against its own records: hashes, rows, decoded clips."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import StoreDamagedError, StoreError
from voxblink2_lib.progress import Advance
from voxblink2_lib.records import FRAMES_PER_SECOND, SAMPLE_RATE_HZ, SealedShard, Utterance
from voxblink2_lib.release.index import Index
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.shards import check_shard, read_batches
from voxblink2_lib.store.status import open_ledger


@dataclass(frozen=True, slots=True)
class Verification:
    """What :func:`verify_store` looked at, and the problems it found."""

    shards: int
    rows: int
    clips_decoded: int
    problems: tuple[str, ...]


def verify_store(
    store: Store,
    config: str,
    *,
    sample: int,
    seed: int = 0,
    progress: Advance = lambda _: None,
) -> Verification:
    """Hash every shard again, compare rows with index and ledger, decode some clips.

    Args:
        store: the store.
        config: the configuration.
        sample: how many clips of each shard to decode.
        seed: decides which.
        progress: called after each shard.

    Raises:
        StoreError: there is no store, or it has no index.
    """
    with open_ledger(store, config) as ledger:
        if not (store.index / "index.json").exists():
            raise StoreError(
                f"The store {store.root} has no index; run 'voxblink2 index' to make it."
            )
        chooser = random.Random(seed)  # noqa: S311  # a sample, not a secret
        checker = _Checker(store.shards(config), Index(store.index))
        shards = ledger.shards()
        for shard in shards:
            checker.check(ledger, shard, sample, chooser)
            progress(1)
        checker.check_strangers({shard.name for shard in shards})
    return checker.result()


class _Checker:
    def __init__(self, folder: Path, index: Index) -> None:
        self._folder = folder
        self._index = index
        self._shards = self._rows = self._decoded = 0
        self._problems: list[str] = []

    def result(self) -> Verification:
        return Verification(self._shards, self._rows, self._decoded, tuple(self._problems))

    def check(
        self, ledger: Ledger, shard: SealedShard, sample: int, chooser: random.Random
    ) -> None:
        self._shards += 1
        try:
            check_shard(self._folder, shard)
        except StoreDamagedError as error:
            self._problems.append(str(error))
            return
        path = self._folder / shard.name
        found = self._check_rows(path, sample, chooser)
        videos = ledger.job_videos(shard.job)
        done = {key for key, status in videos if status == "done"}
        wanted: dict[str, Utterance] = {}
        for _, utterances in self._index.utterances(frozenset(done)):
            wanted.update((one.name, one) for one in utterances)
        missing = ledger.missing_names(shard.job)
        self._compare(path, found, wanted, missing)
        if len(found) != shard.rows:
            self._problems.append(f"{path} has {len(found)} rows, the ledger says {shard.rows}.")

    def _check_rows(
        self, path: Path, sample: int, chooser: random.Random
    ) -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[float, float]] = {}
        sampled: list[tuple[str, dict[str, Any]]] = []
        for batch in read_batches(path):
            for row in batch.to_pylist():
                name = f"{row['speaker_id']}/{row['video_id']}/{row['utterance_id']}"
                if name in found:
                    self._problems.append(f"{path}: {name} is there twice.")
                found[name] = (row["start_seconds"], row["end_seconds"])
                # Reservoir sampling: each clip has the same chance, a few are in memory.
                place = len(sampled) if len(sampled) < sample else chooser.randrange(len(found))
                if place < sample:
                    sampled[place : place + 1] = [(name, row)]
        self._rows += len(found)
        for name, row in sampled:
            self._decoded += 1
            self._check_sound(path, name, row)
            if "video" in row:
                self._check_face(path, name, row)
        return found

    def _check_sound(self, path: Path, name: str, row: dict[str, Any]) -> None:
        import soundfile

        try:
            samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        except soundfile.SoundFileError as error:
            self._problems.append(f"{path}: the clip of {name} does not decode: {error}")
            return
        expected = round((row["end_seconds"] - row["start_seconds"]) * SAMPLE_RATE_HZ)
        if rate != SAMPLE_RATE_HZ or len(samples) != expected:
            self._problems.append(
                f"{path}: the clip of {name} has {len(samples)} samples at {rate} Hz, "
                f"expected are {expected} at {SAMPLE_RATE_HZ} Hz."
            )

    def _check_face(self, path: Path, name: str, row: dict[str, Any]) -> None:
        import av

        try:
            with av.open(io.BytesIO(row["video"]["bytes"]), "r") as container:
                pictures = sum(1 for _ in container.decode(video=0))
        except (av.error.FFmpegError, IndexError) as error:  # IndexError: no video stream
            self._problems.append(f"{path}: the face of {name} does not decode: {error}")
            return
        expected = round((row["end_seconds"] - row["start_seconds"]) * FRAMES_PER_SECOND)
        if not pictures == len(row["boxes"]) == expected:
            self._problems.append(
                f"{path}: the face of {name} has {pictures} pictures and {len(row['boxes'])} "
                f"boxes, expected are {expected} of each."
            )

    def _compare(
        self,
        path: Path,
        found: dict[str, tuple[float, float]],
        wanted: dict[str, Utterance],
        missing: set[str],
    ) -> None:
        for name in sorted(found.keys() - wanted.keys()):
            self._problems.append(f"{path}: {name} is not in the index or not done in the ledger.")
        for name in sorted(wanted.keys() - found.keys() - missing):
            self._problems.append(f"{path}: {name} should be there and is not.")
        for name in sorted(found.keys() & wanted.keys()):
            if found[name] != wanted[name].seconds:
                self._problems.append(
                    f"{path}: {name} says {found[name]} seconds, the index {wanted[name].seconds}."
                )

    def check_strangers(self, known: set[str]) -> None:
        """Report shards that no ledger row speaks of."""
        for path in sorted(self._folder.glob("*.arrow")):
            if path.name not in known:
                self._problems.append(
                    f"{path} is in the folder and not in the ledger. If a run was stopped just "
                    "now, 'voxblink2 materialize' settles it; otherwise it is not ours."
                )
