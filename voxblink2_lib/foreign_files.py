"""What foreign files say, in messages; and what they ask for, before it is granted.

A pickle is a program. Even where it may call nothing, ten bytes of it ask for gigabytes (a place in
its memo, a length), or end the process (a tuple in a tuple in a tuple, as the key of a dictionary).
So its instructions are read before they are followed, with values of which only the kind is known.
"""

from __future__ import annotations

import contextlib
import os
import pickletools
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import VoxBlink2Error, first_line

_SHOWN_CHARACTERS = 200

# Values in Parquet are compressed, and equal ones take no room: embeddings and audio hardly shrink.
_MOST_EXPANSION = 100
_ALWAYS_ALLOWED_BYTES = 1 << 30

_MOST_NESTED = 32
_LONGEST_NUMBER = 20

_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
# Form of the length in front of an argument, by pickletools' number of it.
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: "<B",
    pickletools.TAKEN_FROM_ARGUMENT4: "<i",
    pickletools.TAKEN_FROM_ARGUMENT4U: "<I",
    pickletools.TAKEN_FROM_ARGUMENT8U: "<Q",
}
_INTEGERS = {"BINPUT": "<B", "BINGET": "<B", "LONG_BINPUT": "<I", "LONG_BINGET": "<I"}

# -- Messages --------------------------------------------------------------------------------------


def shortened(value: object, *, quoted: bool = True) -> str:
    """Return a value of a foreign file as it may stand in a message, which stays readable.

    Args:
        value: a text, bytes or a number. Of anything else, only the type is named: its own
            ``repr`` may be larger than all memory.
        quoted: as in Python; otherwise, a text is written as it is.

    >>> shortened("id000001"), shortened("no column", quoted=False), shortened([1, 2])
    ("'id000001'", 'no column', 'a value of type list')
    """
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() < _SHOWN_CHARACTERS else "a number that is huge"
    if not isinstance(value, (str, bytes)):
        return f"a value of type {type(value).__name__[:_SHOWN_CHARACTERS]}"
    part = value[:_SHOWN_CHARACTERS]
    shown = part if isinstance(part, str) and not quoted else repr(part)
    return shown if len(part) == len(value) else f"{shown}... (length {len(value):,})"


@contextlib.contextmanager
def as_own_error(kind: type[VoxBlink2Error], place: str, advice: str = "") -> Iterator[None]:
    """Turn whatever a reader of a foreign file raises into an error of ours.

    A broken or hostile file makes libraries raise nearly anything, also ``MemoryError``.

    Args:
        kind: the error to raise. Errors of ours pass as they are.
        place: begins the message: the file, and where in it.
        advice: ends the message.
    """
    try:
        yield
    except VoxBlink2Error:
        raise
    except Exception as error:
        problem = shortened(first_line(error), quoted=False).rstrip(".")
        raise kind(" ".join(filter(None, [f"{place}: {problem}.", advice]))) from error


# -- Parquet ---------------------------------------------------------------------------------------


def check_parquet_size(path: Path, metadata: Any) -> None:
    """Compare what a Parquet file holds, by its own account, with its size.

    Args:
        path: the file.
        metadata: its ``pyarrow.parquet.FileMetaData``, read before any value.

    Raises:
        ValueError: it has more rows than bytes, or a hundred times its size when read.
    """
    size_bytes = os.stat(path).st_size
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    for rows in (metadata.num_rows, *(group.num_rows for group in groups)):
        if not 0 <= rows <= size_bytes:
            raise ValueError(f"it claims {rows:,} rows in {size_bytes:,} bytes")
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    # A value of a list takes up to 8 bytes, and a few bits in the file if all are equal.
    claimed = max(
        sum(column.total_uncompressed_size for column in columns),
        sum(8 * column.num_values for column in columns),
    )
    if claimed > _ALWAYS_ALLOWED_BYTES + _MOST_EXPANSION * size_bytes:
        raise ValueError(f"it claims {claimed:,} bytes of values in a file of {size_bytes:,}")


# -- Pickles ---------------------------------------------------------------------------------------


class _Value:
    """A value that a pickle makes.

    Attributes:
        is_name: may be the key of a dictionary: a text, or what a function returned, which is
            known only later (a text of NumPy).
        depth: number of containers in each other.
        is_growing: it is in no container yet, so that its depth may still change.
    """

    __slots__ = ("depth", "is_growing", "is_name")

    def __init__(self, *, is_name: bool = False, depth: int = 0, is_growing: bool = True) -> None:
        self.is_name = is_name
        self.depth = depth
        self.is_growing = is_growing


_TEXT = _Value(is_name=True, is_growing=False)
_PLAIN = _Value(is_growing=False)
_MARK = _Value(is_growing=False)


def scan_pickle(data: Any, start: int = 0, *, text_keys: bool = True) -> int:
    """Check a pickle that holds arrays or tensors; return the position of its end.

    Args:
        data: bytes, or a memory map of them.
        start: first byte of the pickle.
        text_keys: keys of dictionaries must be texts; otherwise, they may be numbers.

    Raises:
        ValueError: it is broken, or asks for what no such pickle asks for.
    """
    scan = _Scan(text_keys=text_keys)
    position = start
    try:
        while True:
            opcode = _OPCODES[data[position]]
            position, argument = _argument(data, position + 1, opcode)
            if opcode.name == "STOP":
                return position
            scan.follow(opcode.name, argument)
    except (IndexError, KeyError, struct.error, AttributeError) as error:
        raise ValueError(f"it is broken at byte {position:,}") from error
    except ValueError as error:
        raise ValueError(f"{error}, at byte {position:,}") from error


