"""The commands that look at a store: ``status`` and ``verify``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import (
    add_config_argument,
    add_place_arguments,
)
from voxblink2_lib.cli.terminal import CHECK_FAILED, DONE, add_command, write_result

if TYPE_CHECKING:
    from voxblink2_lib.store.layout import Store
    from voxblink2_lib.store.status import StoreStatus
from voxblink2_lib.cli.arguments import build_request


def _status(options: argparse.Namespace) -> int:
    show_status(options, _named_store(options))
    return DONE


def _named_store(options: argparse.Namespace) -> Store:
    """Return the store that was named; its release is not needed to look at it."""
    from voxblink2_lib.materialize.run import find_store
    from voxblink2_lib.store.layout import named_store

    if options.store is not None:
        return named_store(options.store)
    return find_store(build_request(options))[1]


def show_status(options: argparse.Namespace, store: Store) -> StoreStatus:
    """Show what a store holds, and return it."""
    from voxblink2_lib.store.status import missing_videos, read_status

    status = read_status(store, options.config)
    record = status.as_dict()
    lines = _status_lines(status)
    if getattr(options, "missing", False):
        missing = missing_videos(store, options.config)
        record["missing"] = [video.as_dict() for video in missing]
        lines += [f"{one.speaker_id} {one.video_id} {one.status}: {one.reason}" for one in missing]
    elif status.reasons:
        lines += ["Most frequent reasons:"]
        lines += [f"  {one.videos:6,}  {one.status}: {one.message}" for one in status.reasons]
    write_result(options, record, lines)
    return status


def _status_lines(status: StoreStatus) -> list[str]:
    from voxblink2_lib.progress import size_text

    videos = ", ".join(f"{count:,} {name}" for name, count in sorted(status.videos.items()))
    speakers = status.speakers
    return [
        f"Store      {status.store} ({status.config})",
        f"Videos     {videos or 'none'}",
        f"Utterances {status.utterances:,} ({status.hours:,.2f} hours); "
        f"{status.missing_utterances:,} could not be cut",
        f"Speakers   {speakers.complete:,} complete, {speakers.partial:,} partial, "
        f"{speakers.empty:,} empty",
        f"Shards     {status.shards:,} ({size_text(status.shard_bytes)})",
        f"Fetched    {size_text(status.bytes_fetched)}; last hour of work: "
        f"{status.videos_an_hour:,.0f} videos an hour, {size_text(status.bytes_a_second)}/s",
        *_time_lines(status),
    ]


def _time_lines(status: StoreStatus) -> list[str]:
    from voxblink2_lib.progress import clock_text, duration_text

    lines = []
    if status.seconds_left is not None:
        lines.append(f"Time left  about {duration_text(status.seconds_left)} at that speed")
    if status.waiting and status.next_try is not None:
        lines.append(
            f"Waiting    {status.waiting:,} to be asked for again by 'voxblink2 materialize', "
            f"the first from {clock_text(status.next_try)}"
        )
    return lines


def _verify(options: argparse.Namespace) -> int:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.store.verify import verify_store

    store = _named_store(options)
    result = verify_store(store, options.config, sample=options.sample, progress=show_progress)
    lines = [
        f"{result.shards:,} shards, {result.rows:,} rows, {result.clips_decoded:,} clips decoded: "
        + (f"{len(result.problems)} problems" if result.problems else "all right"),
        *result.problems,
    ]
    write_result(options, {"store": str(store.root), **asdict(result)}, lines)
    return CHECK_FAILED if result.problems else DONE


def add_status_command(commands: Any) -> None:
    """Add the command ``status``."""
    does = "show what a store holds, and what did not come and why"
    example = "voxblink2 status --store /data/voxblink2 --missing"
    parser = add_command(commands, "status", _status, does, example)
    add_config_argument(parser)
    add_place_arguments(parser)
    parser.add_argument("--missing", action="store_true", help="list every video that did not come")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of 0 or more, got {text!r}")
    return int(text)


def add_verify_command(commands: Any) -> None:
    """Add the command ``verify``."""
    does = "hash every shard again, compare with index and ledger, decode some clips"
    example = "voxblink2 verify --store /data/voxblink2 --sample 20"
    parser = add_command(commands, "verify", _verify, does, example)
    add_config_argument(parser)
    add_place_arguments(parser)
    parser.add_argument(
        "--sample",
        type=_count,
        default=8,
        metavar="N",
        help="decode N clips of each shard; default: %(default)s",
    )
