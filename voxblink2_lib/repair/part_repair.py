"""Part files of jobs that are not sealed, and files that are nobody's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from voxblink2_lib.errors import StoreError
from voxblink2_lib.progress import Progress, no_progress, tracked
from voxblink2_lib.records import VideoKey
from voxblink2_lib.repair.workbench import Workbench
from voxblink2_lib.store.checksums import checksum_file
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.open_shard import ROWS, WAITING
from voxblink2_lib.store.outcome_files import outcomes_path
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import read_part, read_part_outcome


def mend_parts(
    bench: Workbench,
    ledger: Ledger,
    *,
    reopened: Iterable[int] = (),
    progress: Progress = no_progress,
) -> list[VideoKey]:
    """Drop damaged part files; return the videos of open jobs that have to be cropped again.

    Args:
        bench: the store.
        ledger: its ledger, which is right.
        reopened: jobs whose parts were written just now.
        progress: counts jobs.
    """
    hurt: list[VideoKey] = []
    # What is being cut from an archive is checked by the run that goes on with it.
    jobs = sorted({*ledger.open_jobs()} - {*reopened} - {*ledger.cut.open_jobs()})
    for job in tracked(jobs, progress, "Checking parts", unit="job"):
        for key, status in ledger.job_videos(job):
            path = bench.store.part(ledger.config, job, key)
            problem = _problem(path, ledger.config)
            if problem is None or (problem == _MISSING and status != "done"):
                continue
            if status == "done":
                hurt.append(key)
            text = f"{problem} {key.speaker_id}/{key.video_id} is cropped again by the next run"
            if path.exists():
                bench.put_away("part", path, text)
            else:
                bench.mend("part", path, text)
    ledger.reopened.forget(hurt)
    return hurt


_MISSING = "The clips of a video that is done are missing."


def _problem(path: Path, config: str) -> str | None:
    try:
        for _ in read_part(path, arrow_schema(config)):
            pass
        return _MISSING if read_part_outcome(path) is None else None
    except StoreError as error:
        return str(error) if path.exists() else _MISSING


def put_strangers_away(bench: Workbench, ledger: Ledger) -> None:
    """Move files to ``lost+found`` that no run has put where they are, or has left behind."""
    store, config = bench.store, ledger.config
    for path in [
        *_strangers(store.shards(config), _shard_files(store.shards(config), ledger)),
        *_strange_parts(bench, ledger),
    ]:
        if path not in bench.handled:
            bench.put_away("stranger", path, "it is no file of this store")


def _strangers(folder: Path, known: set[Path]) -> Iterator[Path]:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            # Hidden ones are of programs that look at folders, or half-written by a killed run.
            if path not in known and not path.name.startswith("."):
                yield path


def _shard_files(folder: Path, ledger: Ledger) -> set[Path]:
    shards = [folder / shard.name for shard in ledger.shards()]
    outcomes = [outcomes_path(folder, ledger.config, job) for job in ledger.jobs()]
    return {*shards, *map(checksum_file, shards), *outcomes}


def _strange_parts(bench: Workbench, ledger: Ledger) -> Iterator[Path]:
    store, config = bench.store, ledger.config
    # The next run removes those of sealed jobs, and of one that was begun and never committed.
    jobs = {store.job_parts(config, job) for job in ledger.jobs()}
    begun = {path.parent for path in store.parts(config).glob(f"*/{ROWS}")}
    yield from _strangers(store.parts(config), jobs | begun)
    for job in ledger.open_jobs():
        videos = ledger.job_videos(job)
        parts = {store.part(config, job, key) for key, _ in videos}
        if job in ledger.cut.open_jobs():
            folder = store.job_parts(config, job)
            parts = {folder / ROWS, *folder.glob(WAITING)}
        yield from _strangers(store.job_parts(config, job), parts)
