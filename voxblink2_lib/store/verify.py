"""Check a store against its own records: all files, rows, decoded clips.

What can be checked is checked: without a ledger, shards are compared with the checksums beside
them; without an index, their rows are not compared with the annotations. A run may be at work
meanwhile: what seems wrong is compared with the ledger once more before it is reported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import StoreDamagedError, StoreError, VoxBlink2Error
from voxblink2_lib.foreign_files import as_own_error
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.speaker_index import speaker_problems
from voxblink2_lib.store.advice import repair_command
from voxblink2_lib.store.annotations import has_no_annotations
from voxblink2_lib.store.clip_format import read_clip_format, read_versions
from voxblink2_lib.store.file_checks import FileCheck, listed_checksum
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_checksums import checksum_problems, log_problems
from voxblink2_lib.store.shard_names import shard_order
from voxblink2_lib.store.shard_verification import ShardResult, ShardTask, Times, verify_shard
from voxblink2_lib.store.status import chosen_configurations, config_folders, open_ledger
from voxblink2_lib.store.tombstone_checks import tombstone_damage, unfinished_purge
from voxblink2_lib.store.verified_shards import VerifiedShards
from voxblink2_lib.workers.pool import WorkerPool

# A process more is started for so many bytes: starting takes as long as a second of hashing.
_BYTES_PER_WORKER = 1 << 30


# Has a shard on disk within a ``with`` block, and yields why that is not possible.
ShardFetch = Callable[[Path], contextlib.AbstractContextManager[str]]


@dataclass(slots=True)
class ConfigVerification:
    """What was checked of one configuration.

    Attributes:
        shards: number of shards that were hashed.
        verified_before: number of shards that an interrupted check had found right.
        rows: number of rows that were compared with the index.
        clips_decoded: number of clips that were decoded.
        problems: what is not as it should be.
        notes: what a run that is at work has not recorded yet.
        clip_format: format of the clips; ``None`` if the ledger cannot be read.
        made_with: versions of the decoders that made them, in the order of their use.
    """

    shards: int = 0
    verified_before: int = 0
    rows: int = 0
    clips_decoded: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    clip_format: int | None = None
    made_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """What :func:`verify_store` checked, and the problems it found.

    Attributes:
        store: the folder, or the URL.
        own_problems: of the ledger and the index, which all configurations share.
        configs: each configuration that was checked.
        advice: what mends the store; empty if nothing is damaged.
    """

    store: str
    own_problems: tuple[str, ...]
    configs: Mapping[str, ConfigVerification]
    advice: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """All problems."""
        inner = [problem for config in self.configs.values() for problem in config.problems]
        return (*self.own_problems, *inner)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``voxblink2 verify --json`` writes."""
        return {
            "store": self.store,
            "problems": self.problems,
            "advice": self.advice,
            "configs": {name: asdict(config) for name, config in self.configs.items()},
        }


def verify_store(
    store: Store,
    config: str | None = None,
    *,
    sample: int,
    seed: int = 0,
    workers: int = 1,
    resume: bool = False,
    fetch: ShardFetch | None = None,
    progress: Progress = no_progress,
) -> Verification:
    """Hash every file again, compare rows with index and ledger, decode some clips.

    Args:
        store: the store. Nothing in it is changed.
        config: a configuration; by default all that the store has.
        sample: how many clips of each shard to decode.
        seed: decides which.
        workers: the most processes to use; one means this process.
        resume: leave out the shards that the check before this one found right, if it was
            interrupted.
        fetch: has a shard on disk while it is checked, and yields why it cannot; then one at a
            time is checked, in this process. By default, all are there.
        progress: counts the bytes of the index, shards, parts and jobs.

    Raises:
        StoreError: there is no store, or nothing in it of that configuration.
    """
    problems = _ledger_problems(store)
    problems += filter(None, (tombstone_damage(store), unfinished_purge(store)))
    index, index_problems = _open_index(store, progress)
    index_problems += _speaker_problems(store, progress)
    verified = VerifiedShards(store.root, resume=resume)
    results = {}
    try:
        for name in _configs(store, config):
            with _opened(store, name) as ledger:
                check = _ConfigCheck(store, name, ledger, index, verified=verified, fetch=fetch)
                results[name] = check.run(sample, seed, workers, progress)
    except BaseException:
        verified.save()
        raise
    verified.forget()
    return _concluded(Verification(store.place, (*problems, *index_problems), results), store)


