"""Expect how many days a corpus takes, of measured rates and of what a source allows.

A run downloads and crops at once, so the slower of the two counts. Downloads are bound by the
budget of each route (docs/fetching.md), cropping by the processor cores (docs/benchmarks.md).

Example:
    python benchmarks/expected_days.py
    python benchmarks/expected_days.py --videos 300000
    python benchmarks/expected_days.py --measure
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.sources.options import GUEST_BUDGET

# CPU seconds of all work on a video of 60 s, as --measure prints them; docs/benchmarks.md has the
# machine. AAC in MP4, 720 lines.
CROP_CPU_SECONDS = {"audio": 0.11, "audio-visual": 2.59}
# About what YouTube allows an account in an hour.
ACCOUNT_BUDGET = 2_000
VIDEOS = 2_000_000
_DAY_SECONDS = 86_400


class Setting(NamedTuple):
    """Machines, and what they download through.

    Attributes:
        name: in words.
        cores: of all machines.
        routes: with a budget of their own: addresses and accounts.
        budget: videos an hour by each route; 0 for no limit.
    """

    name: str
    cores: int
    routes: int = 1
    budget: float = GUEST_BUDGET


SETTINGS = (
    Setting("one machine, 16 cores, one address", 16),
    Setting("one machine, 16 cores, 8 proxies", 16, routes=8),
    Setting("one machine, 16 cores, 8 accounts", 16, routes=8, budget=ACCOUNT_BUDGET),
    Setting("cluster of 8 machines, 16 cores each, with addresses of their own", 128, routes=8),
    Setting("cluster of 8 machines, 16 cores each, behind one address", 128),
    Setting("array of 64 tasks, 2 cores each, with addresses of their own", 128, routes=64),
    Setting("array of 64 tasks, 2 cores each, behind one address", 128),
    Setting("media in a folder or a bucket, one machine, 16 cores", 16, budget=0),
    Setting("media in a folder or a bucket, 64 tasks, 2 cores each", 128, budget=0),
)


def expected_days(setting: Setting, videos: int, config: str) -> float:
    """Return how many days downloads or cropping take, whichever takes longer."""
    download = videos / (setting.routes * setting.budget * 24) if setting.budget else 0.0
    crop = videos * CROP_CPU_SECONDS[config] / (setting.cores * _DAY_SECONDS)
    return max(download, crop)


def table(videos: int) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield f"| {videos:,} videos | " + " | ".join(f"`{name}`" for name in CROP_CPU_SECONDS) + " |"
    yield "|---" * (1 + len(CROP_CPU_SECONDS)) + "|"
    for setting in SETTINGS:
        days = [expected_days(setting, videos, config) for config in CROP_CPU_SECONDS]
        yield f"| {setting.name} | {' | '.join(map(_in_words, days))} |"


def _in_words(days: float) -> str:
    if days >= 10:
        return f"{days:,.0f} days"
    return f"{days:.1f} days" if days >= 1 else f"{days * 24:.1f} hours"


def measure(count: int = 8) -> Iterator[str]:
    """Yield the CPU seconds of all work on a video, on this machine."""
    from crop_audio import run_here
    from crop_video import films_of, tasks_of
    from figures import cpu_seconds_of
    from inputs import Videos, make_film
    from machine import describe

    with tempfile.TemporaryDirectory() as folder:
        yield ", ".join(f"{name} {value}" for name, value in describe(Path(folder)).items())
        make = functools.partial(make_film, preset="medium")
        sounds = Videos(Path(folder) / "audio", extension="mp4", count=count, distinct=1)
        films = Videos(Path(folder) / "film", extension="mp4", count=count, distinct=1, make=make)
        work = {"audio": sounds.tasks(), "audio-visual": tasks_of(films_of(films))}
        for config, tasks in work.items():
            run_here(tasks[0])  # warms up
            seconds = [cpu_seconds_of(functools.partial(run_here, task)) for task in tasks[1:]]
            mean, least, most = sum(seconds) / len(seconds), min(seconds), max(seconds)
            yield f"{config}: {mean:.2f} s of CPU time a video ({least:.2f}-{most:.2f})"


def main() -> None:
    """Print the table, or measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--videos", type=int, default=VIDEOS, help="number of videos")
    parser.add_argument("--measure", action="store_true", help="measure cropping on this machine")
    args = parser.parse_args()
    for line in measure() if args.measure else table(args.videos):
        print(line, flush=True)


if __name__ == "__main__":
    main()
