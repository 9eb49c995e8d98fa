"""Slices of the jobs of a corpus: machines that share nothing but a published store make one each.

::

    job        0   1   2   3   4   5   6 ...
    slice of 3 1   2   3   1   2   3   1 ...

Job ``j`` is in slice ``j % slices + 1``, and so is whatever comes later: shards of recovered videos
and retries take the next number of their slice. So no two slices have a job or a shard of one name.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.foreign_files import shortened

SLICE = "slice"
MOST_SLICES = 9_999
_TEXT = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_NAME = re.compile(r"([0-9]{3,4})-of-([0-9]{3,4})")


class JobSlice(NamedTuple):
    """Every job whose number leaves one certain rest.

    Attributes:
        number: of the slice, from 1.
        slices: how many there are.
    """

    number: int
    slices: int

    @classmethod
    def parse(cls, text: str) -> JobSlice:
        """Return the slice that a text names.

        Raises:
            SelectionError: it names none.

        >>> JobSlice.parse("3/64")
        JobSlice(number=3, slices=64)
        """
        match = _TEXT.fullmatch(text)
        job_slice = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= job_slice.number <= job_slice.slices <= MOST_SLICES:
            raise SelectionError(
                f"{shortened(text)} is no slice of the jobs. Slices count from 1: 1/64, 2/64 ... "
                f"64/64, and there are at most {MOST_SLICES:,}."
            )
        return job_slice

    def __str__(self) -> str:
        return f"{self.number}/{self.slices}"

    @property
    def name(self) -> str:
        """Name of its folder.

        >>> JobSlice(3, 64).name
        '003-of-064'
        """
        return f"{self.number:03}-of-{self.slices:03}"

    @classmethod
    def named(cls, name: str) -> JobSlice | None:
        """Return the slice of a folder; ``None`` if its name is of none."""
        match = _NAME.fullmatch(name)
        job_slice = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        is_right = 1 <= job_slice.number <= job_slice.slices and job_slice.name == name
        return job_slice if is_right else None

    def next_job(self, least: int) -> int:
        """Return the first number of a job of the slice from one on.

        >>> [JobSlice(3, 64).next_job(least) for least in (0, 2, 3, 1_000_000_000)]
        [2, 2, 66, 1000000002]
        """
        return least + (self.number - 1 - least) % self.slices

    def starts(self, videos: int, job_size: int) -> range:
        """Return where each of its jobs begins among the videos of all slices, in order.

        Args:
            videos: their number.
            job_size: number of videos of a job; the last one may have fewer.

        >>> list(JobSlice(2, 3).starts(11, 2))
        [2, 8]
        """
        return range((self.number - 1) * job_size, videos, self.slices * job_size)
