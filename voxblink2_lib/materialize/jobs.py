"""Videos to jobs: which videos make up which shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from voxblink2_lib.errors import StoreError
from voxblink2_lib.records import VideoKey

# A full corpus gives about 2,000 shards of 0.5 GB; a small one is split in about 32, so that
# several workers have something to do and a DataLoader has shards to share out.
MAX_VIDEOS_PER_JOB = 1024
_SMALL_CORPUS_SHARDS = 32
# Whoever loads a store maps each shard into memory, and Linux allows a process 65,530 maps.
MAX_SHARDS = 50_000


def make_jobs(
    videos: Sequence[VideoKey], *, size: int | None = None
) -> Iterator[Sequence[VideoKey]]:
    """Split videos into jobs of equal size, each the content of one shard.

    The split depends on the videos alone, never on the number of workers.

    Args:
        videos: sorted.
        size: number of videos of a job. Default: that of as many videos as these.

    >>> [len(job) for job in make_jobs([VideoKey("id000001", "abcdefghijk")] * 70)][:3]
    [3, 3, 3]
    """
    size = size or job_size(len(videos))
    for start in range(0, len(videos), size):
        yield videos[start : start + size]


def count_jobs(videos: int) -> int:
    """Return into how many jobs so many videos are split."""
    return -(-videos // job_size(videos))


def full_shards(videos: int) -> int:
    """Return into how many shards so many videos fit that come back."""
    return -(-videos // MAX_VIDEOS_PER_JOB)


def job_size(videos: int) -> int:
    """Return into jobs of how many so many videos are split."""
    return max(1, min(MAX_VIDEOS_PER_JOB, -(-videos // _SMALL_CORPUS_SHARDS)))


def check_shard_count(shards: int, new: int) -> None:
    """Refuse to plan more shards than a process can map.

    Args:
        shards: number of those that the store has, or that are planned.
        new: the most that would be added.

    Raises:
        StoreError: they would be more than :data:`MAX_SHARDS`.
    """
    if shards + new > MAX_SHARDS:
        raise StoreError(
            f"The store has {shards:,} shards, and this run would add up to {new:,}; allowed are "
            f"{MAX_SHARDS:,}, since a process cannot map many more. Nothing was planned. Each step "
            "by which a selection grows adds shards of its own: materialize the whole selection "
            "in one step into another store, named with --store."
        )
