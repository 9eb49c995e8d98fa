"""Random orders of millions of rows, from sorted keys.

A key has a group, random bits and an index, from the highest bits to the lowest; sorting the keys
shuffles each group and leaves the groups in order. That takes half the time of swapping rows at
random places, which are not in the processor's cache. Keys are made of the raw numbers of a bit
generator, which NumPy keeps the same in all versions (NEP 19), and no two keys are equal: the order
depends on neither NumPy's version nor the processor.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from voxblink2_lib.cores import usable_cores

Indices = npt.NDArray[np.int32]

_KEY_BITS = 64
_BLOCK = 1 << 18  # keys that are made at a time, so that only they take memory twice
_FEW = 1 << 20  # keys that one core sorts about as fast as two


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
    keys = _keys(groups, len(groups), int(groups.max(initial=0)).bit_length(), generator)
    _sort(keys)
    return _indices(keys)


def shuffle_ranges(sizes: npt.NDArray[np.integer], generator: np.random.Generator) -> Indices:
    """Return what :func:`shuffle_within` returns for ranges of such sizes, one after the other.

    Short ranges are sorted one by one, those of a size together, which takes a third of the time.

    Args:
        sizes: number of indices of each range, shape (ranges,).
        generator: gives as many numbers as there are indices.

    Example:
        >>> order = shuffle_ranges(np.array([2, 3]), np.random.default_rng(0))
        >>> sorted(order[:2].tolist()), sorted(order[2:].tolist())
        ([0, 1], [2, 3, 4])
    """
    if not len(sizes):
        return np.empty(0, np.int32)
    ends = np.cumsum(sizes)
    keys = _keys(None, int(ends[-1]), (len(sizes) - 1).bit_length(), generator)
    by_size = np.argsort(sizes, kind="stable")
    distinct, first = np.unique(sizes[by_size], return_index=True)
    for size, of_size in zip(distinct.tolist(), np.split(by_size, first[1:]), strict=True):
        places = (ends[of_size] - size)[:, None] + np.arange(size)
        keys[places] = np.sort(keys[places], axis=1)
    return _indices(keys)


def _keys(
    groups: npt.NDArray[np.integer] | None,
    count: int,
    group_bits: int,
    generator: np.random.Generator,
) -> npt.NDArray[np.uint64]:
    """Return keys of indices from 0 to ``count``, with room for their groups, or with them."""
    index_bits = _index_bits(count)
    keys = np.empty(count, np.uint64)
    for start in range(0, count, _BLOCK):
        part = keys[start : start + _BLOCK]
        part[:] = generator.bit_generator.random_raw(len(part))
        part >>= np.uint64(group_bits)
        if groups is not None and group_bits:
            high = groups[start : start + _BLOCK].astype(np.uint64)
            part |= high << np.uint64(_KEY_BITS - group_bits)
        part >>= np.uint64(index_bits)
        part <<= np.uint64(index_bits)
        part |= np.arange(start, start + len(part), dtype=np.uint64)
    return keys


def _sort(keys: npt.NDArray[np.uint64]) -> None:
    """Sort keys in place: many of them on two cores, the smaller half beside the larger one."""
    if len(keys) < _FEW or usable_cores() == 1:
        keys.sort()
        return
    middle = len(keys) // 2
    keys.partition(middle)
    with ThreadPoolExecutor(1) as beside:
        smaller = beside.submit(keys[:middle].sort)
        keys[middle:].sort()
        smaller.result()


def _indices(keys: npt.NDArray[np.uint64]) -> Indices:
    """Return the indices of keys, which are overwritten."""
    keys &= np.uint64((1 << _index_bits(len(keys))) - 1)
    return keys.astype(np.int32)


def _index_bits(count: int) -> int:
    return max(1, (count - 1).bit_length())


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
