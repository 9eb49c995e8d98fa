"""Entry point: mend a store, step by step, each of which may be the last before a kill.

    tombstones written again from the ledger, before anything looks at what was purged
    ledger    made again from the files of outcomes, if it is lost, damaged or behind them
    index     made again from the release; so are its files about speakers
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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from voxblink2_lib.errors import StoreError, VoxBlink2Error
from voxblink2_lib.materialize.gathering import clear_gathered
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import finish_reopened
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import ConfigName, VideoKey
from voxblink2_lib.release.tombstones import FILE as TOMBSTONES
from voxblink2_lib.repair.adoption import adopt_shards
from voxblink2_lib.repair.catalogue_repair import mend_catalogue
from voxblink2_lib.repair.index_repair import mend_index, remembered_release
from voxblink2_lib.repair.ledger_repair import mend_ledger
from voxblink2_lib.repair.outcomes_repair import mend_outcomes
from voxblink2_lib.repair.part_repair import mend_parts, put_strangers_away
from voxblink2_lib.repair.shard_repair import ShardRepair
from voxblink2_lib.repair.speakers_repair import mend_speakers
from voxblink2_lib.repair.tombstones_repair import mend_tombstones
from voxblink2_lib.repair.workbench import Mend, Workbench
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

_CONFIGS: tuple[ConfigName, ...] = get_args(ConfigName)

# Ids of utterances of each video, by configuration.
_Utterances = dict[ConfigName, Mapping[VideoKey, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class HurtVideo:
    """A video whose clips were damaged, at least one of them.

    Attributes:
        config: the configuration.
        speaker_id, video_id: the video.
        status: ``planned`` while it has to be cropped again; else what became of it.
        reason: the words of the source, if it is not available any more.
        lost: ids of the utterances that were in the shard, and are gone for good.
    """

    config: str
    speaker_id: str
    video_id: str
    status: str
    reason: str
    lost: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done to a store, or would be.

    Attributes:
        store: the folder.
        is_dry: nothing was changed.
        mends: what was done, in order.
        hurt: videos that had to be cropped again, or still have to be.
        problems: what cannot be mended.
        stopped: why fetching ended before all was done; ``None`` if it did not.
    """

    store: str
    is_dry: bool
    mends: tuple[Mend, ...]
    hurt: tuple[HurtVideo, ...] = ()
    problems: tuple[str, ...] = ()
    stopped: VoxBlink2Error | None = None

    @property
    def left(self) -> list[HurtVideo]:
        """Videos that still have to be cropped again."""
        return [video for video in self.hurt if video.status == "planned"]

    @property
    def lost(self) -> list[HurtVideo]:
        """Videos of which clips are gone for good."""
        return [video for video in self.hurt if video.lost]

    def as_dict(self) -> dict[str, Any]:
        """Return what ``voxblink2 repair --json`` writes."""
        return {
            "store": self.store,
            "dry_run": self.is_dry,
            "mends": [asdict(mend) for mend in self.mends],
            "hurt": [asdict(video) for video in self.hurt],
            "problems": list(self.problems),
        }


# Makes the request by which the hurt videos of a configuration are cropped again.
RequestOf = Callable[[ConfigName], MaterializeRequest]


def repair_store(
    store: Store,
    *,
    data_dir: str | None = None,
    from_backup: bool = False,
    request_of: RequestOf | None = None,
    progress: Progress = no_progress,
) -> Repair:
    """Mend a store.

    Args:
        store: the store.
        data_dir: the release, for an index that has to be made again.
        from_backup: make the ledger again from its last copy, without reading it.
        request_of: how hurt videos are cropped again; ``None`` leaves that to a later run.
        progress: counts shards, jobs, and what the release has.

    Raises:
        StoreError: there is no store, or it is of another version.
        StoreBusyError: another process works on the store.
    """
    _check_is_store(store)
    with store.locked(wait=False, is_half_purged=True):
        bench = Workbench(store, store.root)
        configs = _mend(bench, data_dir, progress, from_backup=from_backup)
        hurt = _hurt_utterances(store, configs)
        stopped = None
        try:
            for config in configs:
                if request_of is not None and _is_reopened(store, config):
                    finish_reopened(request_of(config), store)
        except VoxBlink2Error as error:
            stopped = error
        return _result(bench, _hurt_videos(store, hurt), stopped)


