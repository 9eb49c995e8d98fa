"""Names of shards: whoever sorts them as texts has them in the order of their numbers.

From 100,000 on a letter before the number stands for its length, and letters sort after digits::

    audio-00007.arrow   audio-99999.arrow   audio-a100000.arrow   audio-b1000000.arrow
"""

from __future__ import annotations

import re

_DIGITS = 5
# Before there were letters, longer numbers were written without.
_NAME = re.compile(r"(.+)-[a-z]?(\d{5,})\.arrow")


def shard_name(config: str, number: int) -> str:
    """Return the file name of a shard.

    Args:
        config: name of the configuration.
        number: of the job that it is the result of.

    >>> shard_name("audio", 7), shard_name("audio", 123_456)
    ('audio-00007.arrow', 'audio-a123456.arrow')
    """
    digits = f"{number:0{_DIGITS}}"
    length = chr(ord("a") + len(digits) - _DIGITS - 1) if len(digits) > _DIGITS else ""
    return f"{config}-{length}{digits}.arrow"


def is_shard_name(name: str) -> bool:
    """Return whether a file has the name of a shard that a run makes."""
    return _NAME.fullmatch(name) is not None


def shard_order(name: str) -> tuple[str, int]:
    """Return a key that sorts shards: by configuration, then by number; other files by name.

    >>> sorted(["audio-100000.arrow", "audio-99999.arrow"], key=shard_order)
    ['audio-99999.arrow', 'audio-100000.arrow']
    """
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, -1)
