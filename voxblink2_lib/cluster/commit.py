"""What the driver does with the result of a job; it alone writes the ledger."""

from __future__ import annotations

import shutil

from voxblink2_lib.cluster.checkpoints import Checkpoints
from voxblink2_lib.cluster.records import JobResult, JobWork
from voxblink2_lib.materialize.judgement import ASKED_IN_VAIN
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.uploads import note_upload
from voxblink2_lib.store.job_outcomes import JobOutcomes
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.outcome_files import write_outcomes


def commit_sealed(store: Store, ledger: Ledger, result: JobResult) -> bool:
    """Write at once the outcomes of a job's videos and that it is sealed.

    The first result of a job wins: of a later one nothing is written, and what it has uploaded is
    named by nobody.

    Args:
        store: the scratch store, locked by this process.
        ledger: its ledger.
        result: of a job that is sealed.

    Returns:
        Whether it was the first.
    """
    outcomes, config = result.outcomes, ledger.config
    shard = outcomes.shard
    assert shard is not None  # for mypy: it is sealed
    if outcomes.job not in ledger.open_jobs():
        return False
    if result.upload is not None:
        note_upload(store, result.upload, result.catalogue)
    with ledger.together():
        _take(ledger, outcomes)
        ledger.seal(shard)
    # Before the parts of earlier runs go: without the ledger, either has the clips.
    write_outcomes(store, ledger, outcomes.job, outcomes.digests)
    shutil.rmtree(store.job_parts(config, outcomes.job), ignore_errors=True)
    return True


def commit_open(
    place: Place, store: Store, ledger: Ledger, work: JobWork, result: JobResult
) -> None:
    """Take clips and outcomes of a job whose videos are gathered with those of other jobs.

    Args:
        place: where the clips are.
        store: the scratch store, locked by this process.
        ledger: its ledger.
        work: the job.
        result: of it.
    """
    if result.outcomes.job not in ledger.open_jobs():
        return
    with Checkpoints(place, store, ledger, work.known.job) as checkpoints:
        checkpoints.restore({video.key: video.digest for video in work.videos})
    with ledger.together():
        _take(ledger, result.outcomes)


def _take(ledger: Ledger, outcomes: JobOutcomes) -> None:
    ledger.elsewhere.take(outcomes)
    remembered = outcomes.settings.get(ASKED_IN_VAIN, "[]")
    if remembered not in {"[]", ledger.setting(ASKED_IN_VAIN)}:
        ledger.set_setting(ASKED_IN_VAIN, remembered)
