"""The command that takes speakers, videos and utterances out of a store: ``purge``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import add_place_arguments
from voxblink2_lib.cli.status import named_or_default_store
from voxblink2_lib.cli.terminal import CHECK_FAILED, DONE, add_command, write_result
from voxblink2_lib.progress import counted

if TYPE_CHECKING:
    from voxblink2_lib.purge.run import Purge
    from voxblink2_lib.purge.traces import Trace
    from voxblink2_lib.store.layout import Store

# So many files and ids are named; all are in the JSON form.
_MAX_NAMES = 5


def _purge(options: argparse.Namespace) -> int:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.purge.ids import read_purged_ids
    from voxblink2_lib.purge.run import plan_purge, purge_store
    from voxblink2_lib.store.layout import named_store

    # What is at a URL is not rewritten.
    store = named_store(options.store) if options.store else named_or_default_store(options)
    if options.check:
        return _check(options, store)
    ids = read_purged_ids(options.ids)
    if options.dry_run:
        result = plan_purge(store, ids, progress=show_progress)
    else:
        result = purge_store(store, ids, reason=options.reason, progress=show_progress)
    write_result(options, result.as_dict(), _lines(result))
    return CHECK_FAILED if result.is_dry and result.has_work else DONE


def _check(options: argparse.Namespace, store: Store) -> int:
    from voxblink2_lib.errors import UsageError
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.purge.traces import traces_in
    from voxblink2_lib.release.tombstones import Tombstones

    if options.ids or options.dry_run:
        raise UsageError("--check looks for what was purged before. Leave out ids and --dry-run.")
    tombstones = Tombstones.of(store.root)
    if not tombstones:
        raise UsageError(
            f"Nothing was purged from the store {store.root}, so there is nothing to look for. "
            "Name the store that was purged with --store."
        )
    traces = traces_in(map(Path, options.check), tombstones, progress=show_progress)
    record = {"store": str(store.root), "traces": [_as_dict(trace) for trace in traces]}
    write_result(options, record, [_trace_line(trace) for trace in traces] or ["Nothing is left"])
    return CHECK_FAILED if traces else DONE


def _as_dict(trace: Trace) -> dict[str, Any]:
    return {"path": trace.path, "ids": list(trace.ids), "count": trace.count}


def _trace_line(trace: Trace) -> str:
    return f"Left     {trace.path} has {counted(trace.count, 'purged id')}: {_listed(trace.ids)}"


# -- Lines -----------------------------------------------------------------------------------------


def _lines(result: Purge) -> list[str]:
    lines = [f"Store    {result.store}"]
    if result.unknown:
        lines.append(f"Unknown  not in the store, and kept out of it: {_listed(result.unknown)}")
    lines += _work_lines(result) if result.has_work else ["Purged   nothing of it is in the store"]
    lines += [f"Left     in a cache, delete it: {name}" for name in result.caches]
    if result.is_dry:
        return [*lines, "Nothing was changed"]
    return [*lines, "Check    exports and embeddings that were made before: --check FILE"]


def _work_lines(result: Purge) -> list[str]:
    would = "would be " if result.is_dry else ""
    lines = [
        f"Purged   {counted(result.clips, 'clip')} {would}removed from "
        f"{counted(len(result.shards), 'shard')}"
    ]
    for shard in result.shards[:_MAX_NAMES]:
        after = "" if result.is_dry else f", now {shard.after or 'gone'}"
        lines.append(f"Shard    {shard.before}: {counted(shard.clips, 'clip')}{after}")
    if len(result.shards) > _MAX_NAMES:
        lines.append(f"Shard    {len(result.shards) - _MAX_NAMES:,} more; --json has all")
    if result.ledger_rows:
        lines.append(f"Ledger   {counted(result.ledger_rows, 'row')} {would}removed or rewritten")
    if result.has_index:
        lines.append(f"Index    {would}rewritten")
    if result.files:
        lines.append(f"Files    {would}removed or rewritten: {_listed(result.files)}")
    return lines


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join([*names[:_MAX_NAMES], *([f"and {more:,} more"] if more > 0 else [])])


# -- Arguments -------------------------------------------------------------------------------------


def add_purge_command(commands: Any) -> None:
    """Add the command ``purge``."""
    does = (
        "take speakers, videos or utterances out of a store for good: only the shards that have "
        "them are rewritten, and no later run brings them back; stopped, it is run again"
    )
    example = (
        'voxblink2 purge id000002 --reason "asked by the speaker" --store /data/voxblink2\n'
        "  voxblink2 purge takedown.txt --store /data/voxblink2 --dry-run\n"
        "  voxblink2 purge --check embeddings.parquet exports/ --store /data/voxblink2"
    )
    parser = add_command(commands, "purge", _purge, does, example)
    parser.add_argument(
        "ids",
        nargs="*",
        metavar="ID|FILE",
        help="ids of speakers and videos, utterances as speaker/video/utterance, or text files of "
        "these; none ends a purge that was stopped",
    )
    add_place_arguments(parser)
    parser.add_argument(
        "--reason", default="", metavar="TEXT", help="why; kept with the hashes of the ids"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="change nothing, show what would be done"
    )
    parser.add_argument(
        "--check",
        nargs="+",
        default=[],
        metavar="PATH",
        help="look for what was purged before in exports, embeddings and other files",
    )
