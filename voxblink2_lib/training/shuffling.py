"""Random orders of millions of rows, from sorted keys.

A key has a group, random bits and an index, from the highest bits to the lowest; sorting the keys
shuffles each group and leaves the groups in order. That takes half the time of swapping rows at
random places, which are not in the processor's cache. Keys are made of the raw numbers of a bit
generator, which NumPy keeps the same in all versions (NEP 19), and no two keys are equal: the order
depends on neither NumPy's version nor the processor.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int32]

_KEY_BITS = 64
_BLOCK = 1 << 20  # keys that are made at a time, so that only they take memory twice


def shuffle_within(groups: npt.NDArray[np.integer], generator: np.random.Generator) -> Indices:
    """Return the indices of all values, by their group, in random order within each group.

    Args:
        groups: group of each index, from 0, shape (n,).
        generator: gives n numbers.

    Returns:
        Indices, shape (n,). Two of a group have equal random bits, and so their own order, once
        in 2 to the power of (64 - bits of an index - bits of a group) pairs.

    Example:
        >>> order = shuffle_within(np.array([1, 0, 1, 0]), np.random.default_rng(0))
        >>> sorted(order[:2].tolist()), sorted(order[2:].tolist())
        ([1, 3], [0, 2])
    """
    count = len(groups)
    index_bits = max(1, (count - 1).bit_length())
    group_bits = int(groups.max(initial=0)).bit_length()
    keys = np.empty(count, np.uint64)
    for start in range(0, count, _BLOCK):
        part = keys[start : start + _BLOCK]
        part[:] = generator.bit_generator.random_raw(len(part))
        part >>= np.uint64(group_bits)
        if group_bits:
            high = groups[start : start + _BLOCK].astype(np.uint64)
            part |= high << np.uint64(_KEY_BITS - group_bits)
        part >>= np.uint64(index_bits)
        part <<= np.uint64(index_bits)
        part |= np.arange(start, start + len(part), dtype=np.uint64)
    keys.sort()
    keys &= np.uint64((1 << index_bits) - 1)
    return keys.astype(np.int32)


def shuffle(count: int, generator: np.random.Generator) -> Indices:
    """Return the indices from 0 to ``count`` in random order, shape (count,)."""
    return shuffle_within(np.broadcast_to(np.int8(0), count), generator)


def ranges(starts: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer]) -> Indices:
    """Return start, start + 1, ... of each range, concatenated.

    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    before = np.cumsum(sizes) - sizes
    values = np.repeat((starts - before).astype(np.int32), sizes)
    values += np.arange(len(values), dtype=np.int32)
    return values