def _concluded(result: Verification, store: Store) -> Verification:
    """Add what to do about the problems, and that nothing was checked, which is one as well."""
    advice = f"Mend the store with {repair_command(store.root)}." if result.problems else ""
    nothing = f"Nothing to check: the store {result.store} has no sealed shard"
    for name, config in result.configs.items():
        if not (config.shards or config.verified_before or config.problems):
            config.problems.append(f"{nothing} of the configuration {name!r}.")
    own = result.own_problems or (f"{nothing}.",) * (not result.configs)
    return replace(result, own_problems=own, advice=advice)


# -- What all configurations share -----------------------------------------------------------------


def _configs(store: Store, named: str | None) -> Sequence[str]:
    try:
        return chosen_configurations(store, named)
    except StoreDamagedError:
        return [named] if named else config_folders(store)


def _ledger_problems(store: Store) -> list[str]:
    """Return what is wrong with the ledger.

    Raises:
        StoreError: there is no store.
    """
    problems = [*checksum_problems(store.ledger)]
    try:
        with open_ledger(store, "") as ledger:
            if problem := ledger.problem():
                problems.append(f"The ledger {store.ledger} is damaged: {problem}.")
    except StoreDamagedError as error:
        problems.append(str(error))
    except StoreError as error:
        if not (store.ledger.exists() or problems):
            raise
        problems.append(str(error))
    found = [*log_problems(store.ledger)]
    if found and store.run_began() is None:
        problems += found
    return problems


def _open_index(store: Store, progress: Progress) -> tuple[Index | None, list[str]]:
    """Return the index if it can be used, and what is wrong with it."""
    if not store.index.is_dir():
        if has_no_annotations(store):
            return None, []
        return None, [f"The store {store.root} has no index {store.index}."]
    try:
        with as_own_error(StoreDamagedError, f"The index {store.index} is damaged"):
            index = Index(store.index)
            problems = list(index.problems(progress))
    except StoreError as error:
        return None, [str(error)]
    return (None if problems else index), problems


def _speaker_problems(store: Store, progress: Progress) -> list[str]:
    """Return what is wrong with the transcripts and facts about speakers; rows do without them."""
    try:
        return list(speaker_problems(store.index, progress))
    except StoreError as error:
        return [str(error)]


@contextlib.contextmanager
def _opened(store: Store, config: str) -> Iterator[Ledger | None]:
    """Open the ledger if it can be read; what is wrong with it is reported elsewhere."""
    try:
        ledger = open_ledger(store, config)
    except StoreError:
        yield None
        return
    with ledger:
        yield ledger


# -- One configuration -----------------------------------------------------------------------------


