"""Measure fetching against the `yt-dlp` command, from a site with 50 ms latency a request.

The site is a process of its own on loopback. Our fetches run as a run's do, in two processes of
threads; what is counted begins when these are warm, since a run takes hours. The command fetches
whole files one by one, each in a process of its own, as scripts do.

Example:
    python benchmarks/fetch.py
    python benchmarks/fetch.py --quick --json
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from figures import Figure, figure, seconds_of, tell
from inputs import ffmpeg

from voxblink2_lib.materialize.fetched_media import open_staged
from voxblink2_lib.materialize.pipeline import fetch_video
from voxblink2_lib.materialize.tasks import FetchResult, FetchTask
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.sources.rate_limits import Permit, RateLimiter, shared_file
from voxblink2_lib.workers.pool import Call, WorkerPool

LATENCY_SECONDS = 0.05
NEEDED_SECONDS, WHOLE_SECONDS = 60, 180
AT_ONCE = (1, 4, 16)


class Corpus:
    """Media that all have the same sound, and tasks that fetch them."""

    def __init__(self, folder: Path) -> None:
        self.media, self._kept = folder / "media", folder / "kept"
        self.tmp = folder / "tmp"
        for one in (self.media, self._kept, self.tmp):
            one.mkdir()
        self._first = self.media / "first.m4a"
        ffmpeg("-f", "lavfi", "-i", f"sine=duration={WHOLE_SECONDS}:sample_rate=44100",
               "-f", "lavfi", "-i", f"anoisesrc=duration={WHOLE_SECONDS}:amplitude=0.2",
               "-filter_complex", "amix", "-c:a", "aac", "-b:a", "128k",
               "-movflags", "+faststart", self._first)  # fmt: skip
        self._numbers = itertools.count()

    @property
    def whole_bytes(self) -> int:
        """Size of one file."""
        return self._first.stat().st_size

    def ids(self, count: int) -> list[str]:
        """Return ids of videos that nobody has asked for yet."""
        ids = [f"video{number:06}" for number in itertools.islice(self._numbers, count)]
        for one in ids:
            (self.media / f"{one}.m4a").hardlink_to(self._first)
        return ids

    def tasks(self, template: str, count: int) -> list[FetchTask]:
        """Return tasks that fetch as many new videos."""
        return [
            FetchTask(
                key=VideoKey("id000001", one),
                needed_seconds=NEEDED_SECONDS,
                source=SourceSpec("url", template),
                with_video=False,
                target=self._kept / one,
                tmp=self.tmp,
                permit=Permit(),
                rate_limiter=RateLimiter(shared_file()),
            )
            for one in self.ids(count)
        ]


@contextlib.contextmanager
def site(folder: Path) -> Iterator[str]:
    script = str(Path(__file__).with_name("slow_site.py"))
    words = [sys.executable, script, str(folder), str(LATENCY_SECONDS)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdin is not None  # for mypy: both are pipes
        assert one.stdout is not None
        try:
            yield one.stdout.readline().strip()
        finally:
            one.stdin.close()


def fetch_all(pool: WorkerPool, tasks: Iterable[FetchTask]) -> int:
    """Fetch videos; return the bytes that came."""
    came = 0
    calls: Iterator[Call] = ((fetch_video, task) for task in tasks)
    for (_, task), result in pool.run(calls.__next__):
        kept = open_staged(task.target)
        if not isinstance(result, FetchResult) or result.failure or kept is None:
            raise RuntimeError(f"a video did not come: {result}")
        came += kept[1].bytes_fetched
    return came


def run_command(template: str, ids: Iterable[str], folder: Path) -> None:
    for one in ids:
        address = template.replace("{video_id}", one)
        words = [sys.executable, "-m", "yt_dlp", "--quiet", "--ignore-config", "--no-cache-dir"]
        subprocess.run([*words, "-o", folder / f"{one}.m4a", address], check=True)


def measure(folder: Path, quick: bool) -> Iterable[Figure]:
    corpus = Corpus(folder)
    rounds, scale = (2, 8) if quick else (5, 32)
    speed: dict[str, list[float]] = defaultdict(list)
    parts: list[float] = []
    with contextlib.ExitStack() as stack:
        template = stack.enter_context(site(corpus.media))
        pools = {}
        for count in AT_ONCE:
            size = min(2, count)
            pools[count] = stack.enter_context(WorkerPool(size, threads=count // size))
            fetch_all(pools[count], corpus.tasks(template, 4 * count))
        for _ in range(rounds):
            for count, pool in pools.items():
                tasks = corpus.tasks(template, scale * min(count, 8))
                started = time.perf_counter()
                came = fetch_all(pool, tasks)
                speed[str(count)].append(60 * len(tasks) / (time.perf_counter() - started))
                parts.append(came / len(tasks) / corpus.whole_bytes)
            ids = corpus.ids(3)
            taken = seconds_of(lambda ids=ids: run_command(template, ids, corpus.tmp))  # type: ignore[misc]
            speed["yt-dlp"].append(60 * len(ids) / taken)
    yield figure("videos a minute: yt-dlp, one by one", speed["yt-dlp"], unit="")
    for count in AT_ONCE:
        ours = speed[str(count)]
        yield figure(f"videos a minute: ours, {count} at once", ours, unit="")
        ratios = [a / b for a, b in zip(ours, speed["yt-dlp"], strict=True)]
        yield figure(f"the same / yt-dlp, {count} at once", ratios)
    ratios = [a / b for a, b in zip(speed["16"], speed["1"], strict=True)]
    yield figure("16 at once / one at once", ratios, at_least=5)
    needed = NEEDED_SECONDS / WHOLE_SECONDS
    yield figure("bytes fetched / whole files", parts)
    yield figure("bytes fetched / bytes of the needed seconds", [one / needed for one in parts],
                 at_most=1.3)  # fmt: skip


if __name__ == "__main__":
    tell(__doc__, measure)
