"""Measure a run on a cluster: two nodes against one, and what a job costs the driver.

The nodes are Ray's, on this machine, each with one core, one worker and a folder of media: 60 s of
AAC for each video, five utterances. Rates are by the clock, from the moment at which the driver has
jobs to the end of the last; the store is a folder. The driver works beside the nodes: on two cores,
it and the second node share one. What the machine itself gives is measured beside it: the same work
without Ray, by two workers and by one.

What the driver takes is measured without Ray: nodes return made-up results of jobs of 320 videos,
pickled as Ray's would be. Counted is the CPU time of all that the driver does from planned jobs to
the published store, without making up the results.

Example:
    python benchmarks/cluster.py
    python benchmarks/cluster.py --quick --json
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pyarrow as pa
from figures import Figure, figure, run_benchmark
from inputs import DISTINCT, FIRST_FRAMES, FRAMES, make_mp4

from voxblink2_lib.cluster.driver import Driver
from voxblink2_lib.cluster.engine import ray_engine
from voxblink2_lib.cluster.records import JobResult, JobWork, Node, Report
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import Engine, materialize, run_on_this_machine
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.published.manifest import PublishedFile, new_attempt
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.records import SealedShard
from voxblink2_lib.store.catalogue import Catalogue, Shard
from voxblink2_lib.store.job_outcomes import AttemptRow, VideoOutcomes
from voxblink2_lib.store.row_digests import DIGEST_BYTES
from voxblink2_lib.store.shard_names import shard_name

VIDEOS_PER_SPEAKER = 10
_HEADER = "Identity: {}\nReference: {}\nFRAME\tX\tY\tW\tH\n"


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    videos: int
    jobs: int
    driver_videos: int


FULL = Size(rounds=3, videos=480, jobs=16, driver_videos=10_240)
QUICK = Size(rounds=1, videos=8, jobs=2, driver_videos=640)


def make_release(folder: Path, videos: int) -> list[tuple[str, str]]:
    """Write annotations of videos; return their speakers and ids."""
    keys = [(f"id{n // VIDEOS_PER_SPEAKER:06}", f"v{n:010}") for n in range(videos)]
    for speaker, video in keys:
        place = folder / "meta" / speaker / video
        place.mkdir(parents=True)
        for number, first in enumerate(FIRST_FRAMES):
            rows = "".join(f"{frame}\t1\t1\t9\t9\n" for frame in range(first, first + FRAMES))
            text = _HEADER.format(speaker, video) + rows
            (place / f"{number:05}.txt").write_text(text)
    return keys


def make_media(folder: Path, keys: Sequence[tuple[str, str]]) -> None:
    """Make media of videos, of which many are the same file."""
    for seed in range(DISTINCT):
        make_mp4(folder / f"{seed}.mp4", seed=seed)
    for number, (speaker, video) in enumerate(keys):
        (folder / "media" / speaker).mkdir(parents=True, exist_ok=True)
        os.link(folder / f"{number % DISTINCT}.mp4", folder / "media" / speaker / f"{video}.mp4")


def request_of(folder: Path, name: str) -> MaterializeRequest:
    return MaterializeRequest.of(
        data_dir=folder,
        source=folder / "media",
        store=f"file://{folder}/{name}/published",
        scratch=folder / name / "scratch",
        workers=1,
    )


# -- Nodes -----------------------------------------------------------------------------------------


@contextmanager
def one_and_two_nodes() -> Any:
    """Yield the address of a cluster with one core, and what gives it a second and takes it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    options = {"object_store_memory": 100 << 20, "include_dashboard": False}
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    cluster.add_node(num_cpus=1, **options)
    try:
        yield (
            cluster.address,
            lambda: cluster.add_node(num_cpus=1, **options),
            cluster.remove_node,
        )
    finally:
        cluster.shutdown()


def run_seconds(request: MaterializeRequest, engine: Engine) -> float:
    """Return how long an engine works on a request."""
    taken = []

    def timed(context: RunContext, jobs: list[int]) -> None:
        start = time.perf_counter()
        engine(context, jobs)
        taken.append(time.perf_counter() - start)

    materialize(request, retry=True, wait=False, engine=timed)
    return sum(taken)


def seconds_of_nodes(request: MaterializeRequest, address: str) -> float:
    """Return how long the nodes of a cluster work on a request."""
    with ray_engine(request, address=address) as engine:
        return run_seconds(request, engine)


def speedup_without_ray(folder: Path, number: int) -> float:
    """Return how many times faster two workers of this process are than one."""
    one, two = (
        run_seconds(
            replace(request_of(folder, f"local-{workers}-{number}"), workers=workers),
            run_on_this_machine,
        )
        for workers in (1, 2)
    )
    return one / two


def measure_nodes(folder: Path, size: Size) -> Iterable[Figure]:
    make_media(folder, make_release(folder, size.videos))
    ratios, without_ray = [], []
    with (
        patch("voxblink2_lib.materialize.jobs._SMALL_CORPUS_SHARDS", size.jobs),
        one_and_two_nodes() as (address, add_node, remove_node),
    ):
        for number in range(size.rounds):
            alone = seconds_of_nodes(request_of(folder, f"one-{number}"), address)
            node = add_node()
            both = seconds_of_nodes(request_of(folder, f"two-{number}"), address)
            remove_node(node)
            ratios.append(alone / both)
            without_ray.append(speedup_without_ray(folder, number))
    yield figure("videos per second: two nodes / one", ratios, at_least=1.7)
    yield figure("the same without Ray: two workers / one", without_ray)