def _argument(data: Any, position: int, opcode: pickletools.OpcodeInfo) -> tuple[int, Any]:
    """Return the end of an instruction, and the place in the memo or the frame's length in it."""
    if opcode.arg is None:
        return position, None
    size = opcode.arg.n
    if size == pickletools.UP_TO_NEWLINE:
        end = data.find(b"\n", position)
        if opcode.name in {"GLOBAL", "INST"} and end >= 0:  # two lines
            end = data.find(b"\n", end + 1)
        if end < 0:
            raise IndexError
        if opcode.name in {"PUT", "GET"}:
            return end + 1, int(data[position : min(end, position + _LONGEST_NUMBER)])
        return end + 1, None
    number = None
    if size in _LENGTHS:
        (size,) = struct.unpack_from(_LENGTHS[size], data, position)
        position += struct.calcsize(_LENGTHS[opcode.arg.n])
    elif opcode.name in _INTEGERS:
        (number,) = struct.unpack_from(_INTEGERS[opcode.name], data, position)
    elif opcode.name == "FRAME":  # only the length is in the instruction
        (frame,) = struct.unpack_from("<Q", data, position)
        if frame > len(data) - position - size:
            raise ValueError(f"it asks for {frame:,} bytes")
    if not 0 <= size <= len(data) - position:
        raise ValueError(f"it asks for {size:,} bytes")
    return position + size, number


class _Scan:
    """The stack and the memo of an unpickler, of kinds of values."""

    def __init__(self, *, text_keys: bool) -> None:
        self._text_keys = text_keys
        self._stack: list[_Value] = []
        self._memo: dict[int, _Value] = {}

    def follow(self, name: str, place: int | None) -> None:
        """Follow one instruction."""
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _ACTIONS:
            _ACTIONS[name](self)
        elif place is not None and name.endswith("PUT"):
            self._put(place)
        elif place is not None and name.endswith("GET"):
            self._stack.append(self._memo[place])
        elif name not in {"PROTO", "FRAME"}:
            raise ValueError(f"it has the instruction {name}, which arrays do not need")

    def _put(self, place: int) -> None:
        # Picklers number the places from 0 or 1; a list of as many is made.
        if not 0 <= place <= len(self._memo) + 1:
            raise ValueError(f"it asks for {place:,} places in the memo")
        if self._stack[-1] is _MARK:
            raise IndexError
        self._memo[place] = self._stack[-1]

    def memoize(self) -> None:
        self._put(len(self._memo))

    def pop_to_mark(self) -> list[_Value]:
        stack = self._stack
        start = len(stack) - 1
        while stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise IndexError
        items = stack[start + 1 :]
        del stack[start:]
        return items

    def pop(self, count: int = 1) -> list[_Value]:
        items = [self._stack.pop() for _ in range(count)]
        return items[::-1]

    def push(self, items: list[_Value], *, is_name: bool = False) -> None:
        """Push a new container of items, or what a function makes of them."""
        value = _Value(is_name=is_name)
        self._stack.append(value)
        self._put_in(value, items)

    def add(self, items: list[_Value]) -> None:
        """Put items into the container that is on the stack."""
        self._put_in(self._stack[-1], items)

    def add_pairs(self, items: list[_Value]) -> None:
        for key in items[::2]:
            if not (key.is_name or (key is _PLAIN and not self._text_keys)):
                raise ValueError("it has a key that is no text")
        self.add(items)

    def _put_in(self, container: _Value, items: list[_Value]) -> None:
        if not container.is_growing:
            raise ValueError("it changes a value that is in another one")
        depth = container.depth
        for item in items:
            if item is _MARK:
                raise IndexError
            item.is_growing = False
            depth = max(depth, item.depth + 1)
        if depth > _MOST_NESTED:
            raise ValueError(f"it has more than {_MOST_NESTED} values in each other")
        container.depth = depth


def _dictionary(scan: _Scan) -> None:
    items = scan.pop_to_mark()
    scan.push([])
    scan.add_pairs(items)


_Action = Callable[[_Scan], Any]
_CONSTANTS = {
    **dict.fromkeys(["STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"], _TEXT),
    **dict.fromkeys(["SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"], _TEXT),
    **dict.fromkeys(["NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1"], _PLAIN),
    **dict.fromkeys(["BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"], _PLAIN),
    **dict.fromkeys(["SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"], _PLAIN),
    **dict.fromkeys(["GLOBAL", "PERSID"], _PLAIN),
    "MARK": _MARK,
}
_ACTIONS: dict[str, _Action] = {
    **dict.fromkeys(["EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE"], lambda scan: scan.push([])),
    **dict.fromkeys(["LIST", "TUPLE"], lambda scan: scan.push(scan.pop_to_mark())),
    "TUPLE1": lambda scan: scan.push(scan.pop(1)),
    "TUPLE2": lambda scan: scan.push(scan.pop(2)),
    "TUPLE3": lambda scan: scan.push(scan.pop(3)),
    "DICT": _dictionary,
    "APPEND": lambda scan: scan.add(scan.pop(1)),
    "APPENDS": lambda scan: scan.add(scan.pop_to_mark()),
    "SETITEM": lambda scan: scan.add_pairs(scan.pop(2)),
    "SETITEMS": lambda scan: scan.add_pairs(scan.pop_to_mark()),
    "BUILD": lambda scan: scan.add(scan.pop(1)),
    **dict.fromkeys(["REDUCE", "NEWOBJ"], lambda scan: scan.push(scan.pop(2), is_name=True)),
    "STACK_GLOBAL": lambda scan: scan.push(scan.pop(2)),
    "BINPERSID": lambda scan: scan.push(scan.pop(1), is_name=True),
    "MEMOIZE": _Scan.memoize,
    "POP": _Scan.pop,
    "POP_MARK": _Scan.pop_to_mark,
}
