"""Compare a result with the same result computed again, number by number."""

from __future__ import annotations

import math
import platform
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import version
from typing import NamedTuple

import numpy as np

from voxblink2_lib import __version__

# How far numbers of other versions, or of another processor, may be apart: absolute, or of the
# larger one. A cosine may have another last bit there, and then another trial be the first wrong.
TOLERANCE = 1e-4
# So far may counts of errors be apart.
_TOLERATED_ERRORS = 1

_ERROR_COUNTS = ("misses", "false_accepts")

_PACKAGES = ("numpy", "scipy", "pyarrow")

Leaf = str | int | float | bool | None


class Difference(NamedTuple):
    """A value that is not the same.

    Attributes:
        name: its keys in JSON, with dots between them.
        recorded: in the result; ``None`` also if it is not there.
        here: computed again.
    """

    name: str
    recorded: Leaf
    here: Leaf


def current_versions() -> dict[str, str]:
    """Return what the bits of a result depend on besides its files and options."""
    # NumPy sums in another order where a processor has wider registers.
    simd = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return {
        "voxblink2": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "processor": " ".join([platform.machine(), *simd]),
    }


def compare_results(
    recorded: Mapping[str, object],
    here: Mapping[str, object],
    *,
    is_exact: bool,
    ignored: Collection[str] = (),
) -> tuple[int, list[Difference]]:
    """Compare all values of two results, as they were read from JSON.

    Args:
        recorded: the result.
        here: the one that was computed again.
        is_exact: numbers must have the same bits; otherwise, they may differ by
            :data:`TOLERANCE`, and counts of errors by one. Other counts and texts may not.
        ignored: keys that are not compared, wherever they are.

    Returns:
        How many values were compared, and which differ.

    >>> compare_results({"eer": 0.25, "errors": [3, 4]}, {"eer": 0.25, "errors": [3, 5]},
    ...                 is_exact=True)
    (3, [Difference(name='errors.1', recorded=4, here=5)])
    """
    leaves, others = dict(_leaves(recorded, ignored)), dict(_leaves(here, ignored))
    names = dict.fromkeys([*leaves, *others])
    differences = [
        Difference(name, leaves.get(name), others.get(name))
        for name in names
        if name not in leaves
        or name not in others
        or not _agree(name, leaves[name], others[name], is_exact)
    ]
    return len(names), differences


def _leaves(value: object, ignored: Collection[str], name: str = "") -> Iterator[tuple[str, Leaf]]:
    if isinstance(value, Mapping):
        pairs = [(str(key), inner) for key, inner in value.items() if key not in ignored]
    elif isinstance(value, list):
        pairs = [(str(place), inner) for place, inner in enumerate(value)]
    else:
        assert isinstance(value, Leaf)
        yield name, value
        return
    for key, inner in pairs:
        yield from _leaves(inner, ignored, f"{name}.{key}" if name else key)


def _agree(name: str, recorded: Leaf, here: Leaf, is_exact: bool) -> bool:
    if type(recorded) is not type(here):
        return False
    if is_exact or not isinstance(recorded, float) or not isinstance(here, float):
        is_count = name.rpartition(".")[2] in _ERROR_COUNTS and not is_exact
        if is_count and isinstance(recorded, int) and isinstance(here, int):
            return abs(recorded - here) <= _TOLERATED_ERRORS
        return recorded == here
    return math.isclose(recorded, here, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
