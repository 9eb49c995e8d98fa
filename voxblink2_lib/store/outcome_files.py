"""The outcomes of each job's videos, in a file beside its shard, so that a ledger can be rebuilt.

::

    shards/audio/audio-00007.arrow               the clips
    shards/audio/audio-00007.arrow.sha256        of the shard
    shards/audio/audio-00007.outcomes.parquet    one row for each video of job 7

A job without a clip, or that is not sealed yet, has such a file too: it is written when the job is
planned, when it is sealed, and when a run ends. Which files lag behind the ledger is in the ledger
(:mod:`~voxblink2_lib.store.stale_outcomes`), so the run after a kill brings them up to date.

A video that is tried again moves to another job, and the file of the job before is not written
again for it. Then it is in two files: the row with more attempts is the later one; of equal ones
that of a recovered shard, else that of a retry (:mod:`~voxblink2_lib.store.draft_ledger`).

Settings, names of sources and witnesses are not of a job. Each file has them; the newest counts.

The file has its own SHA-256, in its metadata: that of all its bytes with zeros in place of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from voxblink2_lib.errors import StoreDamagedError, VoxBlink2Error
from voxblink2_lib.files import atomic_write
from voxblink2_lib.foreign_files import as_own_error, check_parquet_size
from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import SealedShard, UtteranceKey
from voxblink2_lib.store.job_outcomes import (
    AttemptRow,
    JobOutcomes,
    VerdictRow,
    VideoOutcomes,
    VideoRow,
    WitnessRow,
)
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_outcomes import LedgerOutcomes
from voxblink2_lib.store.row_digests import DIGEST_BYTES
from voxblink2_lib.store.shard_names import shard_name

SUFFIX = ".outcomes.parquet"
_FORMAT = 1
# A job has a thousand videos; this is far beyond what they need.
_MOST_BYTES = 1 << 30
_log = logging.getLogger(__name__)

_ABOUT = b"voxblink2_outcomes"
_SHA256 = b"voxblink2_sha256"
_NO_SHA256 = b"0" * 64
# How Parquet writes the key and, in two bytes, that a text of 64 follows. The metadata are at the
# end, and no other text in them can have the first of these bytes.
_BEFORE_VALUE = _SHA256 + b"\x18@"

_TYPES = {
    str: (pa.string(), False),
    int: (pa.int64(), False),
    float: (pa.float64(), False),
    float | None: (pa.float64(), True),
}


def _fields(record: type) -> list[pa.Field]:
    """Return the columns of a record."""
    hints = get_type_hints(record)
    return [pa.field(name, *_TYPES[kind]) for name, kind in hints.items()]


def _list_of(fields: list[pa.Field]) -> pa.DataType:
    return pa.list_(pa.field("element", pa.struct(fields), nullable=False))


# The digests are null if they are not known, as of shards that were sealed before there were any.
# Rows are counted in the shard, whose videos may be in another order than those of the file.
_CLIPS = _list_of(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("digest", pa.binary(DIGEST_BYTES), nullable=False),
    ]
)
_SCHEMA = pa.schema(
    [
        *_fields(VideoRow),
        pa.field("verdicts", _list_of(_fields(VerdictRow)), nullable=False),
        pa.field("missing", _list_of(_fields(MissingUtterance)), nullable=False),
        pa.field("tried", _list_of(_fields(AttemptRow)), nullable=False),
        pa.field("clip_digests", _CLIPS),
    ]
)

_ROW_WIDTH = len(VideoRow._fields)


class _About(NamedTuple):
    """What a file says besides its rows; ``shard`` is name, SHA-256, rows and bytes."""

    format: int
    config: str
    job: int
    kind: str
    shard: list[Any] | None
    settings: dict[str, str]
    sources: list[str]
    witnesses: list[list[Any]]
    written_at: float
    has_digests: bool


def outcomes_path(folder: Path, config: str, job: int) -> Path:
    """Return the file of a job's outcomes.

    Args:
        folder: that of the shards of the configuration.
        config: the configuration.
        job: number of the job.

    >>> outcomes_path(Path("shards/audio"), "audio", 7).as_posix()
    'shards/audio/audio-00007.outcomes.parquet'
    """
    return folder / (Path(shard_name(config, job)).stem + SUFFIX)


# -- When they are written -------------------------------------------------------------------------


def write_outcomes(
    store: Store, ledger: Ledger, job: int, digests: Mapping[str, bytes] | None = None
) -> None:
    """Write what the ledger has of a job; remove the file of one of which nothing is left.

    Args:
        store: the store, locked by this process.
        ledger: of the configuration.
        job: number of the job.
        digests: of the rows of its shard, by the names of utterances. Default: those in the file
            before, if it is of the same shard.

    Raises:
        StoreFullError: the disk is full.
        StoreDamagedError: the ledger has what no ledger can have.
    """
    _write(store.shards(ledger.config), ledger.config, job, ledger.outcomes, digests)


def _write(
    folder: Path,
    config: str,
    job: int,
    known: LedgerOutcomes,
    digests: Mapping[str, bytes] | None = None,
) -> None:
    path = outcomes_path(folder, config, job)
    outcomes = known.read(job)
    if outcomes is None:
        path.unlink(missing_ok=True)
    else:
        if digests is None and outcomes.shard and outcomes.shard.name:
            digests = _digests_before(path, outcomes.shard)
        write_file(path, outcomes, digests)
    known.mark_written(job)


def stale_jobs(store: Store, ledger: Ledger) -> list[int]:
    """Return the jobs whose file is missing or lags behind the ledger, in the order to write them.

    A video that moves from one job to another is never in no file: recovered shards come first,
    then retries, the last one first.
    """
    folder, config = store.shards(ledger.config), ledger.config
    outcomes = ledger.outcomes
    names = {path.name for path in folder.glob(f"*{SUFFIX}")}
    kinds = outcomes.jobs()
    missing = {job for job in kinds if outcomes_path(folder, config, job).name not in names}
    order = {"recovered": 0, "cut": 0, "retry": 1, "planned": 2}
    jobs = missing.union(outcomes.stale())
    # One of which nothing is left comes last: its file is removed.
    return sorted(jobs, key=lambda job: (order.get(kinds.get(job, ""), 3), -job))


def write_stale_outcomes(store: Store, ledger: Ledger, *, progress: Progress = no_progress) -> int:
    """Bring all files of a configuration up to date. Requires the lock.

    Returns:
        How many jobs it wrote.

    Raises:
        Exception: see :func:`write_outcomes`.
    """
    jobs = stale_jobs(store, ledger)
    if jobs:
        folder, known = store.shards(ledger.config), ledger.outcomes
        with progress("Writing outcomes", unit="job", total=len(jobs)) as advance:
            for job in jobs:
                _write(folder, ledger.config, job, known)
                advance(1)
    return len(jobs)


@contextlib.contextmanager
def outcomes_written(
    store: Store, ledger: Ledger, *, progress: Progress = no_progress
) -> Iterator[None]:
    """Bring all files up to date before the body, and after it however it ends.

    Raises:
        Exception: see :func:`write_outcomes`.
    """
    write_stale_outcomes(store, ledger, progress=progress)
    try:
        yield
    except BaseException:
        # What ended the body is what the user is to read.
        try:
            write_stale_outcomes(store, ledger, progress=progress)
        except (VoxBlink2Error, OSError) as error:
            _log.warning("The next run writes the outcomes beside the shards: %s", error)
        raise
    write_stale_outcomes(store, ledger, progress=progress)


def _digests_before(path: Path, shard: SealedShard) -> Mapping[str, bytes] | None:
    try:
        before = read_outcomes(path).shard
    except (FileNotFoundError, StoreDamagedError):
        return None
    return before.digests if before == shard else None


# -- The file --------------------------------------------------------------------------------------


def write_file(path: Path, outcomes: JobOutcomes, digests: Mapping[str, bytes] | None) -> None:
    """Write the outcomes of a job.

    Args:
        path: the file.
        outcomes: what is written.
        digests: of the rows of its shard, by the names of utterances.

    Raises:
        StoreFullError: the disk is full.
    """
    shard = outcomes.shard
    about = _About(
        format=_FORMAT,
        config=outcomes.config,
        job=outcomes.job,
        kind=outcomes.kind,
        shard=[shard.name, shard.sha256, shard.rows, shard.size_bytes] if shard else None,
        settings=dict(outcomes.settings),
        sources=list(outcomes.sources),
        witnesses=[list(witness) for witness in outcomes.witnesses],
        written_at=outcomes.written_at,
        has_digests=digests is not None,
    )
    table = _table(outcomes, digests)
    text = json.dumps(about._asdict())
    table = table.replace_schema_metadata({_ABOUT: text, _SHA256: _NO_SHA256})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = bytearray(sink.getvalue())
    place = data.rindex(_BEFORE_VALUE) + len(_BEFORE_VALUE)
    data[place : place + len(_NO_SHA256)] = hashlib.sha256(data).hexdigest().encode()
    with atomic_write(path) as file:
        file.write(data)


def _table(outcomes: JobOutcomes, digests: Mapping[str, bytes] | None) -> pa.Table:
    """Return one row for each video, made by columns: a thousand jobs are written at once."""
    videos = outcomes.videos
    clips = _clips_by_video(digests or {})
    columns: list[Iterable[Any]] = [
        *(zip(*(video.row for video in videos), strict=True) if videos else [()] * _ROW_WIDTH),
        [_dicts(video.verdicts) for video in videos],
        [_dicts(video.missing) for video in videos],
        [_dicts(video.attempts) for video in videos],
        [None if digests is None else clips.get(video.key, []) for video in videos],
    ]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, _SCHEMA.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _dicts(rows: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [row._asdict() for row in rows] if rows else []  # of most videos there is none


def _clips_by_video(digests: Mapping[str, bytes]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    clips: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for number, (name, digest) in enumerate(digests.items()):
        *key, utterance_id = name.split("/")
        clip = {"row": number, "utterance_id": utterance_id, "digest": digest}
        clips.setdefault(tuple(key), []).append(clip)
    return clips


def read_outcomes(path: Path, *, with_digests: bool = True) -> JobOutcomes:
    """Read the outcomes of a job.

    Args:
        path: the file.
        with_digests: also the digests of the rows of its shard.

    Raises:
        FileNotFoundError: there is no such file.
        StoreDamagedError: it is not as it was written, or nothing that is written here.
    """
    data = _checked_bytes(path)
    with as_own_error(StoreDamagedError, f"The file of outcomes {path} is damaged"):
        parquet = pq.ParquetFile(pa.BufferReader(data))
        check_parquet_size(path, parquet.metadata)
        if not parquet.schema_arrow.equals(_SCHEMA):
            raise ValueError("it has other columns")
        about = _About(**json.loads(parquet.metadata.metadata[_ABOUT]))
        if about.format != _FORMAT:
            raise ValueError(f"it has format {about.format!r}, this version reads {_FORMAT}")
        columns = _SCHEMA.names if with_digests else _SCHEMA.names[:-1]
        table = parquet.read(columns, use_threads=False)
        table.validate(full=True)
        outcomes = _as_outcomes(about, table.to_pylist(), with_digests=with_digests)
        if path.name != outcomes_path(path.parent, about.config, about.job).name:
            raise ValueError(f"it is of job {about.job} of {about.config}")
        return outcomes


def _checked_bytes(path: Path) -> bytes:
    """Return what a file holds, which is what was written."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreDamagedError(
            f"The file of outcomes {path} cannot be read ({error.strerror})."
        ) from error
    place = data.rfind(_BEFORE_VALUE) + len(_BEFORE_VALUE)
    end = place + len(_NO_SHA256)
    digest = hashlib.sha256(data[:place])
    digest.update(_NO_SHA256)
    digest.update(data[end:])
    if data[place:end] != digest.hexdigest().encode():
        raise StoreDamagedError(
            f"The file of outcomes {path} is damaged (its SHA-256 is not the one that it states)."
        )
    return data


