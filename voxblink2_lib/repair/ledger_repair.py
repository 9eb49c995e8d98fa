"""The ledger: whether it is whole, and making it again from the files of outcomes."""

from __future__ import annotations

from collections.abc import Iterator

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.progress import Progress, tracked
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.repair.workbench import Workbench
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_checksums import checksum_problems, log_problems
from voxblink2_lib.store.outcome_files import SUFFIX, read_outcomes
from voxblink2_lib.store.rebuild import Rebuilt, rebuild_ledger
from voxblink2_lib.store.status import open_ledger


def mend_ledger(bench: Workbench, *, from_backup: bool, progress: Progress) -> None:
    """Make the ledger again if it is lost, damaged, or lags behind the files beside the shards.

    Args:
        bench: the store.
        from_backup: make it again in any case, without reading it.
        progress: counts files of outcomes.

    Raises:
        StoreDamagedError: nothing is left that it could be made from.
        StoreError: it has a format of another version.
    """
    problem = next(ledger_problems(bench.store, progress), "")
    if not problem and from_backup:
        problem = f"The ledger {bench.store.ledger} was not to be used."
    if not problem:
        return
    # In a dry run, this is the ledger of a copy.
    rebuilt = rebuild_ledger(bench.store, from_backup=from_backup, progress=progress)
    bench.mend("ledger", bench.store.ledger, f"{problem} {_text(rebuilt)}")


def _text(rebuilt: Rebuilt) -> str:
    return (
        f"Made again from {rebuilt.files:,} files of outcomes: {rebuilt.videos:,} videos. Of the "
        f"ledger, {rebuilt.later:,} later answers could be read; at most {rebuilt.unknown:,} are "
        "lost, and asked for again"
    )


def ledger_problems(store: Store, progress: Progress) -> Iterator[str]:
    """Yield how a ledger is damaged, as far as its reader gets.

    Args:
        store: its store.
        progress: counts files of outcomes.

    Raises:
        StoreError: it has a format of another version.
    """
    try:
        yield from checksum_problems(store.ledger)
        yield from log_problems(store.ledger)
        with open_ledger(store, "") as ledger:
            if problem := ledger.problem():
                yield f"The ledger {store.ledger} is damaged: SQLite says {problem!r}."
        for config in CONFIG_NAMES:
            yield from _differences(store, config, progress)
    except StoreDamagedError as error:
        yield str(error)


def _differences(store: Store, config: str, progress: Progress) -> Iterator[str]:
    """Yield which files of outcomes say something else, though the ledger did not change since."""
    with Ledger(store.ledger, config, readonly=True) as ledger:
        known = ledger.outcomes
        stale = set(known.stale())
        files = sorted(store.shards(config).glob(f"*{SUFFIX}"))
        for path in tracked(files, progress, "Comparing outcomes", unit="job"):
            try:
                file = read_outcomes(path)
            except (FileNotFoundError, StoreDamagedError):
                continue
            if file.job in stale:
                continue
            if name := known.difference(file):
                yield (
                    f"The ledger {store.ledger} is damaged, or lags behind: {path.name} has other "
                    f"{name}."
                )
