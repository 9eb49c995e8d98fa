"""Measure the making of an index from an archive, beside unpacking it with gzip.

The archive is synthetic: files in the authors' form, of about 150 frames, with boxes of a wandering
face and a detector's error, so that they compress as real ones do. Each build is a process of its
own, its workers included; CPU time is that of all of them. What a start takes is left out, by the
difference to a build of a tenth. Times by the clock mean little while other programs run.

Example:
    python benchmarks/index.py
    python benchmarks/index.py --quick --json
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
from figures import Figure, children_cpu_seconds_of, figure, run_benchmark
from index_boxes import make_boxes

CORPUS_FILES, CORPUS_VIDEOS = 10_000_000, 2_000_000
FILES_PER_VIDEO, VIDEOS_PER_SPEAKER = 5, 18
JITTER = 1.5
SAMPLE_SECONDS = 0.02

_BUILD = """
import sys, time
from pathlib import Path
from voxblink2_lib.release.index_build import build_index
from voxblink2_lib.release.location import Release

started = time.perf_counter()
build_index(Release(Path(sys.argv[1])), Path(sys.argv[2]), processes=int(sys.argv[3]))
print(time.perf_counter() - started)
"""

_FINISH = """
import re, sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from voxblink2_lib.release import index_build
from voxblink2_lib.release.row_ranges import RowRanges

videos, step = int(sys.argv[2]), 10_000
ranges = RowRanges(Path(sys.argv[1]))
for first in range(0, videos, step):
    numbers = range(first, first + step)
    ranges.add(pa.record_batch({
        "speaker_id": [f"id{number // 18:06}" for number in numbers],
        "video_id": [f"v{number:010}" for number in numbers],
        "utterance_id": ["00000"] * step,
        "digest": np.arange(step),
    }))
index_build.fingerprint_of(ranges.by_video())
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(int(peak) / 1024)
"""


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    files: int
    distinct: int
    videos: int


FULL = Size(rounds=3, files=200_000, distinct=4_000, videos=CORPUS_VIDEOS)
QUICK = Size(rounds=1, files=6_000, distinct=300, videos=20_000)


# -- The archive -----------------------------------------------------------------------------------


def make_bodies(count: int) -> list[bytes]:
    """Return what follows the ids and times in annotation files."""
    chance = np.random.default_rng(0)
    bodies = []
    for frames in chance.gamma(2.5, 60, count).clip(40, 700).astype(int):
        first = int(chance.integers(0, 1000))
        numbers = np.column_stack(
            [
                np.arange(first, first + frames),
                make_boxes(chance, int(frames), JITTER),
            ]
        )
        lines = "".join("\t".join(map(str, row)) + "\n" for row in numbers.tolist())
        header = f"KBPS: {chance.uniform(80, 400):.3f}\nFPS: 25\nConf: 0.93\nFRAME\tX\tY\tW\tH\n"
        bodies.append((header + lines).encode())
    return bodies


def make_archive(path: Path, size: Size) -> None:
    """Write an archive. Bodies come again far beyond the window in which gzip finds repeats."""
    bodies = make_bodies(size.distinct)
    with open(path, "wb") as packed:
        gzip = subprocess.Popen(["gzip", "-6"], stdin=subprocess.PIPE, stdout=packed)
        stream = cast(IO[bytes], gzip.stdin)
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as archive:
            for number in range(size.files):
                name, data = make_file(number, bodies)
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        stream.close()
        gzip.wait()


def make_file(number: int, bodies: list[bytes]) -> tuple[str, bytes]:
    video, utterance = divmod(number, FILES_PER_VIDEO)
    speaker, video_id = f"id{video // VIDEOS_PER_SPEAKER:06}", f"vid{video:08}"
    start = f"Start and Duration: {number % 1500 / 25:.3f} 6.000\n"
    header = f"Identity: {speaker}\nReference: {video_id}\n{start}".encode()
    body = bodies[7919 * number % len(bodies)]
    return f"meta/{speaker}/{video_id}/{utterance:05}.txt", header + body


# -- Builds ----------------------------------------------------------------------------------------


class Build(NamedTuple):
    """What a build took: time by the clock, CPU time, and the memory of all its processes."""

    seconds: float
    cpu_seconds: float
    mebibytes: float

    def less(self, other: Build) -> Build:
        """Return the difference to a shorter build, but for the memory."""
        return Build(
            self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds, self.mebibytes
        )


def run_build(archive: Path, folder: Path, processes: int) -> Build:
    seconds = mebibytes = 0.0

    def work() -> None:
        nonlocal seconds, mebibytes
        process = subprocess.Popen(
            [sys.executable, "-c", _BUILD, archive, folder, f"{processes}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None:
            mebibytes = max(mebibytes, memory_mebibytes(process.pid))
            time.sleep(SAMPLE_SECONDS)
        seconds = float(process.communicate()[0])

    cpu_seconds = children_cpu_seconds_of(work)
    return Build(seconds, cpu_seconds, mebibytes)


def memory_mebibytes(process: int) -> float:
    """Return the memory of a process and its workers; what they share counts for each."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            if process in {int(folder.name), int(fields[1])}:
                total += int(fields[21])
        except OSError:  # it has ended
            continue
    return total * 4096 / 2**20


def output_of(program: str, *arguments: object) -> float:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    archive, tenth = folder / "vb2_meta.tar.gz", folder / "tenth.tar.gz"
    make_archive(archive, size)
    make_archive(tenth, size._replace(files=size.files // 10))
    counted = size.files - size.files // 10
    unpacking: list[float] = []
    alone: list[Build] = []
    together: list[Build] = []
    for _ in range(size.rounds):
        command = ["gzip", "-dc", archive]
        unpacking.append(
            children_cpu_seconds_of(
                lambda command=command: subprocess.run(  # type: ignore[misc]  # of this round
                    command, check=True, stdout=subprocess.DEVNULL
                )
            )
        )
        for builds, processes in ((alone, 1), (together, 2)):
            whole, start = (
                run_build(each, folder / "index", processes) for each in (archive, tenth)
            )
            builds.append(whole.less(start))
    yield figure("gzip -dc: CPU a file", [1e6 * cpu / size.files for cpu in unpacking], unit="us")
    for name, builds in (("one process", alone), ("two processes", together)):
        cpu = [build.cpu_seconds for build in builds]
        yield figure(f"index, {name}: CPU a file", [1e6 * x / counted for x in cpu], unit="us")
        ratios = [own / counted * size.files / its for own, its in zip(cpu, unpacking, strict=True)]
        yield figure("   CPU / gzip -dc", ratios, at_most=8)
        yield figure("   memory of all processes", [x.mebibytes for x in builds], unit="MB",
                     at_most=600)  # fmt: skip
    gains = [one.seconds / two.seconds for one, two in zip(alone, together, strict=True)]
    yield figure("two processes: times faster than one", gains, at_least=1.7)
    scale = CORPUS_FILES / counted / 60
    minutes = [scale * build.seconds for build in together]
    yield figure("10 million files on 2 cores: minutes", minutes, unit="", at_most=15)
    minutes = [scale * build.cpu_seconds / 2 for build in together]
    yield figure("   by CPU time, evenly divided: minutes", minutes, unit="", at_most=15)
    memory = output_of(_FINISH, folder / "ranges", size.videos)
    yield figure(f"finishing an index of {size.videos:,} videos: memory", [memory], unit="MB",
                 at_most=600)  # fmt: skip


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
