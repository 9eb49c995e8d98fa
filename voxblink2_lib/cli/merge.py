"""The command that joins stores in one: ``merge``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import add_scratch_argument
from voxblink2_lib.cli.terminal import DONE, add_command, write_result
from voxblink2_lib.progress import counted

if TYPE_CHECKING:
    from voxblink2_lib.merge.run import Merge


def _merge(options: argparse.Namespace) -> int:
    from voxblink2_lib.merge.run import merge_stores
    from voxblink2_lib.progress import show_progress

    result = merge_stores(
        options.stores, options.into, scratch=options.scratch, progress=show_progress
    )
    write_result(options, result.as_dict(), _lines(result))
    return DONE


def _lines(result: Merge) -> list[str]:
    lines = [f"Store    {result.store}", *(f"Of       {store}" for store in result.stores)]
    for config, videos in result.videos.items():
        shards = counted(result.shards[config], "shard")
        lines.append(f"Has      {config}: clips of {counted(videos, 'video')} in {shards}")
    lines.append(f"Rewrote  {counted(result.rewritten, 'shard')}; the others are as they were")
    if result.tombstones:
        lines.append(f"Purged   {counted(result.tombstones, 'id')}, whichever store had it")
    return lines


def add_merge_command(commands: Any) -> None:
    """Add the command ``merge``."""
    does = (
        "join stores of one corpus in a new store: slices, or what two places made of it; stopped, "
        "it is run again"
    )
    example = (
        "voxblink2 merge s3://bucket/voxblink2 --into /data/voxblink2    (all slices of a store)\n"
        "  voxblink2 merge /data/ours /mnt/theirs --into /data/voxblink2"
    )
    parser = add_command(commands, "merge", _merge, does, example)
    parser.add_argument(
        "stores",
        nargs="+",
        metavar="STORE",
        help="folder or URL of a store, which is not changed; one that is made in slices stands "
        "for all of them. Of a video in several, clips win over failures, then the most clips, "
        "then the store that is named first",
    )
    parser.add_argument(
        "--into", required=True, metavar="DIR|URL", help="where the new store will be"
    )
    add_scratch_argument(parser)
