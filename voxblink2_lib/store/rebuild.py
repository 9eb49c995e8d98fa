"""Make a ledger again from the files of outcomes, and from what an old ledger still gives.

::

    files of outcomes        every job and video, as of their writing
    the damaged ledger       what came later, as far as it can be read
    or its copy              likewise; with ``from_backup`` in place of the damaged one

What was planned and is in none of them is planned again by the next run: it compares the selection
with the ledger, since the new one does not say of which plan it is.

Not rebuilt is what nothing depends on: which videos are excluded and not planned, which the next
run writes, and the numbers of jobs of which nothing is left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.files import named_system_errors, sync_folder
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.draft_ledger import DraftLedger
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger_checksums import forget_checksums, write_checksums
from voxblink2_lib.store.outcome_files import SUFFIX, read_outcomes
from voxblink2_lib.store.salvage import OldLedger

_LOGS = ("-wal", "-shm")
_STAMP = "%Y%m%d-%H%M%S"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a ledger was rebuilt from.

    Attributes:
        jobs: number of jobs in it, of all configurations.
        videos: number of videos in it, those included that no source was asked for yet.
        files: number of files of outcomes that it is from.
        damaged_files: what is wrong with the others.
        later: number of videos of which the old ledger, or its copy, had a later answer, or any.
        unknown: the most videos of which a later answer may be lost: those of open jobs that did
            not come, and are not in what was read of the old ledger.
        kept_in: where the old ledger is now; ``None`` if there was none, or nothing was changed.
    """

    jobs: int
    videos: int
    files: int
    damaged_files: tuple[str, ...]
    later: int
    unknown: int
    kept_in: Path | None = field(default=None, compare=False)


def rebuild_ledger(
    store: Store,
    *,
    from_backup: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> Rebuilt:
    """Make the ledger of a store again, and put it in place of the old one. Requires the lock.

    Args:
        store: the store.
        from_backup: the old ledger is not read, its last copy is.
        dry_run: change nothing below the store, and return what would be done.
        progress: counts files of outcomes.

    Raises:
        StoreDamagedError: nothing is left that a ledger could be made from.
        StoreFullError: the disk is full; the old ledger is as it was.
    """
    with _work_folder(store, dry_run=dry_run) as folder, named_system_errors(store.ledger):
        draft_path = folder / store.ledger.name
        with closing(DraftLedger(draft_path, Tombstones.of(store.root))) as draft:
            rebuilt = _fill(draft, store, folder, from_backup=from_backup, progress=progress)
        if not rebuilt.jobs:
            raise StoreDamagedError(
                f"The ledger {store.ledger} cannot be rebuilt: there is no file of outcomes "
                f"below {store.root / 'shards'} that can be read, and no ledger. Restore one of "
                "them from a copy of the store, or name another store."
            )
        return rebuilt if dry_run else _put_in_place(store, draft_path, rebuilt)


@contextmanager
def _work_folder(store: Store, *, dry_run: bool) -> Iterator[Path]:
    parent = None if dry_run else store.tmp
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


def _fill(
    draft: DraftLedger, store: Store, folder: Path, *, from_backup: bool, progress: Progress
) -> Rebuilt:
    files, problems = _add_files(draft, store, progress)
    later = 0
    # The copy is read in any case: it has what cannot be read of the damaged ledger.
    for path in [store.backup] if from_backup else [store.ledger, store.backup]:
        if path.exists():
            with closing(OldLedger(path, folder / f"old-{path.name}")) as old:
                later += draft.add_later(old, is_last=path == store.ledger)
    draft.forget_whole_videos()
    # Of those with a part file nothing is lost: the next run reads it.
    parts = {name: {path.stem for path in store.parts(name).glob("*/*")} for name in CONFIG_NAMES}
    unknown = sum(
        f"{key.speaker_id}_{key.video_id}" not in parts[key.config] for key in draft.unanswered()
    )
    return Rebuilt(*draft.counts(), files, tuple(problems), later=later, unknown=unknown)


def _add_files(draft: DraftLedger, store: Store, progress: Progress) -> tuple[int, list[str]]:
    """Add all files of outcomes; return how many there are, and what is wrong with others."""
    paths = sorted(path for name in CONFIG_NAMES for path in store.shards(name).glob(f"*{SUFFIX}"))
    problems = []
    with progress("Reading outcomes", unit="job", total=len(paths)) as advance:
        for path in paths:
            try:
                outcomes = read_outcomes(path, with_digests=False)
                if outcomes.config != path.parent.name:
                    raise StoreDamagedError(f"The file of outcomes {path} is in a wrong folder.")
                draft.add(outcomes)
                if outcomes.kind == "cut":
                    draft.add_clips(read_outcomes(path))
            except StoreDamagedError as error:
                problems.append(str(error))
            advance(1)
    draft.add_settings()
    return len(paths) - len(problems), problems


def _put_in_place(store: Store, draft: Path, rebuilt: Rebuilt) -> Rebuilt:
    """Replace the ledger by the draft; the old one is kept."""
    with open(draft, "rb+") as file:
        os.fsync(file.fileno())
    kept_in = _keep(store)
    forget_checksums(store.ledger)
    os.replace(draft, store.ledger)
    write_checksums(store.ledger)
    sync_folder(store.root)
    return replace(rebuilt, kept_in=kept_in)


def _keep(store: Store) -> Path | None:
    """Give the old ledger a second name, and take away what was written beside it."""
    if not any(store.root.glob(f"{store.ledger.name}*")):
        return None
    store.lost_and_found.mkdir(exist_ok=True)
    kept = _free_name(store.lost_and_found / f"{store.ledger.name}-{time.strftime(_STAMP)}")
    try:
        if store.ledger.exists():
            os.link(store.ledger, kept)
    except OSError:  # a file system without links
        shutil.copyfile(store.ledger, kept)
    # These would be taken for those of the new one.
    for suffix in _LOGS:
        log = store.ledger.with_name(store.ledger.name + suffix)
        if log.exists():
            os.replace(log, kept.with_name(kept.name + suffix))
    sync_folder(store.lost_and_found)
    return kept


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.{number}") for number in count(2))
    return path if not path.exists() else next(name for name in names if not name.exists())
