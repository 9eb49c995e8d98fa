"""Entry point: mend a store, step by step, each of which may be the last before a kill.

    ledger    made again from the files of outcomes, if it is lost, damaged or behind them
    index     made again from the release
    shards    whole rows of a damaged one become part files; its job is opened again
    parts     damaged ones are dropped; strangers go to lost+found
    outcomes  written again from the ledger
    catalogue removed, if it is not that of the shards; the next use makes it
    fetching  what is hurt is cropped again, and the jobs are sealed

Nothing is remembered but in the store itself: a repair that is killed is just run again.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import StoreError
from voxblink2_lib.materialize.gathering import clear_gathered
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import finish_reopened
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import CONFIG_NAMES, ConfigName, VideoKey
from voxblink2_lib.repair.index_repair import mend_index
from voxblink2_lib.repair.ledger_repair import mend_ledger
from voxblink2_lib.repair.outcomes_repair import mend_outcomes
from voxblink2_lib.repair.part_repair import mend_parts, put_strangers_away
from voxblink2_lib.repair.shard_repair import ReopenedJob, ShardRepair
from voxblink2_lib.repair.workbench import Mend, Workbench
from voxblink2_lib.store.catalogue import catalogue_problem
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class LostVideo:
    """A video whose clips are gone, wholly or in part.

    Attributes:
        config: the configuration.
        speaker_id, video_id: the video.
        status: what became of it; ``done`` if it only lacks some utterances.
        reason: the words of the source.
        utterances: ids of those that are gone.
    """

    config: str
    speaker_id: str
    video_id: str
    status: str
    reason: str
    utterances: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Repair:
    """What :func:`repair_store` did, or would do.

    Attributes:
        store: the folder.
        is_dry: nothing was changed.
        mends: what was done, in order.
        hurt: videos that had to be cropped again, by configuration.
        left: those of them that still have to be.
        lost: those of which clips did not come back.
        problems: what cannot be mended.
    """

    store: str
    is_dry: bool
    mends: tuple[Mend, ...]
    hurt: dict[str, list[VideoKey]]
    left: dict[str, list[VideoKey]]
    lost: tuple[LostVideo, ...]
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return what ``voxblink2 repair --json`` writes."""
        return {**asdict(self), "mends": [asdict(mend) for mend in self.mends]}


def repair_store(
    store: Store,
    *,
    data_dir: str | None = None,
    from_backup: bool = False,
    is_dry: bool = False,
    progress: Progress = no_progress,
) -> Repair:
    """Mend all that can be mended without a source.

    Args:
        store: the store; if this is no dry run, locked by this process.
        data_dir: the release, for an index that has to be made again.
        from_backup: make the ledger again from its last copy, whatever it has.
        is_dry: change nothing.
        progress: counts shards, and the files of the release.

    Raises:
        StoreError: there is no store, or it is of another version.
    """
    if not any(path.exists() for path in (store.ledger, store.root / "shards", store.backup)):
        raise StoreError(
            f"There is no store at {store.root}: it has neither a ledger nor shards. Name the "
            "store of an earlier 'voxblink2 materialize'."
        )
    with _view(store) if is_dry else contextlib.nullcontext(store) as place:
        bench = Workbench(place, store.root, is_dry=is_dry)
        return _mend(bench, data_dir, progress, from_backup=from_backup)


@contextlib.contextmanager
def _view(store: Store) -> Iterator[Store]:
    """Yield a store of links to another's folders, with a copy of its ledger."""
    with tempfile.TemporaryDirectory() as folder:
        view = Store(Path(folder))
        for path in store.root.iterdir():
            if path.name.startswith(store.ledger.stem):
                # SQLite makes the third file of the second.
                if path.is_file() and not path.name.endswith("-shm"):
                    shutil.copy2(path, view.root)
            elif path.is_dir() and path.name != store.lost_and_found.name:
                (view.root / path.name).symlink_to(path.absolute())
        yield view


def _mend(
    bench: Workbench, data_dir: str | None, progress: Progress, *, from_backup: bool
) -> Repair:
    mend_ledger(bench, from_backup=from_backup)
    configs = _configs(bench.store)
    index = mend_index(bench, configs, data_dir=data_dir, progress=progress)
    hurt: dict[str, list[VideoKey]] = {}
    lost: dict[str, list[tuple]] = {}
    for config in configs:
        with Ledger(bench.store.ledger, config) as ledger:
            reopened = ShardRepair(bench, ledger, index).mend(progress)
            hurt[config] = [key for job in reopened for key in job.hurt]
            mend_parts(bench, ledger, reopened=[job.shard.job for job in reopened])
            put_strangers_away(bench, ledger)
            mend_outcomes(bench, ledger)
