"""Measure fetching against the `yt-dlp` command, from a site with 50 ms latency per request.

The site is a separate process on loopback. Ours downloads as in a run, in two processes of threads;
timing starts when these are warm, since a run takes hours. The command downloads whole files one by
one, each in a process of its own, as scripts do.

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

from figures import Figure, figure, run_benchmark, seconds_of
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
    """Media that all have the same audio, and tasks that download them."""

    def __init__(self, folder: Path) -> None:
        self.media, self._staged = folder / "media", folder / "staged"
        self.tmp = folder / "tmp"
        for path in (self.media, self._staged, self.tmp):
            path.mkdir()
        self._first = self.media / "first.m4a"
        ffmpeg("-f", "lavfi", "-i", f"sine=duration={WHOLE_SECONDS}:sample_rate=44100",
               "-f", "lavfi", "-i", f"anoisesrc=duration={WHOLE_SECONDS}:amplitude=0.2",
               "-filter_complex", "amix", "-c:a", "aac", "-b:a", "128k",
               "-movflags", "+faststart", self._first)  # fmt: skip
        self._indices = itertools.count()
        self.stream = self.media / "stream000001.m3u8"
        ffmpeg("-i", self._first, "-c", "copy", "-f", "hls", "-hls_time", "4",
               "-hls_playlist_type", "vod", self.stream)  # fmt: skip

    @property
    def whole_bytes(self) -> int:
        """Size of one file."""
        return self._first.stat().st_size

    def ids(self, count: int) -> list[str]:
        """Return ids of videos that were not requested before."""
        ids = [f"video{index:06}" for index in itertools.islice(self._indices, count)]
        for video_id in ids:
            (self.media / f"{video_id}.m4a").hardlink_to(self._first)
        return ids

    @property
    def stream_bytes(self) -> int:
        """Size of all segments of the stream."""
        return sum(path.stat().st_size for path in self.media.glob("*.ts"))

    def tasks(self, template: str, count: int) -> list[FetchTask]:
        """Return tasks that download that many new videos."""
        return [self.task(template, video_id) for video_id in self.ids(count)]

    def task(self, template: str, video_id: str) -> FetchTask:
        """Return a task that downloads one video."""
        return FetchTask(
            key=VideoKey("id000001", video_id),
            needed_seconds=NEEDED_SECONDS,
            source=SourceSpec("url", template),
            with_video=False,
            target=self._staged / video_id,
            tmp=self.tmp,
            permit=Permit(),
            rate_limiter=RateLimiter(shared_file()),
        )


@contextlib.contextmanager
def site(folder: Path) -> Iterator[str]:
    script = str(Path(__file__).with_name("slow_site.py"))
    command = [sys.executable, script, str(folder), str(LATENCY_SECONDS)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None  # for mypy: both are pipes
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def fetch_all(pool: WorkerPool, tasks: Iterable[FetchTask]) -> int:
    """Download videos; return the bytes downloaded."""
    downloaded = 0
    calls: Iterator[Call] = ((fetch_video, task) for task in tasks)
    for (_, task), result in pool.run(calls.__next__):
        staged = open_staged(task.target)
        if not isinstance(result, FetchResult) or result.failure or staged is None:
            raise RuntimeError(f"a download failed: {result}")
        downloaded += staged[1].bytes_fetched
    return downloaded


def run_command(template: str, ids: Iterable[str], folder: Path) -> None:
    for video_id in ids:
        url = template.replace("{video_id}", video_id)
        command = [sys.executable, "-m", "yt_dlp", "--quiet", "--ignore-config", "--no-cache-dir"]
        subprocess.run([*command, "-o", folder / f"{video_id}.m4a", url], check=True)


def measure(folder: Path, quick: bool) -> Iterable[Figure]:
    corpus = Corpus(folder)
    rounds, scale = (2, 8) if quick else (5, 32)
    speed: dict[str, list[float]] = defaultdict(list)
    shares: list[float] = []
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
                downloaded = fetch_all(pool, tasks)
                speed[str(count)].append(60 * len(tasks) / (time.perf_counter() - started))
                shares.append(downloaded / len(tasks) / corpus.whole_bytes)
            ids = corpus.ids(3)
            taken = seconds_of(lambda ids=ids: run_command(template, ids, corpus.tmp))  # type: ignore[misc]
            speed["yt-dlp"].append(60 * len(ids) / taken)
        stream = corpus.task(template.replace(".m4a", ".m3u8"), corpus.stream.stem)
        stream_share = fetch_all(pools[1], [stream]) / corpus.stream_bytes
    yield figure("videos per minute: yt-dlp, one by one", speed["yt-dlp"], unit="")
    for count in AT_ONCE:
        ours = speed[str(count)]
        yield figure(f"videos per minute: ours, {count} at once", ours, unit="")
        ratios = [a / b for a, b in zip(ours, speed["yt-dlp"], strict=True)]
        yield figure(f"the same / yt-dlp, {count} at once", ratios)
    ratios = [a / b for a, b in zip(speed["16"], speed["1"], strict=True)]
    yield figure("16 at once / one at once", ratios, at_least=5)
    needed = NEEDED_SECONDS / WHOLE_SECONDS
    yield figure("bytes downloaded / whole files", shares)
    ratios = [share / needed for share in shares]
    yield figure("bytes downloaded / bytes of the needed seconds", ratios, at_most=1.3)
    yield figure("the same of an HLS stream", [stream_share / needed], at_most=1.3)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
