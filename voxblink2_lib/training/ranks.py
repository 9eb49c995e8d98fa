"""Which of several processes that train together this one is."""

from __future__ import annotations

import os
from typing import NamedTuple

from torch import distributed


class Ranks(NamedTuple):
    """Rank of a process, and number of processes that train together."""

    rank: int
    world_size: int


def process_ranks() -> Ranks:
    """Return the ranks of the process group, or else those that ``torchrun`` will give it.

    >>> process_ranks()
    Ranks(rank=0, world_size=1)
    """
    if distributed.is_available() and distributed.is_initialized():
        return Ranks(distributed.get_rank(), distributed.get_world_size())
    return Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