# -- The driver ------------------------------------------------------------------------------------


class MadeUpNodes:
    """Nodes that return made-up results at once."""

    def __init__(self) -> None:
        self._nodes = [Node(name, name, 1, "the same") for name in ("a", "b")]
        self._started: list[tuple[Node, JobWork]] = []
        self.cpu_seconds = 0.0
        self.peak_mib: list[float] = []

    def present(self) -> Sequence[Node]:
        """Return both nodes."""
        return self._nodes

    def start(self, node: Node, work: JobWork) -> None:
        """Take a job, as it comes out of Ray."""
        self._started.append((node, pickle.loads(pickle.dumps(work))))  # noqa: S301  # our own

    def results(self, *, timeout_seconds: float) -> list[tuple[Node, Any]]:
        """Return the result of the next job, as it comes out of Ray."""
        del timeout_seconds
        if not self._started:
            return []
        node, work = self._started.pop(0)
        start = time.process_time()
        answer = pickle.dumps(made_up(work))
        self.cpu_seconds += time.process_time() - start
        self.peak_mib.append(resident_mib())
        return [(node, pickle.loads(answer))]  # noqa: S301  # our own

    def reports(self) -> Sequence[tuple[Node, Report]]:
        """Return nothing."""
        return []

    def stop(self) -> None:
        """Do nothing."""


def made_up(work: JobWork) -> JobResult:
    """Return the result of a job whose videos are all done."""
    known = work.known
    names = [utterance.name for video in work.videos for utterance in video.utterances]
    digests = {name: number.to_bytes(DIGEST_BYTES) for number, name in enumerate(names)}
    name = shard_name(known.config, known.job)
    sha256, size_bytes = f"{known.job:064x}", 100_000 * len(names)
    shard = SealedShard(known.job, name, sha256, len(names), size_bytes, digests)
    attempt = AttemptRow(1, 1.0, "done", "", "", 0, 0.1, "{}")
    videos = tuple(
        VideoOutcomes(
            video.row._replace(status="done", attempts=1, clips=5, samples=480_000, updated_at=1.0),
            attempts=(attempt,),
        )
        for video in known.videos
    )
    file = PublishedFile(f"shards/{known.config}/{name}", new_attempt(), size_bytes, sha256)
    return JobResult(replace(known, videos=videos, shard=shard), file, catalogue_of(shard, names))


def catalogue_of(shard: SealedShard, names: Sequence[str]) -> bytes:
    """Return the catalogue of a shard as a file."""
    from voxblink2_lib.store import catalogue

    speakers, videos, utterances = zip(*(name.split("/") for name in names), strict=True)
    rows = [*range(len(names))]
    columns = [
        pa.array(speakers).dictionary_encode(), pa.array(videos), pa.array(utterances),
        pa.array([96_000] * len(rows), pa.int32()), pa.array(rows, pa.int64()),
        pa.array([100_000] * len(rows), pa.int32()),
    ]  # fmt: skip
    table = pa.Table.from_arrays(columns, schema=catalogue._SCHEMA)
    path = Path(os.devnull).with_name("shm") / f"voxblink2-{os.getpid()}.arrow"
    Catalogue(table, (Shard(shard.name, shard.size_bytes, len(rows)),)).write(path)
    content = path.read_bytes()
    for written in (path, path.with_name(f"{path.name}.sha256")):
        written.unlink()
    return content


def resident_mib() -> float:
    """Return how much memory this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def measure_driver(folder: Path, size: Size) -> Iterable[Figure]:
    keys = make_release(folder, size.driver_videos)
    (folder / "media").mkdir()
    nodes = MadeUpNodes()

    def engine(context: RunContext, jobs: list[int]) -> None:
        place = open_place(str(request.store))
        Driver(context, place, nodes, versions="the same").run(jobs)

    request = replace(request_of(folder, "driver"), source=str(folder / "media"))
    seconds = cpu_of_engine(request, engine) - nodes.cpu_seconds
    milliseconds = 1e3 * seconds / len(keys)
    yield figure("CPU of the driver for a video", [milliseconds], unit="ms", at_most=1)
    quarter = len(nodes.peak_mib) // 4
    growth = nodes.peak_mib[-1] / nodes.peak_mib[quarter]
    yield figure("memory of the driver: after all jobs / a quarter", [growth], at_most=1.05)
    yield figure("memory of the driver", [nodes.peak_mib[-1]], unit="MB")


def cpu_of_engine(
    request: MaterializeRequest, engine: Callable[[RunContext, list[int]], None]
) -> float:
    """Return the CPU time from the first job to the published store."""
    started = []

    def noted(context: RunContext, jobs: list[int]) -> None:
        started.append(time.process_time())
        engine(context, jobs)

    with patch("voxblink2_lib.materialize.run.check_source"):  # the folder has no media
        materialize(request, retry=False, wait=False, engine=noted)
    return time.process_time() - started[0]


def measure(folder: Path, is_quick: bool) -> Iterable[Figure]:
    size = QUICK if is_quick else FULL
    for name, part in (("driver", measure_driver), ("nodes", measure_nodes)):
        place = folder / name
        place.mkdir()
        yield from part(place, size)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
