"""The command that takes speakers, videos and utterances out of a store: ``purge``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import add_place_arguments, add_scratch_argument
from voxblink2_lib.cli.status import named_or_default_store
from voxblink2_lib.cli.terminal import CHECK_FAILED, DONE, add_command, write_result
from voxblink2_lib.errors import UsageError
from voxblink2_lib.progress import counted
from voxblink2_lib.published.place import is_url
from voxblink2_lib.redaction import redacted_source

if TYPE_CHECKING:
    from voxblink2_lib.purge.published_store import PublishedPurge
    from voxblink2_lib.purge.run import Purge
    from voxblink2_lib.purge.traces import Trace
    from voxblink2_lib.release.tombstones import PurgedIds

# So many files and ids are named; all are in the JSON form.
_MAX_NAMES = 5
_CHECK = "Check    exports and embeddings that were made before: --check FILE"


def _purge(options: argparse.Namespace) -> int:
    from voxblink2_lib.purge.ids import read_purged_ids

    if options.check:
        return _check(options)
    ids = read_purged_ids(options.ids)
    if options.store and is_url(options.store):
        return _purge_url(options, ids)
    if options.scratch:
        raise UsageError("--scratch is of a store at a URL. Leave it out, or name the URL.")
    return _purge_folder(options, ids)


def _purge_folder(options: argparse.Namespace, ids: PurgedIds) -> int:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.purge.run import plan_purge, purge_store
    from voxblink2_lib.store.layout import named_store

    store = named_store(options.store) if options.store else named_or_default_store(options)
    if options.dry_run:
        return _write_plan(options, plan_purge(store, ids, progress=show_progress))
    result = purge_store(store, ids, reason=options.reason, progress=show_progress)
    write_result(options, result.as_dict(), [*_lines(result), _CHECK])
    return DONE


def _purge_url(options: argparse.Namespace, ids: PurgedIds) -> int:
    from voxblink2_lib.published.slices import slice_urls

    slices, count = slice_urls(options.store)
    if slices:
        return _purge_slices(options, ids, slices, count)
    if options.dry_run:
        return _write_plan(options, _plan_at(options.store, ids))
    result = _purge_at(options, options.store, ids)
    lines = [*_lines(result.purge), *_published_lines(result), _CHECK]
    write_result(options, result.as_dict(), lines)
    return DONE


def _purge_slices(
    options: argparse.Namespace, ids: PurgedIds, slices: list[str], count: int
) -> int:
    from voxblink2_lib.purge.published_store import clear_caches

    if options.scratch:
        raise UsageError(
            "A store in slices has a scratch store for each. Leave out --scratch, or name the URL "
            f"of a slice with --store: {redacted_source(slices[0])}"
        )
    missing = []
    if len(slices) < count:
        missing.append(
            f"Slices   {count - len(slices)} of {count} are not published yet, and would make it "
            "again: run the same command again when they are"
        )
    if options.dry_run:
        plans = [_plan_at(url, ids) for url in slices]
        lines = [line for plan in plans for line in _lines(plan)]
        record = {"slices": [plan.as_dict() for plan in plans], "unpublished": count - len(slices)}
        write_result(options, record, [*lines, *missing, "Nothing was changed"])
        return CHECK_FAILED if any(plan.has_work for plan in plans) else DONE
    results = [_purge_at(options, url, ids) for url in slices]
    clear_caches(options.store)
    lines = [line for done in results for line in (*_lines(done.purge), *_published_lines(done))]
    record = {"slices": [done.as_dict() for done in results], "unpublished": count - len(slices)}
    write_result(options, record, [*lines, *missing, _CHECK])
    return CHECK_FAILED if missing else DONE


def _plan_at(url: str, ids: PurgedIds) -> Purge:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.purge.published_store import plan_published_purge

    return plan_published_purge(url, ids, progress=show_progress)


def _purge_at(options: argparse.Namespace, url: str, ids: PurgedIds) -> PublishedPurge:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.purge.published_store import purge_published

    return purge_published(
        url, ids, reason=options.reason, scratch=options.scratch, progress=show_progress
    )


def _write_plan(options: argparse.Namespace, plan: Purge) -> int:
    write_result(options, plan.as_dict(), [*_lines(plan), "Nothing was changed"])
    return CHECK_FAILED if plan.has_work else DONE


def _check(options: argparse.Namespace) -> int:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.purge.traces import traces_in
    from voxblink2_lib.release.tombstones import Tombstones

    if options.ids or options.dry_run:
        raise UsageError("--check looks for what was purged before. Leave out ids and --dry-run.")
    store = named_or_default_store(options)
    tombstones = Tombstones.of(store.root)
    if not tombstones:
        raise UsageError(
            f"Nothing was purged from the store {store.place}, so there is nothing to look for. "
            "Name the store that was purged with --store."
        )
    traces = traces_in(map(Path, options.check), tombstones, progress=show_progress)
    left = [trace for trace in traces if trace.count]
    made = [trace for trace in traces if not trace.count]
    record = {
        "store": store.place,
        "traces": [_as_dict(trace) for trace in left],
        "made_from_purged": [trace.path for trace in made],
    }
    lines = [_trace_line(trace) for trace in left] or ["Nothing is left"]
    write_result(options, record, [*lines, *map(_origin_line, made)])
    return CHECK_FAILED if left else DONE


def _as_dict(trace: Trace) -> dict[str, Any]:
    return {"path": trace.path, "ids": list(trace.ids), "count": trace.count}


def _trace_line(trace: Trace) -> str:
    return f"Left     {trace.path} has {counted(trace.count, 'purged id')}: {_listed(trace.ids)}"


def _origin_line(trace: Trace) -> str:
    shards = counted(trace.shards, "shard")
    return f"Made     {trace.path} was made from {shards} with purged ids, and has none itself"


# -- Lines -----------------------------------------------------------------------------------------


def _lines(result: Purge) -> list[str]:
    lines = [f"Store    {result.store}"]
    if result.unknown:
        lines.append(f"Unknown  not in the store, and kept out of it: {_listed(result.unknown)}")
    lines += _work_lines(result) if result.has_work else ["Purged   nothing of it is in the store"]
    lines += [f"Left     in a cache, delete it: {name}" for name in result.caches]
    return [*lines, *(f"Copy     made before, look with --check: {name}" for name in result.copies)]


def _published_lines(result: PublishedPurge) -> list[str]:
    lines = [
        f"URL      generation {result.generation:,} has nothing of it; "
        f"{counted(len(result.removed), 'file')} removed"
    ]
    if result.cleared:
        lines.append(f"Caches   {counted(len(result.cleared), 'file')} removed on this machine")
    return [*lines, *([f"Kept     {result.kept}"] if result.kept else [])]


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
        "  voxblink2 purge id000002 --store s3://bucket/voxblink2\n"
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
    add_scratch_argument(parser)
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
