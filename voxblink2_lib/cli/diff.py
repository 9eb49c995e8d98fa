"""The command that compares two stores, or a store with what it was: ``diff``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import add_present_config_argument
from voxblink2_lib.cli.status import existing_store
from voxblink2_lib.cli.terminal import DONE, add_command, write_result
from voxblink2_lib.published.place import is_url

if TYPE_CHECKING:
    from voxblink2_lib.report.differences import Differences, Side

# So many reasons of each configuration are shown; all are in the JSON form.
_MAX_REASONS = 12


def _diff(options: argparse.Namespace) -> int:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.report.differences import Side, compare
    from voxblink2_lib.store.layout import named_store

    if options.after is None:
        after = _side(options.before)
        before = Side.before(named_store(options.before))
    else:
        before, after = _side(options.before), _side(options.after)
    csv_file = Path(options.csv).expanduser().absolute() if options.csv else None
    result = compare(
        before, after, config=options.config, csv_file=csv_file, progress=show_progress
    )
    record = {**result.as_dict(), "csv": str(csv_file) if csv_file else None}
    lines = [f"Before   {result.before}", f"After    {result.after}", *_lines(result)]
    if csv_file:
        lines.append(f"Listed   {csv_file}")
    write_result(options, record, lines)
    return DONE


def _side(place: str) -> Side:
    from voxblink2_lib.report.differences import Side

    return Side.of_store(existing_store(place)) if is_url(place) else Side.of(place)


def _lines(result: Differences) -> Iterator[str]:
    for config, counts in result.counts.items():
        if not counts:
            yield f"{config:<8} no difference"
            continue
        for (kind, change, reason), number in list(counts.most_common())[:_MAX_REASONS]:
            yield f"{config:<8} {number:,} {kind}{'s' * (number != 1)} {change}: {reason}"
        if len(counts) > _MAX_REASONS:
            yield f"{config:<8} {len(counts) - _MAX_REASONS:,} further reasons; --json has all"


def add_diff_command(commands: Any) -> None:
    """Add the command ``diff``."""
    does = (
        "show which speakers, videos and utterances one store has and another has not, and why; of "
        "one store, what has changed since its ledger was copied last"
    )
    example = (
        "voxblink2 diff /data/voxblink2-august /data/voxblink2 --csv changes.csv\n"
        "  voxblink2 diff /data/voxblink2"
    )
    parser = add_command(commands, "diff", _diff, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument("before", metavar="BEFORE", help="a store, or a copy of a ledger")
    parser.add_argument(
        "after",
        nargs="?",
        metavar="AFTER",
        help="another one; default: BEFORE as it is now, compared with the last copy of its ledger",
    )
    add_present_config_argument(parser)
    parser.add_argument(
        "--csv", metavar="FILE", help="also write a table with a row for each difference"
    )
