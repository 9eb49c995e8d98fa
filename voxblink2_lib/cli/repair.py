"""The command that mends a store: ``repair``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import (
    add_fetch_arguments,
    add_place_arguments,
    add_source_argument,
    add_workers_argument,
    resume_request,
)
from voxblink2_lib.cli.status import named_or_default_store
from voxblink2_lib.cli.terminal import (
    CHECK_FAILED,
    DONE,
    STOPPED,
    add_command,
    failure_record,
    write_message,
    write_result,
)

# So many files and videos are named; all are in the JSON form.
_MAX_NAMES = 5

if TYPE_CHECKING:
    from voxblink2_lib.materialize.request import MaterializeRequest
    from voxblink2_lib.repair.run import HurtVideo, Repair
    from voxblink2_lib.store.layout import Store


def _repair(options: argparse.Namespace) -> int:
    from voxblink2_lib.materialize.request import FETCHING
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.repair.run import plan_repair, repair_store
    from voxblink2_lib.store.layout import named_store

    # A published store is mended by publishing a scratch store that is.
    store = named_store(options.store) if options.store else named_or_default_store(options)
    given: dict[str, Any] = {
        "data_dir": options.data_dir,
        "from_backup": options.from_backup,
        "progress": show_progress,
    }

    def request_of(config: str) -> MaterializeRequest:
        named = {**vars(options), "config": config, "store": str(store.root)}
        return resume_request(argparse.Namespace(**named), FETCHING)

    if options.dry_run:
        result = plan_repair(store, **given)
    else:
        result = repair_store(store, request_of=None if options.no_fetch else request_of, **given)
    record = result.as_dict()
    if result.stopped is not None:
        write_message(f"voxblink2: {result.stopped}")
        record |= failure_record(result.stopped)
    write_result(options, record, _lines(result, store))
    return _exit_code(result)


def _exit_code(result: Repair) -> int:
    if result.is_dry:
        return CHECK_FAILED if result.mends or result.problems else DONE
    if result.problems:
        return CHECK_FAILED
    if result.stopped is not None:
        return result.stopped.exit_code
    return STOPPED if result.left else DONE


# -- Lines -----------------------------------------------------------------------------------------


def _lines(result: Repair, store: Store) -> list[str]:
    from voxblink2_lib.store.advice import repair_command

    command = repair_command(store.root)
    lines = [f"Store      {result.store}", *_mend_lines(result), *_video_lines(result)]
    lines += [f"Not mended {problem}" for problem in result.problems]
    if result.is_dry and (result.mends or result.left):
        lines.append(f"Nothing was changed. To do this: {command}")
    elif result.left:
        lines.append(f"To crop them again: {command}")
    return lines


def _mend_lines(result: Repair) -> list[str]:
    if not result.mends:
        return ["Nothing is damaged"]
    would = "Would mend" if result.is_dry else "Mended    "
    shown = [f"{would} {mend.path}: {mend.text}" for mend in result.mends[:_MAX_NAMES]]
    more = len(result.mends) - len(shown)
    return [*shown, *([f"{would} {more:,} more; --json has all"] if more else [])]


def _video_lines(result: Repair) -> list[str]:
    lines = []
    again = [video for video in result.hurt if video.status == "done"]
    if again:
        lines.append(f"Cropped    again: {len(again):,} videos, {_names(again)}")
    if result.left:
        lines.append(
            f"Left       to be cropped again: {len(result.left):,} videos, {_names(result.left)}"
        )
    for video in result.lost[:_MAX_NAMES]:
        lines.append(
            f"Lost       {video.config} {video.speaker_id}/{video.video_id}: utterances "
            f"{', '.join(video.lost)} ({video.status}: {video.reason})"
        )
    more = len(result.lost) - _MAX_NAMES
    return [
        *lines,
        *([f"Lost       clips of {more:,} more videos; --json has all"] if more > 0 else []),
    ]


def _names(videos: list[HurtVideo]) -> str:
    names = [f"{video.speaker_id}/{video.video_id}" for video in videos[:_MAX_NAMES]]
    more = len(videos) - len(names)
    return ", ".join([*names, *([f"and {more:,} more"] if more else [])])


# -- Arguments -------------------------------------------------------------------------------------


def add_repair_command(commands: Any) -> None:
    """Add the command ``repair``."""
    does = (
        "mend a damaged store: keep every clip that is whole, make ledger, index and checksums "
        "again, fetch only the videos that are hurt; what is not the store's goes to lost+found"
    )
    example = (
        "voxblink2 repair --store /data/voxblink2 --dry-run\n"
        "  voxblink2 repair --store /data/voxblink2"
    )
    parser = add_command(commands, "repair", _repair, does, example)
    add_place_arguments(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="change nothing, show what would be done"
    )
    parser.add_argument(
        "--no-fetch",
        action="store_true",
        help="mend only what needs no source, and show which videos have to be fetched again",
    )
    parser.add_argument(
        "--from-backup",
        action="store_true",
        help="make the ledger again from its last copy and the outcomes beside the shards, "
        "without reading it",
    )
    add_source_argument(parser, help="where media are; default: the source of the last run")
    add_workers_argument(parser)
    add_fetch_arguments(parser)
