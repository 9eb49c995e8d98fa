"""Check the files of a store that are no sealed shards: parts, catalogue, and what nobody knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from voxblink2_lib.errors import StoreDamagedError, StoreError
from voxblink2_lib.files import TEMP_GLOB
from voxblink2_lib.foreign_files import as_own_error
from voxblink2_lib.progress import Progress, no_progress, tracked
from voxblink2_lib.store.catalogue import Catalogue, catalogue_file
from voxblink2_lib.store.checksums import changed_file_problem, checksum_file
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_outcomes import LedgerOutcomes
from voxblink2_lib.store.open_shard import ROWS, WAITING, ShardState, open_shard_problem
from voxblink2_lib.store.outcome_files import SUFFIX, outcomes_path, read_outcomes
from voxblink2_lib.store.schema import FEATURES, arrow_schema
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.store.shards import read_part, read_part_outcome

_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64})  (.+)\n")


class FileCheck:
    """What is wrong with the files of one configuration beside the content of its shards.

    Args:
        store: the store.
        config: the configuration.
        ledger: ``None`` if it cannot be read.
        progress: counts parts and jobs.

    Attributes:
        notes: what a run that is at work has not recorded yet, once the problems are known.
    """

    def __init__(
        self,
        store: Store,
        config: str,
        ledger: Ledger | None,
        *,
        progress: Progress = no_progress,
    ) -> None:
        self._store = store
        self._config = config
        self._ledger = ledger
        self._progress = progress
        self._folder = store.shards(config)
        self.notes: list[str] = []

    def problems(self) -> Iterator[str]:
        """Yield all problems.

        Raises:
            StoreError: the ledger cannot be read to its end.
        """
        if self._config not in FEATURES:
            yield f"The folder {self._folder} is of no configuration of this package."
            return
        yield from self._unknown_files() if self._ledger else self._unlisted_files()
        yield from self._damaged_parts()
        yield from self._lost_parts()
        yield from self._open_shard()
        yield from self._outcomes()
        yield from self._catalogue()

    # -- The folder of shards ----------------------------------------------------------------------

    def _unknown_files(self) -> Iterator[str]:
        """Yield the files that are not in the ledger and not of a run that is at work."""
        # In this order: a shard is on disk before the ledger has it.
        files, known = self._files(), self._known_names()
        unknown = [path for path in files if path.name not in known]
        if not unknown:
            return
        began = self._store.run_began()
        known = self._known_names()  # the run may have ended just now
        for path in unknown:
            # A file of outcomes may stay when the videos have moved to another job.
            is_late = path.name.endswith(SUFFIX) and not _outcomes_problem(path)
            if is_late or path.name in known or not path.exists():
                continue
            if began is not None and path.stat().st_mtime >= began:
                self.notes.append(f"{path} is of the run that is at work.")
            else:
                yield (
                    f"{path} is in the folder and not in the ledger. If a run was stopped just "
                    "now, the next one knows it; otherwise it is a foreign file."
                )

    def _files(self) -> list[Path]:
        names = {path.name for path in self._folder.glob(TEMP_GLOB)}
        files = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return [path for path in files if path.name not in names]

    def _known_names(self) -> set[str]:
        assert self._ledger is not None
        names = {shard.name for shard in self._ledger.shards()}
        # What a run that was killed left of them is removed by the next one.
        names |= {
            shard_name(self._config, number) for number in self._ledger.recovered.superseded()
        }
        names |= {checksum_file(self._folder / name).name for name in names}
        jobs = self._ledger.outcomes.jobs()
        return names | {outcomes_path(self._folder, self._config, job).name for job in jobs}

    def _unlisted_files(self) -> Iterator[str]:
        """Yield the shards without a checksum, and checksums without a shard, without a ledger."""
        for path in self._files():
            if path.name.endswith(".arrow") and listed_checksum(path) is None:
                yield f"The checksum file {checksum_file(path)} is missing or damaged."
            shard = path.with_suffix("")
            if path.name.endswith(".arrow.sha256") and not shard.exists():
                yield f"The shard {shard} is missing: its checksum is there."

    # -- Parts -------------------------------------------------------------------------------------

    def _damaged_parts(self) -> Iterator[str]:
        """Yield the parts that are damaged, but for those that a shard has by now."""
        schema, sealed = arrow_schema(self._config), self._sealed_jobs()
        cut = self._cut_folders()
        parts = sorted(self._store.parts(self._config).glob("*/*.arrow"))
        for path in tracked(parts, self._progress, "Checking parts", unit="part"):
            if path.parent.name in sealed or path.parent in cut or self._is_begun(path):
                continue
            try:
                with as_own_error(StoreDamagedError, f"The part file {path} is damaged"):
                    read_part_outcome(path)
                    for _ in read_part(path, schema):
                        pass
            except StoreError as error:
                # The job may have been sealed just now.
                if path.exists() and path.parent.name not in self._sealed_jobs():
                    yield str(error)

    def _cut_folders(self) -> set[Path]:
        """Return the folders of jobs that are being cut, which have other files."""
        jobs = self._ledger.cut.open_jobs() if self._ledger else []
        return {self._store.job_parts(self._config, job) for job in jobs}

    def _is_begun(self, path: Path) -> bool:
        """Return whether a file is of a job that is being cut and of which nothing is committed."""
        jobs = self._ledger.jobs() if self._ledger else []
        folders = {self._store.job_parts(self._config, job) for job in jobs}
        is_of_cut = path.name == ROWS or path.match(WAITING)
        return is_of_cut and path.parent not in folders

    def _open_shard(self) -> Iterator[str]:
        """Yield what is wrong with the shard that is being cut."""
        if self._ledger is None:
            return
        cut = self._ledger.cut
        record = cut.position()
        if record is None or record["job"] not in cut.open_jobs():
            return
        state = ShardState(**record["shard"])
        problem = open_shard_problem(self._store.job_parts(self._config, record["job"]), state)
        # A run may have committed more, or sealed it, just now.
        if problem and cut.position() == record and not self._has_shard(record["job"]):
            yield f"{problem} The next run over the cut audio makes it again."

    def _sealed_jobs(self) -> set[str]:
        """Return the sealed jobs, as the folders of their parts are named."""
        if self._ledger is None:
            return set()
        jobs = self._ledger.sealed_jobs()
        return {self._store.job_parts(self._config, job).name for job in jobs}

    def _lost_parts(self) -> Iterator[str]:
        """Yield the parts that the ledger has, or the outcomes of a job, and the disk has not."""
        lost = sorted({part for part in self._expected_parts() if not part.exists()})
        sealed = self._sealed_jobs() if lost else set()
        for part in lost:
            if part.parent.name not in sealed:
                yield f"The part file {part} is missing, and its job is not sealed."

    def _expected_parts(self) -> Iterator[Path]:
        """Yield the parts of jobs that are not sealed, but for those that are being cut."""
        if self._ledger is not None:
            cut = set(self._ledger.cut.open_jobs())
            for job in sorted({*self._ledger.open_jobs()} - cut):
                for key, status in self._ledger.job_videos(job):
                    if status == "done":
                        yield self._store.part(self._config, job, key)
        files = sorted(self._folder.glob(f"*{SUFFIX}"))
        for path in tracked(files, self._progress, "Looking for parts", unit="job"):
            if not _outcomes_problem(path):
                outcomes = read_outcomes(path, with_digests=False)
                job = outcomes.job
                is_open = outcomes.shard is None and not self._has_shard(job)
                is_open &= self._store.job_parts(self._config, job) not in self._cut_folders()
                for video in outcomes.videos if is_open else ():
                    if video.row.status == "done":
                        yield self._store.part(self._config, job, video.key)

    def _has_shard(self, job: int) -> bool:
        return (self._folder / shard_name(self._config, job)).exists()

    # -- Outcomes ----------------------------------------------------------------------------------

    def _outcomes(self) -> Iterator[str]:
        """Yield the files of outcomes that are damaged, or lost, or differ from the ledger."""
        if self._ledger is None:
            for path in sorted(self._folder.glob(f"*{SUFFIX}")):
                yield from filter(None, [_outcomes_problem(path)])
            return
        known = self._ledger.outcomes
        late = set(known.stale())
        for job in tracked(known.jobs(), self._progress, "Checking outcomes", unit="job"):
            problem = self._difference(known, job, is_late=job in late)
            # A run may have written to the ledger just now, and not yet to the file.
            if problem and (job in late or job not in known.stale()):
                yield problem

    def _difference(self, known: LedgerOutcomes, job: int, *, is_late: bool) -> str:
        """Return how the file of a job differs from the ledger; one that is late may."""
        path = outcomes_path(self._folder, self._config, job)
        problem = _outcomes_problem(path)
        if is_late or problem:
            return problem if path.exists() or not is_late else ""
        if name := known.difference(read_outcomes(path, with_digests=False)):
            return (
                f"The ledger {self._store.ledger} and the file {path} differ in the {name} of job "
                f"{job}: one of them is damaged."
            )
        return ""

    # -- Catalogue ---------------------------------------------------------------------------------

    def _catalogue(self) -> Iterator[str]:
        path = catalogue_file(self._store.root, self._folder, self._config)
        if not path.exists():  # it is made at the next use
            return
        try:
            Catalogue.read(path)
        except StoreDamagedError as error:
            yield str(error)
            return
        if problem := changed_file_problem(path):
            yield problem


def _outcomes_problem(path: Path) -> str:
    """Return what is wrong with a file of outcomes; an empty text if nothing is."""
    try:
        read_outcomes(path, with_digests=False)
    except FileNotFoundError:
        return f"The file of outcomes {path} is missing."
    except StoreDamagedError as error:
        return str(error)
    return ""


def listed_checksum(shard: Path) -> str | None:
    """Return the SHA-256 in the checksum file of a shard; ``None`` if there is none."""
    try:
        match = _CHECKSUM_LINE.fullmatch(checksum_file(shard).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return match[1] if match and match[2] == shard.name else None
