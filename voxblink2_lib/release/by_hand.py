"""What to do where a place cannot be reached: which files to fetch by hand, and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voxblink2_lib.errors import StoppedError, next_command
from voxblink2_lib.release.places import Offer
from voxblink2_lib.release.release_parts import PARTS, in_short

_SHOWN = 6


def unreachable(problem: str, parts: Sequence[str], *, folder: Path, address: str) -> StoppedError:
    """Return an error that says what to fetch from a place that cannot be read.

    Args:
        problem: a sentence about what is wrong.
        parts: names of the parts that are wanted.
        folder: where the release goes.
        address: of the place.
    """
    return StoppedError(
        f"{problem} Run the same command again later.\n"
        f"{parts_by_hand(parts, folder=folder, address=address)}"
    )


def parts_by_hand(parts: Sequence[str], *, folder: Path, address: str) -> str:
    """Return what to do by hand for parts of a place, of whose files only the names are known."""
    files = [path for name in parts for path in in_short(PARTS[name].files)]
    places = [f"{path.rpartition('/')[2]} -> {folder / path}" for path in files]
    return _instructions([f"{address}: {place}" for place in places], folder)


def by_hand(offers: Sequence[Offer], *, folder: Path) -> str:
    """Return what to do by hand for files of a place."""
    return _instructions([f"{offer.address} -> {folder / offer.path}" for offer in offers], folder)


def _instructions(lines: Sequence[str], folder: Path) -> str:
    more = len(lines) - _SHOWN
    shown = [f"  {line}" for line in lines[:_SHOWN]]
    if more > 0:
        shown.append(f"  and {more:,} more")
    return "\n".join(
        [
            "Or fetch by hand, with a browser that is logged in, and put each in its place:",
            *shown,
            f"Then check them: {next_command('release check', folder)}",
        ]
    )
