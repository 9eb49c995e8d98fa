"""Check one shard against what the ledger and the index say of it, in whatever process."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import StoreDamagedError, StoreError
from voxblink2_lib.foreign_files import as_own_error
from voxblink2_lib.records import CUT_AUDIO, FRAMES_PER_SECOND, SAMPLE_RATE_HZ, UtteranceKey
from voxblink2_lib.store.checksums import checksum_problem
from voxblink2_lib.store.clip_length import samples_in
from voxblink2_lib.store.shard_check import check_features, open_shard, shard_batches
from voxblink2_lib.store.shards import shard_problem

# Start and end in seconds of each utterance, by its name; of cut audio they may be unknown.
Times = Mapping[str, tuple[float | None, float | None]]
_UNKNOWN = (None, None)


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard to check.

    Attributes:
        path: the shard.
        sha256: what was sealed.
        rows: number of its rows; ``None`` if no ledger has it.
        annotated: the utterances of its videos that are done; ``None`` if index or ledger cannot
            be read.
        missing: names of those that could not be cropped.
        sample: how many clips to decode.
        seed: decides which.
    """

    path: Path
    sha256: str
    rows: int | None = None
    annotated: Times | None = None
    missing: frozenset[str] = frozenset()
    sample: int = 0
    seed: int = 0


@dataclass(slots=True)
class ShardResult:
    """What was checked of a shard, and its problems."""

    rows: int = 0
    decoded: int = 0
    problems: list[str] = field(default_factory=list)


def verify_shard(task: ShardTask) -> ShardResult:
    """Hash a shard, compare its rows, decode some of its clips; no damage is an error here."""
    result = ShardResult()
    problems = [
        shard_problem(task.path, task.sha256),
        checksum_problem(task.path, task.sha256),
    ]
    result.problems += filter(None, problems)
    if not problems[0]:
        try:
            with as_own_error(StoreDamagedError, f"The shard {task.path} cannot be checked"):
                _check_rows(task, result)
        except StoreError as error:
            result.problems.append(str(error))
    return result


def _check_rows(task: ShardTask, result: ShardResult) -> None:
    path = task.path
    check_features(path)
    times: dict[str, tuple[float | None, float | None]] = {}
    for name, row in _sampled(task, times, result):
        result.decoded += 1
        result.problems += _audio_problems(path, name, row)
        if "video" in row:
            result.problems += _face_problems(path, name, row)
    result.rows = len(times)
    if task.annotated is not None:
        result.problems += _differences(path, times, task.annotated, task.missing)
    if task.rows not in {None, len(times)}:
        result.problems.append(f"{path} has {len(times)} rows, in the ledger it has {task.rows}.")


def _sampled(
    task: ShardTask, times: dict[str, tuple[float | None, float | None]], result: ShardResult
) -> list[tuple[str, dict[str, Any]]]:
    """Return some rows of a shard with their names; take note of the times of all."""
    chooser = random.Random(f"{task.seed} {task.path.name}")  # noqa: S311  # no secret
    sampled: list[tuple[str, dict[str, Any]]] = []
    for batch in shard_batches(open_shard(task.path)):
        for row in batch.to_pylist():
            name = UtteranceKey(*(row[field] for field in UtteranceKey._fields)).name
            if name in times:
                result.problems.append(f"{task.path}: {name} is stored twice.")
            times[name] = (row["start_seconds"], row["end_seconds"])
            # Reservoir sampling: each clip has the same chance, a few are in memory.
            is_filling = len(sampled) < task.sample
            place = len(sampled) if is_filling else chooser.randrange(len(times))
            if place < task.sample:
                sampled[place : place + 1] = [(name, row)]
    return sampled


def _audio_problems(path: Path, name: str, row: dict[str, Any]) -> Iterator[str]:
    import soundfile

    try:
        expected = _expected_samples(row)
        with soundfile.SoundFile(io.BytesIO(row["audio"]["bytes"])) as file:
            # Not more than is expected: a damaged header may ask for all memory.
            samples, rate = len(file.read(min(file.frames, expected))), file.samplerate
            samples += file.frames - min(file.frames, expected)
    except (soundfile.SoundFileError, StoreDamagedError) as error:
        yield f"{path}: the clip of {name} does not decode: {error}"
        return
    if rate != SAMPLE_RATE_HZ or samples != expected:
        yield (
            f"{path}: the clip of {name} has {samples} samples at {rate} Hz, "
            f"expected are {expected} at {SAMPLE_RATE_HZ} Hz."
        )


def _expected_samples(row: dict[str, Any]) -> int:
    if row["source"] == CUT_AUDIO:  # its times are those of the annotations, if there are any
        return samples_in(row["audio"]["bytes"])
    seconds: float = row["end_seconds"] - row["start_seconds"]
    return round(seconds * SAMPLE_RATE_HZ)


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
    path: Path, stored: Times, annotated: Times, missing: frozenset[str]
) -> Iterator[str]:
    """Yield how the rows of a shard differ from the annotations of its videos."""
    unknown = {name for name, times in stored.items() if times == _UNKNOWN}
    for name in sorted(stored.keys() - annotated.keys() - unknown):
        yield f"{path}: {name} is not in the index or not done in the ledger."
    for name in sorted(annotated.keys() - stored.keys() - missing):
        yield f"{path}: {name} is missing."
    for name in sorted(stored.keys() & annotated.keys()):
        if stored[name] != annotated[name]:
            times = f"times {stored[name]} in seconds, in the index {annotated[name]}"
            yield f"{path}: {name} has {times}."
