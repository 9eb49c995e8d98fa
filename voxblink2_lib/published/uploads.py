"""What other machines have uploaded for a store: shards that are not in its scratch store.

::

    SCRATCH/published/uploads/audio/audio-00007.json     the file at the URL
    SCRATCH/published/uploads/audio/audio-00007.arrow    its part of the catalogue
    URL/jobs/audio/00007/<attempt>/                      clips and outcomes of an open job

A shard is noted before the ledger names it, and forgotten once a manifest does. What is noted and
in no ledger is of a run that was killed in between: the next result of the job replaces it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from voxblink2_lib.files import atomic_write
from voxblink2_lib.published.manifest import PublishedFile
from voxblink2_lib.published.scratch import FOLDER, last_manifest
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.shard_names import shard_order

# Folder of what open jobs have uploaded.
JOBS = "jobs"
_JOB = re.compile(rf"{JOBS}/({'|'.join(CONFIG_NAMES)})/([0-9]{{5,10}})/[A-Za-z0-9_./-]+")


def job_folder(config: str, job: int) -> str:
    """Return the folder at the URL of what has left the nodes of an open job.

    >>> job_folder("audio", 7)
    'jobs/audio/00007'
    """
    return f"{JOBS}/{config}/{job:05}"


def finished_jobs_of(store: Store, names: Iterable[str]) -> list[str]:
    """Return which files at the URL are of jobs that are not open any more.

    Those of a shard that no manifest names yet are kept: if the scratch store is lost, the shard is
    made of them again.

    Args:
        store: the scratch store.
        names: of files at the URL.
    """
    jobs = {name: match for name in names if (match := _JOB.fullmatch(name))}
    if not jobs or not store.ledger.exists():
        return []
    kept = {_job_of(path) for path, _ in read_uploads(store)}
    for config in CONFIG_NAMES:
        with Ledger(store.ledger, config, readonly=True) as ledger:
            kept |= {(config, job) for job in ledger.open_jobs()}
    return [name for name, match in jobs.items() if (match[1], int(match[2])) not in kept]


def _job_of(path: str) -> tuple[str, int]:
    """Return the configuration and the job of a shard by its path in a store."""
    _, config, name = path.split("/")
    return config, shard_order(name)[1]


def note_upload(store: Store, file: PublishedFile, catalogue: bytes) -> None:
    """Write that a shard is at the URL, before the ledger names it.

    Args:
        store: the scratch store.
        file: the shard.
        catalogue: of it, as a file.
    """
    path = _folder(store) / PurePosixPath(file.path).relative_to("shards")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as written:
        written.write(catalogue)
    with atomic_write(path.with_suffix(".json")) as written:
        written.write(json.dumps(asdict(file)).encode())


def read_uploads(store: Store) -> dict[tuple[str, str], PublishedFile]:
    """Return the shards that are noted, by path and SHA-256."""
    records = (json.loads(path.read_bytes()) for path in _folder(store).glob("*/*.json"))
    files = [PublishedFile(**record) for record in records]
    return {(file.path, file.sha256): file for file in files}


def shards_at_url(store: Store, config: str) -> set[str]:
    """Return the names of the shards that are at the URL of a scratch store; of any other, none."""
    last = last_manifest(store)
    noted = {PurePosixPath(path) for path, _ in read_uploads(store)}
    named = {path.name for path in noted if path.parent.name == config}
    return named | set(last.shards(config) if last else ())


def upload_catalogues(store: Store, config: str) -> list[Path]:
    """Return the catalogues of the shards that are noted."""
    return sorted((_folder(store) / config).glob("*.arrow"))


def forget_uploads(store: Store, files: Mapping[str, PublishedFile]) -> list[str]:
    """Forget the shards that a manifest names.

    Returns:
        The folders at the URL of what had left the nodes before: it is not needed any more.
    """
    named = [file for file in read_uploads(store).values() if files.get(file.path) == file]
    for file in named:
        path = _folder(store) / PurePosixPath(file.path).relative_to("shards")
        path.with_suffix(".json").unlink()
        path.unlink(missing_ok=True)
    return [job_folder(*_job_of(file.path)) for file in named]


def _folder(store: Store) -> Path:
    return store.root / FOLDER / "uploads"
