"""Whether the files of a ledger are as they were written.

SQLite has no checksums of its own: a flipped bit in a text is another text. So whoever writes to a
ledger leaves the checksums of its files beside it, and removes them before the first change; after
a kill there are none, and only SQLite's own rules are checked. SQLite passes over what is damaged
in its log, with all that comes after it, as if that had never been written.

::

    ledger.sqlite            the file
    ledger.sqlite-wal        its log, which SQLite merges into the file when nobody has it open
    ledger.sqlite.sha256     a line for each of the two that was there
"""

from __future__ import annotations

import contextlib
import operator
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.errors import StoreFullError
from voxblink2_lib.files import atomic_write, sha256_of
from voxblink2_lib.store.checksums import checksum_file, checksum_line

# SQLite's file format: a log is a header, and frames that each have a header and a page.
_LOG_HEADER, _FRAME_HEADER = struct.Struct(">8I"), struct.Struct(">6I")
_LOG_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}


def log_of(ledger: Path) -> Path:
    """Return the path of a ledger's log."""
    return ledger.with_name(f"{ledger.name}-wal")


def has_log(ledger: Path) -> bool:
    """Return whether there is something in the log of a ledger."""
    try:
        return log_of(ledger).stat().st_size > 0
    except OSError:
        return False


def forget_checksums(ledger: Path) -> None:
    """Remove the checksums of a ledger, before it is changed."""
    checksum_file(ledger).unlink(missing_ok=True)


def write_checksums(ledger: Path) -> None:
    """Write the checksums of a ledger that nobody writes to; none on a disk that is full."""
    files = [ledger, *([log_of(ledger)] if has_log(ledger) else [])]
    with contextlib.suppress(OSError, StoreFullError):
        lines = "".join(checksum_line(path, sha256_of(path)) for path in files)
        with atomic_write(checksum_file(ledger)) as file:
            file.write(lines.encode())


def checksum_problems(ledger: Path) -> Iterator[str]:
    """Yield how the files of a ledger differ from what the last run left."""
    listed = checksum_file(ledger)
    try:
        before = listed.read_bytes()
        lines = [line.split("  ", 1) for line in before.decode().splitlines()]
        expected = {name: sha256 for sha256, name in lines}
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        yield f"The checksum file {listed} is damaged."
        return
    problems = []
    if ledger.name not in expected or not expected.keys() <= {ledger.name, log_of(ledger).name}:
        problems.append(f"The checksum file {listed} is damaged: it lists other files.")
    for name in expected.keys() & {ledger.name, log_of(ledger).name}:
        path = ledger.with_name(name)
        digest = sha256_of(path) if path.exists() else ""
        if digest != expected[name]:
            was = f"its SHA-256 is {digest}" if digest else "it is missing"
            problems.append(
                f"The file {path} is damaged, or was changed by another program: {was}; when the "
                f"last run ended it was {expected[name]}."
            )
    # A run that began meanwhile has removed it.
    if listed.exists() and listed.read_bytes() == before:
        yield from problems


def log_problems(ledger: Path) -> Iterator[str]:
    """Yield what is wrong with the log of a ledger that nobody writes to."""
    try:
        log = log_of(ledger).read_bytes()
    except OSError:
        return
    if log and (problem := _log_problem(log)):
        yield f"The log {log_of(ledger)} of the ledger is damaged: {problem}."


class _LogHeader(NamedTuple):
    """How a log begins.

    Attributes:
        order: of the bytes of the numbers that are summed, as in ``struct``.
        page_bytes: size of a page.
        salts: two numbers that each frame of this use of the file has.
        sums: the checksum so far.
    """

    order: str
    page_bytes: int
    salts: tuple[int, int]
    sums: tuple[int, int]


def _log_problem(log: bytes) -> str:
    """Return what is wrong with a log; an empty text if nothing is."""
    header = _log_header(log)
    if header is None:
        return "its header is not one of SQLite"
    if _sums(header.order, log[: _LOG_HEADER.size - 8]) != header.sums:
        return "the checksum of its header differs"
    return _frame_problem(log, header)


def _log_header(log: bytes) -> _LogHeader | None:
    if len(log) < _LOG_HEADER.size:
        return None
    magic, _, page_bytes, _, *salts, first, second = _LOG_HEADER.unpack_from(log)
    order = _LOG_MAGIC.get(magic)
    if order is None or not 512 <= page_bytes <= 65_536:
        return None
    return _LogHeader(order, page_bytes, (salts[0], salts[1]), (first, second))


def _frame_problem(log: bytes, header: _LogHeader) -> str:
    """Return what is wrong with the first wrong frame; an empty text if there is none.

    Frames of an earlier use of the file may follow the last one: both their salts are others.
    """
    size, sums = _FRAME_HEADER.size + header.page_bytes, header.sums
    for number, start in enumerate(range(_LOG_HEADER.size, len(log), size)):
        frame = log[start : start + size]
        if len(frame) < size:
            return f"its frame {number} is not whole"
        _, _, *salts, first, second = _FRAME_HEADER.unpack_from(frame)
        if tuple(salts) != header.salts:
            is_earlier = all(map(operator.ne, salts, header.salts))
            return "" if is_earlier else f"its frame {number} is of another log"
        sums = _sums(header.order, frame[:8] + frame[_FRAME_HEADER.size :], sums)
        if sums != (first, second):
            return f"the checksum of its frame {number} differs"
    return ""


def _sums(order: str, data: bytes, sums: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Return SQLite's running checksum after some more bytes."""
    first, second = sums
    for one, other in struct.iter_unpack(f"{order}2I", data):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second
