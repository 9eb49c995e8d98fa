"""Publish a data set for others: make and upload the files that it lacks, then commit them."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from voxblink2_lib.archive.urls import is_final
from voxblink2_lib.errors import ExportError, StoreBusyError
from voxblink2_lib.export.output import UnitOutput
from voxblink2_lib.export.parquet import write_parquet
from voxblink2_lib.export.target import Target
from voxblink2_lib.hub.card import card_of
from voxblink2_lib.hub.plan import PublishPlan
from voxblink2_lib.hub.present import CARD
from voxblink2_lib.hub.record import (
    PublishedConfig,
    Record,
    SplitSize,
    read_record,
    record_as_json,
)
from voxblink2_lib.hub.units import DataUnit
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.published import remote_errors
from voxblink2_lib.published.hub import DATA_SET_RECORD
from voxblink2_lib.published.remote_errors import store_errors, tried
from voxblink2_lib.published.repository import SMALL_BYTES, Repository


@dataclass(frozen=True, slots=True)
class Publication:
    """Result of a publication.

    Attributes:
        config: what the data set has of the configuration now.
        commit: the last one of the data set.
        uploaded: number of files that were made.
        kept: number of files that were there.
        removed: number of files that went.
        erased: number of files that went out of its history.
        is_public: everybody sees it.
    """

    config: PublishedConfig
    commit: str
    uploaded: int
    kept: int
    removed: int
    erased: int
    is_public: bool


def publish(plan: PublishPlan, *, progress: Progress = no_progress) -> Publication:
    """Do what a plan has left.

    Args:
        plan: what is to be done.
        progress: counts bytes.

    Raises:
        StoreDamagedError: a shard is damaged or gone.
        StoreBusyError: another process has published meanwhile.
        StoreError, StoreDiskError: the Hub, or the disk, does not take what is written; or a run
            has changed the transcripts meanwhile.
    """
    repository = plan.request.repository
    with store_errors(str(repository), "published", noun="data set"):
        tried(repository.create)
        sizes = dict(plan.kept) | _upload(plan, progress)
        repository.remove(plan.removed)
        now = _with_sizes(plan, sizes)
        commit = _commit(plan, now)
        erased = repository.erase_former(f"{plan.request.config}/") if now.purged else 0
        if plan.becomes_public:  # whole by now
            tried(repository.make_public)
        state = tried(repository.state)
    return Publication(
        config=now,
        commit=state.commit if state else commit,
        uploaded=len(plan.left),
        kept=len(plan.kept),
        removed=len(plan.removed),
        erased=erased,
        is_public=bool(state and not state.is_private),
    )


def _upload(plan: PublishPlan, progress: Progress) -> dict[str, int]:
    """Make and upload the files that are not there, one at a time; return their sizes."""
    sizes = {}
    total = sum(unit.size_bytes for unit in plan.units)
    left = plan.left
    done = total - sum(unit.size_bytes for unit in left)
    with (
        progress("Publishing", unit="B", total=total, done=done) as advance,
        tempfile.TemporaryDirectory(prefix="voxblink2-publish-") as folder,
    ):
        for unit in left:
            sizes[unit.path] = _upload_file(plan.request.repository, unit, folder)
            advance(unit.size_bytes)
    for unit in left[:1]:
        if unit.rows.columns is not None:
            unit.rows.columns.check()  # files have what their names say
    return sizes


def _upload_file(repository: Repository, unit: DataUnit, folder: str) -> int:
    output = UnitOutput(Target.of(folder), Path(unit.path).stem)
    write_parquet(unit.rows, output)
    (name,) = output.sizes
    file = Path(folder, name)
    content = file.read_bytes() if output.size_bytes <= SMALL_BYTES else file
    tried(lambda: repository.upload(unit.path, content))
    file.unlink()
    return output.size_bytes


def _with_sizes(plan: PublishPlan, sizes: dict[str, int]) -> PublishedConfig:
    by_split: defaultdict[str, int] = defaultdict(int)
    for unit in plan.units:
        by_split[unit.split] += sizes[unit.path]
    splits = {
        name: SplitSize(split.utterances, by_split[name]) for name, split in plan.now.splits.items()
    }
    return replace(plan.now, splits=splits)


def _commit(plan: PublishPlan, now: PublishedConfig) -> str:
    """Make all of it visible at once, with the card; return the commit.

    Others may change the data set meanwhile: its card on the Hub, another configuration.
    """
    repository, config = plan.request.repository, plan.request.config
    for pause in (*remote_errors.PAUSES_SECONDS, None):
        state = tried(repository.state)
        if state is None:
            raise ExportError(f"{repository} was deleted meanwhile. Run the same command again.")
        content = repository.read(DATA_SET_RECORD, state.commit)
        present = read_record(content, str(repository))
        if present.get(config) == now and _is_there(plan):
            return state.commit  # nothing is new, or the answer to the last try was lost
        if present.get(config) != plan.before:
            raise StoreBusyError(
                f"Another process has published {config} to {repository} meanwhile. Nothing was "
                "changed. Run the same command again."
            )
        _add_card(repository, {**present, config: now}, state.commit)
        try:
            return repository.commit(f"Publish {config}", parent=state.commit)
        except Exception as error:
            if pause is None or is_final(error):
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _is_there(plan: PublishPlan) -> bool:
    files = tried(plan.request.repository.sizes).keys()
    return files >= {unit.path for unit in plan.units} and files.isdisjoint(plan.removed)


def _add_card(repository: Repository, record: Record, commit: str) -> None:
    before = (repository.read(CARD, commit) or b"").decode(errors="replace")
    repository.upload(DATA_SET_RECORD, record_as_json(record))
    repository.upload(CARD, card_of(repository.name, record, before).encode())
