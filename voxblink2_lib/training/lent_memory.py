"""Memory of batches that a worker uses again when the training loop is done with a batch.

New shared memory is cleared and mapped page by page by the system, which takes about as long as
decoding into it. So a worker lends a block and decodes into it again as soon as nothing in the main
process refers to it any more:

    worker                                main process
    decode into a free block
    mark it, send it              ->      a tensor
                                          the loop drops the tensor and all views of it
                                  <-      clear the mark

The mark is the last element of the block. A block that never reaches the main process in this way
keeps its mark and is not used again.

To hand memory over takes about as long as to decode a crop, and a loop touches each page of it
anew. So a block is handed over once; later a worker sends its number. The main process keeps the
blocks of a pass over a loader until the pass ends.
"""

from __future__ import annotations

import itertools
import math
import os
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils import data

# Of a worker. Two are read ahead and one is in use; loops that keep more get new memory.
_MOST_BLOCKS = 8
_FREE, _LENT = 0.0, 1.0
# What is as small as labels is faster to copy than to share.
_MOST_COPIED_BYTES = 16 << 10


class KnownBlocks(dict[tuple[int, int], npt.NDArray[np.float32]]):
    """Blocks that the main process has, by the worker's process id and the block's number there.

    Attributes:
        number: of the pass over a loader whose blocks they are.
    """

    _numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.number = next(self._numbers)
        _KNOWN[self.number] = self

    def __reduce__(self) -> tuple[type[KnownBlocks], tuple[()]]:
        return KnownBlocks, ()  # a copy, or another process, has workers of its own


_KNOWN: weakref.WeakValueDictionary[int, KnownBlocks] = weakref.WeakValueDictionary()
# In place of such a number: each batch is handed over with its block.
NOTHING_KNOWN = -1


class LentMemory:
    """The blocks of a worker, of which there are none before :meth:`lend` was called once."""

    def __init__(self) -> None:
        self._lends = False
        self._blocks: list[Tensor] = []
        self._known: set[int] = set()  # numbers of blocks that the main process has

    def empty(self, rows: int, samples: int) -> Tensor:
        """Return an empty float32 tensor, shape (rows, samples); in a worker, in shared memory."""
        size = rows * samples
        if data.get_worker_info() is None:
            return torch.empty(rows, samples)
        block = self._free_block(size) if self._lends else None
        if block is None:
            return _shared(size).view(rows, samples)
        block[-1] = _LENT
        return block[:size].view(rows, samples)

    def _free_block(self, size: int) -> Tensor | None:
        """Return a block for so many elements and its mark; ``None`` if there are too many."""
        free = [block for block in self._blocks if len(block) > size and block[-1] == _FREE]
        if free:
            return min(free, key=len)
        if len(self._blocks) == _MOST_BLOCKS:
            return None
        self._blocks.append(_shared(size + 1))
        return self._blocks[-1]

    def lend(self, batch: Mapping[str, Any], known: int) -> dict[str, Any]:
        """Return what to send in place of a batch, which arrives as it is.

        Only where nobody else in the worker keeps its tensors, or a part of them.

        Args:
            batch: of tensors from :meth:`empty`, and others.
            known: number of the main process's :class:`KnownBlocks` for this worker, or
                :data:`NOTHING_KNOWN`.
        """
        if data.get_worker_info() is None:  # it goes nowhere
            return dict(batch)
        self._lends = True
        return {name: self._to_send(value, known) for name, value in batch.items()}

    def _to_send(self, value: Any, known: int) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.nbytes <= _MOST_COPIED_BYTES:
            return _Copied(value.numpy())
        for number, block in enumerate(self._blocks):
            if block.data_ptr() == value.data_ptr():
                is_known = known != NOTHING_KNOWN and number in self._known
                self._known.add(number)
                key = (os.getpid(), number)
                return _Lent(known, key, None if is_known else block, tuple(value.shape))
        return value


class _Copied:
    """A tensor on its way, without shared memory of its own."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values = values

    def __reduce__(self) -> tuple[Any, tuple[npt.NDArray[Any]]]:
        return torch.from_numpy, (self._values,)


class _Lent:
    """A block on its way to the main process, which has it already unless it is given."""

    def __init__(
        self, known: int, key: tuple[int, int], block: Tensor | None, shape: tuple[int, ...]
    ) -> None:
        self._arguments = (known, key, block, shape)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _received, self._arguments


def _received(
    known: int, key: tuple[int, int], block: Tensor | None, shape: tuple[int, ...]
) -> Tensor:
    """Return the tensor in a block, which is given back with the last tensor that shares it."""
    blocks: dict[tuple[int, int], npt.NDArray[np.float32]] = _KNOWN.get(known, {})
    if block is not None:
        blocks[key] = block.numpy()
    values = blocks[key]
    array = values[: math.prod(shape)].reshape(shape)
    weakref.finalize(array, _give_back, values).atexit = False
    return torch.from_numpy(array)


def _give_back(block: npt.NDArray[np.float32]) -> None:
    block[-1] = _FREE


def _shared(size: int) -> Tensor:
    """Return an empty float32 tensor of memory that processes share, shape (size,)."""
    storage: Any = torch.UntypedStorage
    tensor = torch.empty(0)
    tensor.set_(storage._new_shared(4 * size), 0, (size,), (1,))
    return tensor