def plan_repair(
    store: Store,
    *,
    data_dir: str | None = None,
    from_backup: bool = False,
    progress: Progress = no_progress,
) -> Repair:
    """Return what :func:`repair_store` would do, and change nothing.

    Args:
        store: the store, which no run works on.
        data_dir: the release, for an index that would have to be made again.
        from_backup: the ledger would be made again from its last copy.
        progress: counts shards, jobs, and what the release has.

    Raises:
        StoreError: there is no store, or it is of another version.
    """
    _check_is_store(store)
    with _view(store) as view:
        bench = Workbench(view, store.root, is_dry=True)
        configs = _mend(bench, data_dir, progress, from_backup=from_backup)
        return _result(bench, _hurt_videos(view, _hurt_utterances(view, configs)), None)


def _check_is_store(store: Store) -> None:
    if not any(path.exists() for path in (store.ledger, store.root / "shards", store.backup)):
        raise StoreError(
            f"There is no store at {store.root}: it has neither a ledger nor shards. Name the "
            "folder of the store that is damaged with --store."
        )


@contextlib.contextmanager
def _view(store: Store) -> Iterator[Store]:
    """Yield a store of links to another's folders, with a copy of its ledger."""
    with tempfile.TemporaryDirectory() as folder:
        view = Store(Path(folder))
        for path in store.root.iterdir():
            if path.is_dir() and path not in {store.lost_and_found, store.tmp}:
                (view.root / path.name).symlink_to(path.absolute())
            # SQLite makes the third file of a ledger of the second.
            elif path.name == TOMBSTONES or (
                path.name.startswith("ledger.") and not path.name.endswith("-shm")
            ):
                shutil.copy2(path, view.root)
        yield view


def _mend(
    bench: Workbench, data_dir: str | None, progress: Progress, *, from_backup: bool
) -> list[ConfigName]:
    """Do all that needs no source; return the configurations of the store."""
    store = bench.store
    mend_tombstones(bench)
    mend_ledger(bench, from_backup=from_backup, progress=progress)
    configs = [config for config in _CONFIGS if _has_config(store, config)]
    index = mend_index(bench, configs, data_dir=data_dir, progress=progress)
    release = data_dir or remembered_release(bench, configs)
    mend_speakers(bench, index, data_dir=release, progress=progress)
    for config in configs:
        with Ledger(store.ledger, config) as ledger:
            adopt_shards(bench, ledger, index)
            reopened = ShardRepair(bench, ledger, index).mend(progress)
            mend_parts(bench, ledger, reopened=reopened, progress=progress)
            put_strangers_away(bench, ledger)
            mend_outcomes(bench, ledger, progress)
            if not bench.is_dry:
                store.clear_leftovers(config, open_jobs=ledger.open_jobs())
                clear_gathered(store, ledger)
        mend_catalogue(bench, config)
    return configs


def _has_config(store: Store, config: ConfigName) -> bool:
    with Ledger(store.ledger, config, readonly=True) as ledger:
        return bool(ledger.jobs()) or store.shards(config).exists()


def _is_reopened(store: Store, config: ConfigName) -> bool:
    with Ledger(store.ledger, config, readonly=True) as ledger:
        return bool(ledger.reopened.jobs())


def _hurt_utterances(store: Store, configs: list[ConfigName]) -> _Utterances:
    """Return the utterances that the shards had of each hurt video, by configuration."""
    hurt: _Utterances = {}
    for config in configs:
        with Ledger(store.ledger, config, readonly=True) as ledger:
            formers = [ledger.reopened.former(job) for job in ledger.reopened.jobs()]
        hurt[config] = {
            key: utterances
            for former in formers
            if former
            for key, utterances in former.hurt.items()
        }
    return hurt


def _hurt_videos(store: Store, hurt: _Utterances) -> list[HurtVideo]:
    """Return what became of the hurt videos."""
    videos = []
    for config, utterances in hurt.items():
        with Ledger(store.ledger, config, readonly=True) as ledger:
            for key, had in utterances.items():
                state = ledger.reopened.state(key)
                kept = {"planned": had, "done": sorted({*had} - state.missing)}
                lost = {*had}.difference(kept.get(state.status, ()))
                videos.append(
                    HurtVideo(config, *key, state.status, state.reason, tuple(sorted(lost)))
                )
    return videos


def _result(bench: Workbench, hurt: list[HurtVideo], stopped: VoxBlink2Error | None) -> Repair:
    return Repair(
        store=str(bench.shown_root),
        is_dry=bench.is_dry,
        mends=tuple(bench.mends),
        hurt=tuple(hurt),
        problems=tuple(bench.problems),
        stopped=stopped,
    )
