"""The ledger: whether it is whole, and making it again from the files of outcomes."""

from __future__ import annotations

from collections.abc import Iterator

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.repair.workbench import Workbench
from voxblink2_lib.store.job_outcomes import JobOutcomes
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.outcome_files import SUFFIX, read_outcomes
from voxblink2_lib.store.rebuild import rebuild_ledger


def mend_ledger(bench: Workbench) -> None:
    """Make the ledger again if it is lost, damaged, or lags behind the files beside the shards.

    Raises:
        StoreError: it has a format of another version.
    """
    problem = next(ledger_problems(bench.store), None)
    if problem is None:
        return
    rebuilt = rebuild_ledger(bench.store)  # in a dry run, that of a copy
    bench.mend("ledger", bench.store.ledger, f"{problem} Made again from the files of outcomes")
    del rebuilt


def ledger_problems(store: Store) -> Iterator[str]:
    """Yield how a ledger is damaged.

    Raises:
        StoreError: it has a format of another version.
    """
    if not store.ledger.exists():
        yield f"The ledger {store.ledger} is missing."
        return
    try:
        yield from _damages(store)
    except StoreDamagedError as error:
        yield str(error)


def _damages(store: Store) -> Iterator[str]:
    database = LedgerDatabase.open(store.ledger, readonly=True)
    try:
        ((answer,),) = database.query("pragma integrity_check(1)")
    finally:
        database.close()
    if answer != "ok":
        yield f"The ledger {store.ledger} is damaged: SQLite says {answer!r}."
        return
    for config in CONFIG_NAMES:
        yield from _differences(store, config)


def _differences(store: Store, config: str) -> Iterator[str]:
    """Yield which files of outcomes say something else, though the ledger did not change since."""
    with Ledger(store.ledger, config, readonly=True) as ledger:
        stale = set(ledger.outcomes.stale())
        for path in sorted(store.shards(config).glob(f"*{SUFFIX}")):
            try:
                file = read_outcomes(path)
            except (FileNotFoundError, StoreDamagedError):
                continue
            known = ledger.outcomes.read(file.job)
            if file.job not in stale and (known is None or _contents(known) != _contents(file)):
                yield (
                    f"The ledger {store.ledger} is damaged, or lags behind: {path.name} has other "
                    "outcomes."
                )


def _contents(outcomes: JobOutcomes) -> tuple[object, ...]:
    """Return what is about the job alone; settings may have changed since its file was written."""
    return (outcomes.config, outcomes.kind, outcomes.shard, outcomes.videos)
