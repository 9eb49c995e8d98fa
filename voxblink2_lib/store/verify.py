"""Check a store against its own records: hashes, rows, decoded clips."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import StoreError, next_command
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import (
    FRAMES_PER_SECOND,
    SAMPLE_RATE_HZ,
    SealedShard,
    Utterance,
    UtteranceKey,
    VideoKey,
)
from voxblink2_lib.release.index import Index
from voxblink2_lib.store.clip_format import read_clip_format, read_versions
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.shard_check import check_features, open_shard, shard_batches
from voxblink2_lib.store.shards import check_shard
from voxblink2_lib.store.status import open_ledger

# Start and end in seconds of each utterance, by its name.
_Times = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Verification:
    """What :func:`verify_store` checked, and the problems it found.

    Attributes:
        shards: number of shards that were hashed.
        rows: number of rows that were compared with the index.
        clips_decoded: number of clips that were decoded.
        problems: what is not as it should be.
        clip_format: format of the clips.
        made_with: versions of the decoders that made them, in the order of their use.
    """

    shards: int
    rows: int
    clips_decoded: int
    problems: tuple[str, ...]
    clip_format: int
    made_with: tuple[str, ...]


def verify_store(
    store: Store,
    config: str,
    *,
    sample: int,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Verification:
    """Hash every shard again, compare rows with index and ledger, decode some clips.

    Args:
        store: the store.
        config: the configuration.
        sample: how many clips of each shard to decode.
        seed: decides which.
        progress: counts shards.

    Raises:
        StoreError: there is no store, or it has no index.
    """
    with open_ledger(store, config) as ledger:
        if not (store.index / "index.json").exists():
            raise StoreError(
                f"The store {store.root} has no index; run "
                f"{next_command('index', store=store.root)} to make it."
            )
        chooser = random.Random(seed)  # noqa: S311  # a sample, not a secret
        checker = _Checker(store.shards(config), Index(store.index), ledger, sample, chooser)
        shards = ledger.shards()
        with progress("Verifying", unit="shard", total=len(shards)) as advance:
            for shard in shards:
                checker.check(shard)
                advance(1)
        checker.check_unknown_files({shard.name for shard in shards})
        clip_format = read_clip_format(store, ledger)
        return checker.result(clip_format, read_versions(ledger))


class _Checker:
    def __init__(
        self, folder: Path, index: Index, ledger: Ledger, sample: int, chooser: random.Random
    ) -> None:
        self._folder = folder
        self._index = index
        self._ledger = ledger
        self._sample = sample
        self._chooser = chooser
        self._shards = self._rows = self._decoded = 0
        self._problems: list[str] = []

    def result(self, clip_format: int, made_with: tuple[str, ...]) -> Verification:
        counts = (self._shards, self._rows, self._decoded)
        return Verification(*counts, tuple(self._problems), clip_format, made_with)

    def check(self, shard: SealedShard) -> None:
        self._shards += 1
        path = self._folder / shard.name
        try:
            check_shard(self._folder, shard)
            check_features(path)
            stored = self._check_rows(path)
        except StoreError as error:
            self._problems.append(str(error))
            return
        self._problems += _differences(
            path,
            stored,
            self._annotated(shard.job),
            self._ledger.statistics.missing_names(shard.job),
        )
        if len(stored) != shard.rows:
            self._problems.append(
                f"{path} has {len(stored)} rows, in the ledger it has {shard.rows}."
            )

    def _annotated(self, job: int) -> dict[str, Utterance]:
        """Return the utterances of the job's videos that are done, by name."""
        videos: Iterable[tuple[VideoKey, str]] = self._ledger.job_videos(job)
        done = frozenset(key for key, status in videos if status == "done")
        return {
            utterance.name: utterance
            for _, utterances in self._index.utterances(done)
            for utterance in utterances
        }

    def _check_rows(self, path: Path) -> _Times:
        times: dict[str, tuple[float, float]] = {}
        sampled: list[tuple[str, dict[str, Any]]] = []
        for batch in shard_batches(open_shard(path)):
            for row in batch.to_pylist():
                name = UtteranceKey(*(row[field] for field in UtteranceKey._fields)).name
                if name in times:
                    self._problems.append(f"{path}: {name} is stored twice.")
                times[name] = (row["start_seconds"], row["end_seconds"])
                # Reservoir sampling: each clip has the same chance, a few are in memory.
                is_filling = len(sampled) < self._sample
                place = len(sampled) if is_filling else self._chooser.randrange(len(times))
                if place < self._sample:
                    sampled[place : place + 1] = [(name, row)]
        self._rows += len(times)
        for name, row in sampled:
            self._decoded += 1
            self._problems += _audio_problems(path, name, row)
            if "video" in row:
                self._problems += _face_problems(path, name, row)
        return times

    def check_unknown_files(self, names: set[str]) -> None:
        """Report shards that are not in the ledger."""
        for path in sorted(self._folder.glob("*.arrow")):
            if path.name not in names:
                next_run = next_command(
                    "materialize", store=self._folder.parents[1], config=self._ledger.config
                )
                self._problems.append(
                    f"{path} is in the folder and not in the ledger. If a run was stopped just "
                    f"now, {next_run} repairs this; otherwise it is a foreign file."
                )


def _audio_problems(path: Path, name: str, row: dict[str, Any]) -> Iterator[str]:
    import soundfile

    expected = round((row["end_seconds"] - row["start_seconds"]) * SAMPLE_RATE_HZ)
    try:
        with soundfile.SoundFile(io.BytesIO(row["audio"]["bytes"])) as file:
            # Not more than is expected: a damaged header may ask for all memory.
            samples, rate = len(file.read(min(file.frames, expected))), file.samplerate
            samples += file.frames - min(file.frames, expected)
    except soundfile.SoundFileError as error:
        yield f"{path}: the clip of {name} does not decode: {error}"
        return
    if rate != SAMPLE_RATE_HZ or samples != expected:
        yield (
            f"{path}: the clip of {name} has {samples} samples at {rate} Hz, "
            f"expected are {expected} at {SAMPLE_RATE_HZ} Hz."
        )


def _face_problems(path: Path, name: str, row: dict[str, Any]) -> Iterator[str]:
    import av

    try:
        with av.open(io.BytesIO(row["video"]["bytes"]), "r") as container:
            frames = sum(1 for _ in container.decode(video=0))
    except (av.error.FFmpegError, IndexError) as error:  # IndexError: no video stream
        yield f"{path}: the face of {name} does not decode: {error}"
        return
    expected = round((row["end_seconds"] - row["start_seconds"]) * FRAMES_PER_SECOND)
    if not frames == len(row["boxes"]) == expected:
        yield (
            f"{path}: the face of {name} has {frames} frames and {len(row['boxes'])} boxes, "
            f"expected are {expected} of each."
        )


def _differences(
    path: Path, stored: _Times, annotated: Mapping[str, Utterance], missing: set[str]
) -> Iterator[str]:
    """Yield how the rows of a shard differ from the annotations of its videos."""
    for name in sorted(stored.keys() - annotated.keys()):
        yield f"{path}: {name} is not in the index or not done in the ledger."
    for name in sorted(annotated.keys() - stored.keys() - missing):
        yield f"{path}: {name} is missing."
    for name in sorted(stored.keys() & annotated.keys()):
        expected = annotated[name].seconds
        if stored[name] != expected:
            yield f"{path}: {name} has times {stored[name]} in seconds, in the index {expected}."