def _as_outcomes(about: _About, rows: list[dict[str, Any]], *, with_digests: bool) -> JobOutcomes:
    digests = None
    if with_digests and about.has_digests:
        clips = sorted(
            (clip["row"], UtteranceKey(*_key(row), clip["utterance_id"]).name, clip["digest"])
            for row in rows
            for clip in row["clip_digests"]
        )
        digests = {name: digest for _, name, digest in clips}
    shard = None
    if about.shard is not None:
        name, sha256, rows_of_shard, size_bytes = about.shard
        shard = SealedShard(about.job, name, sha256, rows_of_shard, size_bytes, digests)
    return JobOutcomes(
        config=about.config,
        job=about.job,
        kind=about.kind,  # type: ignore[arg-type]  # checked where it is made
        shard=shard,
        videos=tuple(map(_as_video, rows)),
        settings=about.settings,
        sources=tuple(about.sources),
        witnesses=tuple(WitnessRow(*row) for row in about.witnesses),
        written_at=about.written_at,
    )


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["speaker_id"], row["video_id"]


def _as_video(row: dict[str, Any]) -> VideoOutcomes:
    return VideoOutcomes(
        VideoRow(*(row[name] for name in VideoRow._fields)),
        tuple(VerdictRow(**values) for values in row["verdicts"]),
        tuple(MissingUtterance(**values) for values in row["missing"]),
        tuple(AttemptRow(**values) for values in row["tried"]),
    )
