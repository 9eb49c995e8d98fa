"""Measure an export against a bare loop that writes the same bytes into the same files.

The store is synthetic: utterances of 6 s as FLAC, as hard to compress as speech, in shards of
160 MB; a full shard has 600 MB. The export reads them from its shards, on as many processes as it
takes by default (of so little, one), and writes them with their checksums. The bare loop has the
very bytes of that export in memory and writes them to files of the same names, in pieces as large:
a header, a clip. Both end when all is flushed to the disk, and are measured in turns.

Rates are by the clock. What one process of the export takes of the processor is shown beside them.

Example:
    python benchmarks/export.py
    python benchmarks/export.py --quick --json
"""

from __future__ import annotations

import itertools
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from archive import DIFFERENT, UTTERANCES_PER_VIDEO, VIDEOS_PER_SPEAKER, make_samples, wav
from figures import Figure, cpu_seconds_of, figure, run_benchmark, seconds_of

from voxblink2_lib.export.formats import find_format
from voxblink2_lib.export.plan import ExportRequest, plan_export
from voxblink2_lib.export.run import export
from voxblink2_lib.export.target import Target
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.store.layout import Store

FORMATS = ("webdataset", "wespeaker", "lhotse", "folder", "nemo", "csv")
UTTERANCES, QUICK_UTTERANCES = 3_000, 60
ROUNDS, QUICK_ROUNDS = 5, 1
VIDEOS_PER_SHARD = 256
_TAR_BLOCK = 512


class Measured(NamedTuple):
    """Seconds on the clock, and of the processor where one process does it all."""

    export: float
    bare: float
    export_cpu: float
    bare_cpu: float


def make_store(folder: Path, utterances: int) -> Store:
    """Make a store of cut audio."""
    rng = np.random.default_rng(0)
    different = [wav(make_samples(rng)) for _ in range(DIFFERENT)]
    for number in range(utterances):
        video, utterance = divmod(number, UTTERANCES_PER_VIDEO)
        path = folder / "cut" / f"id{video // VIDEOS_PER_SPEAKER:06}" / f"v{video:010}"
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{utterance:05}.wav").write_bytes(different[number % DIFFERENT])
    request = MaterializeRequest.of(source=str(folder / "cut"), store=str(folder / "store"))
    with patch("voxblink2_lib.materialize.cut_audio_job.job_size", lambda _: VIDEOS_PER_SHARD):
        materialize(request, retry=True, wait=False)
    shutil.rmtree(folder / "cut")
    return Store(folder / "store")


def run_export(store: Store, name: str, out: Path, workers: int | None = None) -> None:
    request = ExportRequest(store, "audio", find_format(name), Target.of(str(out)))
    export(plan_export(request), workers=workers)


def pieces_of(path: Path) -> list[bytes]:
    """Return the content of a file in the pieces that a simple program would write."""
    data = path.read_bytes()
    if path.suffix != ".tar":
        return [data]
    with tarfile.open(path) as archive:
        bounds = [(member.offset_data, member.size) for member in archive]
    cuts = [0]
    for start, size in bounds:
        cuts += [start, start + size, start + -(-size // _TAR_BLOCK) * _TAR_BLOCK]
    cuts.append(len(data))
    return [data[start:stop] for start, stop in itertools.pairwise(cuts) if start < stop]


def write_bare(files: dict[str, list[bytes]], out: Path) -> None:
    """Write files from memory, and flush them as the export does."""
    is_many = len(files) > 100
    for name, pieces in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            for piece in pieces:
                file.write(piece)
            if not is_many:
                file.flush()
                os.fsync(file.fileno())
    if is_many:
        os.sync()


def measure_format(folder: Path, store: Store, name: str, rounds: int) -> Iterator[Measured]:
    out, bare = folder / "out", folder / "bare"
    run_export(store, name, out)
    paths = [path for path in sorted(out.rglob("*")) if path.is_file()]
    files = {str(path.relative_to(out)): pieces_of(path) for path in paths}
    for _ in range(rounds):
        clear(out, bare)
        wall = seconds_of(partial(run_export, store, name, out))
        clear(out, bare)
        start = time.perf_counter()
        bare_cpu = cpu_seconds_of(partial(write_bare, files, bare))
        bare_wall = time.perf_counter() - start
        clear(out, bare)
        cpu = cpu_seconds_of(partial(run_export, store, name, out, workers=1))
        yield Measured(wall, bare_wall, cpu, bare_cpu)
    clear(out, bare)


def clear(*folders: Path) -> None:
    """Remove what was written, and let the disk come to rest."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    """Yield the rate of an export as a part of that of the bare loop, for each format."""
    store = make_store(folder, QUICK_UTTERANCES if quick else UTTERANCES)
    for name in FORMATS:
        rounds = QUICK_ROUNDS if quick else ROUNDS
        measured = list(measure_format(folder, store, name, rounds))
        rates = [times.bare / times.export for times in measured]
        cpu = [times.bare_cpu / times.export_cpu for times in measured]
        yield figure(f"{name}: rate / of a bare loop", rates, at_least=0.8)
        yield figure(f"{name}: processor time of a bare loop / of one process", cpu)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
