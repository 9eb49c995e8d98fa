"""Videos to jobs: which videos make up which shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from voxblink2_lib.records import VideoKey

# A full corpus gives about 2,000 shards of 0.5 GB; a small one is split in about 32, so that
# several workers have something to do and a DataLoader has shards to share out.
MAX_VIDEOS_PER_JOB = 1024
_SMALL_CORPUS_SHARDS = 32


def make_jobs(videos: Sequence[VideoKey]) -> Iterator[Sequence[VideoKey]]:
    """Split videos into jobs of equal size, each the content of one shard.

    The split depends on the videos alone, never on the number of workers.

    Args:
        videos: sorted.

    >>> [len(job) for job in make_jobs([VideoKey("id000001", "abcdefghijk")] * 70)][:3]
    [3, 3, 3]
    """
    size = max(1, min(MAX_VIDEOS_PER_JOB, -(-len(videos) // _SMALL_CORPUS_SHARDS)))
    for start in range(0, len(videos), size):
        yield videos[start : start + size]
