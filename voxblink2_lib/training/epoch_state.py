"""Where a sampler is in its order, as it is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from voxblink2_lib.errors import TrainingError


class EpochState(NamedTuple):
    """A place in the order: ``position`` batches of an epoch are done."""

    seed: int
    epoch: int
    position: int


def checked_state(state: Mapping[str, Any]) -> EpochState:
    """Return a saved state.

    Raises:
        TrainingError: it is none.
    """
    names = EpochState._fields
    numbers = {name: state[name] for name in names} if set(names) <= set(state) else {}
    is_whole = len(state) - ("order" in state) == len(names)
    has_order = isinstance(state.get("order", ""), str) if numbers else False
    if not (has_order and is_whole and all(type(value) is int for value in numbers.values())):
        raise TrainingError(
            f"The state of a sampler has whole numbers {', '.join(names)} and the text order; got "
            f"{state!r}."
        )
    for name, value in numbers.items():
        at_least(name, value, 0)
    check_seed(numbers["seed"])
    return EpochState(**numbers)


def check_seed(seed: int) -> None:
    """Refuse a seed that no generator takes.

    Raises:
        TrainingError: it is too small or too large.
    """
    at_least("seed", seed, 0)
    if seed >= 1 << 64:
        raise TrainingError(f"seed is {seed}; expected is less than 2**64.")


def at_least(name: str, value: int, least: int) -> int:
    """Return an argument if it is not too small.

    Raises:
        TrainingError: it is.
    """
    if value < least:
        raise TrainingError(f"{name} is {value}; expected is {least} or more.")
    return value
