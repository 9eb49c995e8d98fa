"""The command that checks a store: ``verify``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import add_place_arguments, add_present_config_argument
from voxblink2_lib.cli.status import named_or_default_store
from voxblink2_lib.cli.terminal import (
    CHECK_FAILED,
    DONE,
    add_command,
    write_message,
    write_result,
)
from voxblink2_lib.errors import StoppedError, UsageError, next_command
from voxblink2_lib.published.place import is_url

if TYPE_CHECKING:
    from voxblink2_lib.store.layout import Store
    from voxblink2_lib.store.verify import ConfigVerification, Verification

_DEFAULT_SAMPLE = 8


def _verify(options: argparse.Namespace) -> int:
    from voxblink2_lib.cores import usable_cores
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.store.verify import verify_store

    if is_url(options.store):
        return _write(options, _verify_url(options))
    store = named_or_default_store(options)
    try:
        result = verify_store(
            store,
            options.config,
            sample=options.sample,
            workers=usable_cores(),
            resume=options.resume,
            progress=show_progress,
        )
    except KeyboardInterrupt:
        write_message("")  # a line of its own, below ^C
        raise StoppedError(
            f"stopped. What was found right is remembered; go on with {_resume(options, store)}."
        ) from None
    return _write(options, result)


def _verify_url(options: argparse.Namespace) -> Verification:
    """Read all of a published store and check it; in the end, say how it is mended."""
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.published.verification import url_check
    from voxblink2_lib.store.verify import verify_store

    if options.resume:
        raise UsageError("--resume is for a store in a folder; at a URL, all shards are read.")
    with url_check(options.store, progress=show_progress) as check:
        result = verify_store(
            check.store,
            options.config,
            sample=options.sample,
            fetch=check.shard,
            progress=show_progress,
        )
    problems = (*check.problems, *result.own_problems)
    command = next_command("materialize", store=check.store.place)
    advice = (
        f"Remove files at the URL that are damaged, then run {command} where its scratch store is: "
        "what lacks at the URL is published again."
    )
    is_damaged = bool(problems or result.problems)
    return replace(result, own_problems=problems, advice=advice if is_damaged else "")


def _write(options: argparse.Namespace, result: Verification) -> int:
    record = result.as_dict()
    if options.config is not None:
        # As earlier versions wrote it.
        record |= record.pop("configs")[options.config] | {"problems": result.problems}
    write_result(options, record, _lines(result))
    return CHECK_FAILED if result.problems else DONE


def _resume(options: argparse.Namespace, store: Store) -> str:
    sample = None if options.sample == _DEFAULT_SAMPLE else options.sample
    return next_command(
        "verify", store=store.place, config=options.config, sample=sample, resume=True
    )


def _lines(result: Verification) -> list[str]:
    lines = [line for name, config in result.configs.items() for line in _about(name, config)]
    count = len(result.problems)
    problems = {0: "No problems", 1: "1 problem"}.get(count, f"{count:,} problems")
    checked = " and ".join(result.configs) or "no configuration"
    lines += [f"{problems} in {result.store} ({checked})", *result.problems]
    return [*lines, result.advice] if result.advice else lines


def _about(name: str, config: ConfigVerification) -> list[str]:
    lines = [
        f"{name}: {config.shards:,} shards, {config.rows:,} rows, "
        f"{config.clips_decoded:,} clips decoded"
    ]
    if config.verified_before:
        lines.append(f"{config.verified_before:,} shards were found right before the interruption")
    if config.clip_format is not None:
        versions = " and with ".join(config.made_with) or "versions that were not recorded"
        lines.append(f"Clips of format {config.clip_format}, made with {versions}")
    return [*lines, *config.notes]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of 0 or more, got {text!r}")
    return int(text)


def add_verify_command(commands: Any) -> None:
    """Add the command ``verify``."""
    does = (
        "check every file of a store, compare with index and ledger, decode a sample of the clips"
    )
    example = "voxblink2 verify --store /data/voxblink2 --sample 20"
    parser = add_command(commands, "verify", _verify, does, example)
    add_present_config_argument(parser)
    add_place_arguments(parser)
    parser.add_argument(
        "--sample",
        type=_count,
        default=_DEFAULT_SAMPLE,
        metavar="N",
        help="number of clips of each shard to decode; default: %(default)s",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on after an interruption: leave out the shards that were found right",
    )
