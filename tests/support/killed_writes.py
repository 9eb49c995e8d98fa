"""A process that dies at one of its writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


class KilledError(BaseException):
    """The process is gone."""


def kill_at_write(
    patched: pytest.MonkeyPatch, writes_of: Iterable[tuple[Any, str]], number: int, *, is_done: bool
) -> Callable[[], int]:
    """Kill the process at one of its writes, before or after it is done; nothing comes after that.

    Args:
        patched: takes the writes back.
        writes_of: owners and names of the functions that write.
        number: which write, from 1.
        is_done: after it is done.

    Returns:
        A function that returns how many writes were begun.
    """
    writes = [0]

    def around(owner: Any, name: str) -> None:
        write = getattr(owner, name)

        def dying(*words: Any, **options: Any) -> Any:
            writes[0] += 1
            if writes[0] == number and is_done:
                write(*words, **options)
            if writes[0] >= number:
                raise KilledError
            return write(*words, **options)

        patched.setattr(owner, name, dying)

    for owner, name in writes_of:
        around(owner, name)
    return lambda: writes[0]
