"""Lists over all units, made of the lines that each unit has left."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby
from typing import NamedTuple

from voxblink2_lib.export.formats import SPK2UTT, Format, ListFile
from voxblink2_lib.export.output import TARGET
from voxblink2_lib.export.tar_formats import UTT2SPK
from voxblink2_lib.export.target import Target
from voxblink2_lib.export.units import Receipt, read_list
from voxblink2_lib.progress import Advance, Progress, no_progress


class SortedPart(NamedTuple):
    """Some sorted lines: the first of them, and what reads them all."""

    first: str
    read: Callable[[], Sequence[str]]


def write_lists(
    target: Target,
    chosen: Format,
    receipts: Sequence[Receipt],
    *,
    progress: Progress = no_progress,
) -> None:
    """Write the lists of a format.

    Args:
        target: where they go.
        chosen: the format.
        receipts: of the units, in order.
        progress: counts lines.
    """
    total = sum(part.lines for receipt in receipts for part in receipt.lists.values())
    with progress("Writing lists", unit="line", total=total) as advance:
        for entry in chosen.lists:
            header = [entry.header] if entry.header else []
            lines = _lines(target, entry, receipts, advance)
            _write(target, entry.name, chain(header, lines))
        if chosen.with_spk2utt:
            pairs = _lines(target, ListFile(UTT2SPK, is_sorted=True), receipts)
            _write(target, SPK2UTT, spk2utt(pairs))


def _write(target: Target, path: str, lines: Iterable[str]) -> None:
    with target.file(path) as file:
        for line in lines:
            file.write(f"{line}\n".encode())


def _ignore(count: int) -> None:
    """Count nothing."""


def _lines(
    target: Target, entry: ListFile, receipts: Sequence[Receipt], advance: Advance = _ignore
) -> Iterator[str]:
    parts = [
        SortedPart(part.first, partial(read_list, target, receipt.unit, entry.name))
        for receipt in receipts
        if (part := receipt.lists.get(entry.name))
    ]
    lines = merged(parts) if entry.is_sorted else chain.from_iterable(p.read() for p in parts)
    for line in lines:
        yield line.replace(TARGET, target.url, 1)
        advance(1)


def merged(parts: Iterable[SortedPart]) -> Iterator[str]:
    """Yield the lines of sorted parts in order.

    A part is read when its first line is due: shards follow each other for the most part, so that
    few are in memory at once.

    >>> list(merged([SortedPart("b", lambda: ["b", "d"]), SortedPart("a", lambda: ["a", "c"])]))
    ['a', 'b', 'c', 'd']
    """
    waiting = deque(sorted(enumerate(parts), key=lambda numbered: numbered[1].first))
    reading: list[tuple[str, int, Iterator[str]]] = []
    while waiting or reading:
        while waiting and (not reading or waiting[0][1].first <= reading[0][0]):
            number, part = waiting.popleft()
            lines = iter(part.read())
            heapq.heappush(reading, (next(lines), number, lines))
        line, number, lines = reading[0]
        yield line
        following = next(lines, None)
        if following is None:
            heapq.heappop(reading)
        else:
            heapq.heapreplace(reading, (following, number, lines))


def spk2utt(utt2spk: Iterable[str]) -> Iterator[str]:
    """Yield the lines of ``spk2utt`` from those of ``utt2spk``, which are sorted.

    >>> list(spk2utt(["a/1 a", "a/2 a", "b/1 b"]))
    ['a a/1 a/2', 'b b/1']
    """
    pairs = (line.split(" ") for line in utt2spk)
    for speaker, group in groupby(pairs, lambda pair: pair[1]):
        yield " ".join([speaker, *(utterance for utterance, _ in group)])