class _ConfigCheck:
    def __init__(
        self,
        store: Store,
        config: str,
        ledger: Ledger | None,
        index: Index | None,
        *,
        verified: VerifiedShards,
        fetch: ShardFetch | None,
    ) -> None:
        self._store = store
        self._config = config
        self._ledger = ledger
        self._index = index
        self._verified = verified
        self._fetch = fetch
        self._result = ConfigVerification()

    def run(self, sample: int, seed: int, workers: int, progress: Progress) -> ConfigVerification:
        """Check all that the store has of the configuration."""
        result = self._result
        try:
            self._check_shards(sample, seed, workers, progress)
            if self._ledger is not None:
                result.clip_format = read_clip_format(self._store, self._ledger)
                result.made_with = read_versions(self._ledger)
            files = FileCheck(self._store, self._config, self._ledger, progress=progress)
            result.problems += files.problems()
            result.notes += files.notes
        except (StoreError, ValueError) as error:  # the ledger cannot be read to its end
            result.problems.append(f"The ledger {self._store.ledger} is damaged: {error}")
        return result

    def _check_shards(self, sample: int, seed: int, workers: int, progress: Progress) -> None:
        shards, result = self._shards(), self._result
        folder = self._store.shards(self._config)
        tasks = {
            shard: ShardTask(folder / shard.name, shard.sha256, sample=sample, seed=seed)
            for shard in shards
        }
        left = {shard: task for shard, task in tasks.items() if not self._verified.has(task)}
        result.verified_before = len(shards) - len(left)
        workers = min(
            workers,
            len(left),
            1 + sum(_size(task.path) for task in left.values()) // _BYTES_PER_WORKER,
        )
        complete = (self._complete(shard, task) for shard, task in left.items())
        problems: dict[str, list[str]] = {}
        with progress(
            f"Verifying {self._config}",
            unit="shard",
            total=len(shards),
            done=result.verified_before,
        ) as advance:
            for task, checked in _run(complete, workers, self._fetch):
                advance(1)
                self._take(task, checked)
                if checked.problems:
                    problems[task.path.name] = checked.problems
        result.problems += self._lasting(problems)

    def _take(self, task: ShardTask, checked: ShardResult) -> None:
        self._result.shards += 1
        self._result.rows += checked.rows
        self._result.clips_decoded += checked.decoded
        if not checked.problems:
            self._verified.add(task)

    def _shards(self) -> list[SealedShard]:
        """Return the shards in the ledger; without one, those on disk that have a checksum."""
        if self._ledger is not None:
            return self._ledger.shards()
        return [*_listed_shards(self._store.shards(self._config))]

    def _complete(self, shard: SealedShard, task: ShardTask) -> ShardTask:
        """Return a task with what ledger and index say of the shard."""
        if self._ledger is None:
            return task
        return replace(
            task,
            rows=shard.rows,
            annotated=self._annotated(shard.job),
            missing=self._missing(shard.job),
        )

    def _missing(self, job: int) -> frozenset[str]:
        """Return the names of utterances that the shard of a job need not have."""
        assert self._ledger is not None
        names = frozenset(self._ledger.statistics.missing_names(job))
        cut = self._ledger.cut
        stream = cut.stream()
        is_open = stream is not None and not stream.is_finished
        if stream is not None and is_open and job in cut.jobs(first=stream.first_job):
            # What the archive does not have is known at its end.
            return names.union(self._annotated(job) or ())
        split = frozenset(cut.split_videos())
        elsewhere = split & {key for key, _ in self._ledger.job_videos(job)} if split else split
        return names.union(self._names(elsewhere)) if elsewhere else names

    def _names(self, videos: frozenset[VideoKey]) -> set[str]:
        """Return the annotated utterances of videos."""
        if self._index is None:
            return set()
        pairs = self._index.utterances(videos)
        return {utterance.name for _, utterances in pairs for utterance in utterances}

    def _annotated(self, job: int) -> Times | None:
        """Return the utterances of the job's videos that are done, if the index can be read."""
        if self._ledger is None or self._index is None:
            return None
        done = frozenset(key for key, status in self._ledger.job_videos(job) if status == "done")
        return {
            utterance.name: utterance.seconds
            for _, utterances in self._index.utterances(done)
            for utterance in utterances
        }

    def _lasting(self, problems: Mapping[str, list[str]]) -> list[str]:
        """Return the problems of shards, in order, without those that a run has superseded."""
        names = set(problems)
        if problems and self._ledger is not None:
            names &= {shard.name for shard in self._ledger.shards()}
        return [problem for name in sorted(names, key=shard_order) for problem in problems[name]]


def _run(
    tasks: Iterator[ShardTask], workers: int, fetch: ShardFetch | None
) -> Iterator[tuple[ShardTask, ShardResult]]:
    """Yield shards with what was checked of them, as the results arrive."""
    if fetch is not None:
        for task in tasks:
            with fetch(task.path) as problem:
                yield task, ShardResult(problems=[problem]) if problem else verify_shard(task)
    elif workers <= 1:
        yield from ((task, verify_shard(task)) for task in tasks)
    else:
        yield from _run_in_processes(tasks, workers)


def _run_in_processes(
    tasks: Iterator[ShardTask], workers: int
) -> Iterator[tuple[ShardTask, ShardResult]]:
    calls = ((verify_shard, task) for task in tasks)
    with WorkerPool(workers) as pool:
        for (_, task), result in pool.run(calls.__next__):
            is_error = isinstance(result, VoxBlink2Error)  # what its process died of
            died = ShardResult(problems=[f"The shard {task.path}: {result}."])
            yield task, died if is_error else result


def _listed_shards(folder: Path) -> Iterator[SealedShard]:
    """Yield the shards of a folder with what the checksum files beside them say."""
    for path in sorted(folder.glob("*.arrow"), key=lambda path: shard_order(path.name)):
        if (sha256 := listed_checksum(path)) is not None:
            yield SealedShard(0, path.name, sha256, 0, _size(path))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
