"""The outcomes of each job's videos, in a file beside its shard, so that a ledger can be rebuilt.

    shards/audio/audio-00007.arrow               the clips
    shards/audio/audio-00007.arrow.sha256        of the shard
    shards/audio/audio-00007.outcomes.parquet    one row for each video of job 7

A job without a clip, or that is not sealed yet, has such a file too: it is written when the job is
planned, when it is sealed, and when a run ends. Which files lag behind the ledger is in the ledger
(table ``stale_outcomes``), so that the run after a kill brings them up to date.

A video that is tried again moves to another job. It may then be in two files, since that of the
job before is not written again for it: the row with more attempts is the later one, and of equal
ones that of the recovered shard, then that of the retry (:attr:`OutcomesOrder`).

The last value in the file's metadata is the SHA-256 of the whole file, with zeros in its place.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from voxblink2_lib.errors import StoreDamagedError
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
from voxblink2_lib.store.shard_names import shard_name

SUFFIX = ".outcomes.parquet"


def outcomes_path(folder: Path, config: str, job: int) -> Path:
    """Return the file of a job's outcomes.

    Args:
        folder: that of the shards of the configuration.
        config: the configuration.
        job: number of the job.
    """
    return folder / (Path(shard_name(config, job)).stem + SUFFIX)


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
    """
    raise NotImplementedError


def read_outcomes(path: Path) -> JobOutcomes:
    """Read the outcomes of a job.

    Raises:
        FileNotFoundError: there is no such file.
        StoreDamagedError: it is not as it was written, or nothing that was written here.
    """
    raise NotImplementedError


def stale_jobs(store: Store, ledger: Ledger) -> list[int]:
    """Return the jobs whose file is missing or lags behind the ledger."""
    raise NotImplementedError


def write_stale_outcomes(store: Store, ledger: Ledger, *, progress: Progress = no_progress) -> int:
    """Bring all files up to date; return how many were written."""
    raise NotImplementedError
