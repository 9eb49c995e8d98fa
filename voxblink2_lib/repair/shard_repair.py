"""Damaged shards: what is whole in them is kept, and their jobs are opened again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from voxblink2_lib.cores import usable_cores
from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.outcomes import MediaFacts, Outcome
from voxblink2_lib.progress import Progress
from voxblink2_lib.records import SealedShard, Utterance, VideoKey
from voxblink2_lib.release.index import Index
from voxblink2_lib.repair.proof import Proof
from voxblink2_lib.repair.workbench import Workbench
from voxblink2_lib.store.arrow_salvage import salvaged_batches
from voxblink2_lib.store.checksums import checksum_file, checksum_problem, write_checksum
from voxblink2_lib.store.clip_format import CLIP_FORMAT, read_clip_format
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.outcome_files import outcomes_path, read_outcomes
from voxblink2_lib.store.reopened import FormerShard
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import shard_problem, write_part


class ShardRepair:
    """Mends the shards of one configuration.

    Args:
        bench: the store.
        ledger: its ledger, which is right.
        index: its index; ``None`` if it is lost.
    """

    def __init__(self, bench: Workbench, ledger: Ledger, index: Index | None) -> None:
        self._bench = bench
        self._ledger = ledger
        self._index = index
        self._config = ledger.config
        self._folder = bench.store.shards(ledger.config)

    def mend(self, progress: Progress) -> list[int]:
        """Compare all shards with their checksums.

        Returns:
            The jobs that are open again, as their shards are damaged.
        """
        reopened = []
        shards = self._ledger.shards()
        with progress(f"Checking {self._config}", unit="shard", total=len(shards)) as advance:
            for shard, problem in self._problems(shards):
                if not problem:
                    self._mend_checksum(shard)
                elif self._reopen(shard, problem):
                    reopened.append(shard.job)
                advance(1)
        return reopened

    def _problems(self, shards: Sequence[SealedShard]) -> Iterator[tuple[SealedShard, str]]:
        with ThreadPoolExecutor(usable_cores()) as threads:
            yield from zip(shards, threads.map(self._problem, shards), strict=True)

    def _problem(self, shard: SealedShard) -> str:
        return shard_problem(self._folder / shard.name, shard.sha256)

    def _mend_checksum(self, shard: SealedShard) -> None:
        path = self._folder / shard.name
        if problem := checksum_problem(path, shard.sha256):
            self._bench.mend(
                "checksum",
                checksum_file(path),
                f"{problem} Its shard is whole; written again",
                lambda: write_checksum(path, shard.sha256),
            )

    def _reopen(self, shard: SealedShard, problem: str) -> bool:
        path, store = self._folder / shard.name, self._bench.store
        if (number := read_clip_format(store, self._ledger)) != CLIP_FORMAT:
            self._bench.problems.append(
                f"{problem} Its clips are of format {number}, which "
                "this version cannot make: put the shard back from a copy, or mend the store with "
                "the version of voxblink2 that made it."
            )
            return False
        outcomes = done_outcomes(self._ledger, shard.job)
        proof = self._proof(shard.job, outcomes)
        if proof is None:
            self._bench.problems.append(
                f"{problem} Without the index, nothing in it can be compared with the annotations."
            )
            return False
        salvage = Salvage(path, arrow_schema(self._config), proof)
        kept = [key for key in salvage.whole_videos() if key in outcomes]
        order = _order(proof, kept, outcomes)
        expected = proof.expected
        hurt = {
            key: tuple(name.split("/")[-1] for name in sorted(expected.get(key, ())))
            for key in order
            if key not in set(kept)
        }
        if not self._bench.is_dry:
            for key, rows in salvage.rows_of(kept):
                write_part(store.part(self._config, shard.job, key), rows, outcomes[key])
        # After this the damaged shard is a stranger: a kill costs nothing.
        self._ledger.reopened.reopen(shard.job, FormerShard(shard.sha256, tuple(order), hurt))
        self._put_away(path, problem, kept=len(kept), hurt=len(hurt))
        return True

    def _proof(self, job: int, outcomes: Iterable[VideoKey]) -> Proof | None:
        """Return what the rows of a job are compared with; ``None`` if there is nothing."""
        try:
            digests = read_outcomes(outcomes_path(self._folder, self._config, job)).digests
        except (FileNotFoundError, StoreDamagedError):
            digests = None
        if digests is not None:
            return Proof(digests, {})
        if self._index is None:
            return None
        missing = self._ledger.statistics.missing_names(job)
        utterances: dict[str, Utterance] = {
            utterance.name: utterance
            for _, group in self._index.utterances(frozenset(outcomes))
            for utterance in group
            if utterance.name not in missing
        }
        return Proof(None, utterances)

    def _put_away(self, path: Path, problem: str, *, kept: int, hurt: int) -> None:
        text = f"{problem} Videos that are whole and kept: {kept:,}, to be cropped again: {hurt:,}"
        if path.exists():
            self._bench.put_away("shard", path, text)
        else:
            self._bench.mend("shard", path, text)
        if checksum_file(path).exists():
            self._bench.put_away("checksum", checksum_file(path), "it is that of a damaged shard")


def done_outcomes(ledger: Ledger, job: int) -> dict[VideoKey, Outcome]:
    """Return what the ledger knows of the videos of a job that are done, as part files have it."""
    known = ledger.outcomes.read(job)
    outcomes = {}
    for video in known.videos if known else ():
        row, last = video.row, video.attempts[-1:]
        if row.status == "done":
            outcomes[video.key] = Outcome(
                video.key,
                "done",
                row.reason,
                clips=row.clips,
                samples=row.samples,
                missing=video.missing,
                bytes_fetched=sum(attempt.bytes for attempt in last),
                seconds_taken=row.seconds_taken,
                route="".join(attempt.address for attempt in last),
                digest=row.digest,
                facts=MediaFacts.from_dict(json.loads(last[0].facts) if last else {}),
            )
    return outcomes


def _order(
    proof: Proof, kept: Sequence[VideoKey], outcomes: dict[VideoKey, Outcome]
) -> list[VideoKey]:
    """Return the videos of a shard in the order of its rows, as far as that is known."""
    known = list(proof.expected) if proof.digests is not None else list(kept)
    if proof.digests is None and known == sorted(known):
        known = []
    rest = sorted(outcomes.keys() - set(known))
    return [key for key in known if key in outcomes] + rest


class Salvage:
    """Reads the rows of a damaged shard that are proven.

    Args:
        path: the shard, which may be missing.
        schema: its columns.
        proof: what its rows are compared with.
    """

    def __init__(self, path: Path, schema: pa.Schema, proof: Proof) -> None:
        self._path = path
        self._schema = schema
        self._proof = proof

    def _rows(self) -> Iterator[tuple[VideoKey, str, pa.RecordBatch]]:
        """Yield video, name and values of each row that is proven, once."""
        seen = set()
        for batch in self._batches():
            for number, name in enumerate(self._proof.names(batch)):
                if name is not None and name not in seen:
                    seen.add(name)
                    speaker, video, _ = name.split("/")
                    yield VideoKey(speaker, video), name, batch.slice(number, 1)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from salvaged_batches(self._path, self._schema)
        except (OSError, pa.ArrowInvalid):  # missing, or of a disk that fails
            return

    def whole_videos(self) -> list[VideoKey]:
        """Return the videos of which every row is proven, in the order of their rows."""
        proven: dict[VideoKey, set[str]] = {}
        for key, name, _ in self._rows():
            proven.setdefault(key, set()).add(name)
        expected = self._proof.expected
        return [key for key, names in proven.items() if names == expected.get(key)]

    def rows_of(self, videos: Iterable[VideoKey]) -> Iterator[tuple[VideoKey, pa.RecordBatch]]:
        """Yield all rows of some videos, of which every row is proven."""
        left = {key: len(names) for key, names in self._proof.expected.items()}
        rows: dict[VideoKey, list[pa.RecordBatch]] = {key: [] for key in videos}
        for key, _, row in self._rows():
            if key not in rows:
                continue
            rows[key].append(row)
            if len(rows[key]) == left[key]:
                table = pa.Table.from_batches(rows.pop(key)).combine_chunks()
                yield key, table.to_batches()[0]
