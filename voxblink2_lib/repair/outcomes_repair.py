"""The files of outcomes beside the shards: written again from the ledger where they are hurt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.progress import Progress, tracked
from voxblink2_lib.records import SealedShard
from voxblink2_lib.repair.workbench import Workbench
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.outcome_files import (
    outcomes_path,
    read_outcomes,
    write_outcomes,
    write_stale_outcomes,
)
from voxblink2_lib.store.row_digests import row_digests, row_names
from voxblink2_lib.store.shard_check import open_shard, shard_batches


def mend_outcomes(bench: Workbench, ledger: Ledger, progress: Progress) -> None:
    """Write the file of each job that lacks it, or whose file is damaged.

    Args:
        bench: the store, whose shards are whole.
        ledger: its ledger, which is right.
        progress: counts jobs.
    """
    folder = bench.store.shards(ledger.config)
    shards = {shard.job: shard for shard in ledger.shards()}
    for job in tracked(ledger.outcomes.jobs(), progress, "Checking outcomes", unit="job"):
        path = outcomes_path(folder, ledger.config, job)
        if problem := _problem(path):
            shard = shards.get(job)
            bench.mend(
                "outcomes",
                path,
                f"{problem} Written again from the ledger",
                lambda job=job, shard=shard: write_outcomes(  # type: ignore[misc]
                    bench.store, ledger, job, _digests(folder, shard)
                ),
            )
    if not bench.is_dry:
        write_stale_outcomes(bench.store, ledger, progress=progress)


def _problem(path: Path) -> str:
    try:
        read_outcomes(path)
    except FileNotFoundError:
        return f"The file {path} is missing."
    except StoreDamagedError as error:
        return str(error)
    return ""


def _digests(folder: Path, shard: SealedShard | None) -> Mapping[str, bytes] | None:
    """Return the digest of each row of a shard, by the names of utterances."""
    if shard is None:
        return None
    return {
        name: digest
        for batch in shard_batches(open_shard(folder / shard.name))
        for name, digest in zip(row_names(batch), row_digests(batch), strict=True)
    }
