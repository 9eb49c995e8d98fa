"""The commands that make a store: ``index``, ``materialize``, ``retry``."""

from __future__ import annotations

import argparse
import contextlib
import datetime
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import (
    add_clip_arguments,
    add_fetch_arguments,
    add_last_run_arguments,
    add_place_arguments,
    add_scratch_argument,
    add_selection_arguments,
    add_slice_argument,
    add_source_argument,
    add_workers_argument,
    resume_request,
)
from voxblink2_lib.cli.status import named_or_default_store, write_status
from voxblink2_lib.cli.terminal import DONE, WRONG_USE, add_command, write_message, write_result
from voxblink2_lib.errors import SelectionError, UsageError
from voxblink2_lib.materialize.request import EVERYTHING, FETCHING
from voxblink2_lib.outcomes import STATUSES
from voxblink2_lib.progress import counted

if TYPE_CHECKING:
    from voxblink2_lib.materialize.request import MaterializeRequest
    from voxblink2_lib.materialize.run import Engine
    from voxblink2_lib.release.index import Index
    from voxblink2_lib.release.speaker_index import SpeakerInfo
    from voxblink2_lib.store.layout import Store

# -- Commands -------------------------------------------------------------------------------------


def _index(options: argparse.Namespace) -> int:
    from voxblink2_lib.materialize.run import index_release
    from voxblink2_lib.release.speaker_index import read_speaker_info

    index = index_release(resume_request(options, ["data_dir"]))
    about = read_speaker_info(index.folder)
    record = {"index": str(index.folder), **asdict(index.info)}
    record["about_speakers"] = None if about is None else asdict(about)
    write_result(options, record, [*_index_lines(index), *_speaker_lines(about)])
    return DONE


def _speaker_lines(info: SpeakerInfo | None) -> list[str]:
    if info is None:
        return []
    unmatched = f", {info.unmatched:,} without a certain video" if info.unmatched else ""
    return [
        f"Listed   {info.listed_videos:,} videos in spk2videos",
        f"About    {info.speakers:,} speakers",
        f"Said     {info.transcripts:,} utterances with transcript or language{unmatched}",
        *(f"Not read {problem}" for problem in info.problems),
    ]


def _index_lines(index: Index) -> list[str]:
    info = index.info
    rejects = f", see {index.folder / 'rejects.csv'}" if info.rejected else ""
    return [
        f"Index    {index.folder}",
        f"Speakers {info.speakers:,}   videos {info.videos:,}   utterances {info.utterances:,}   "
        f"hours {info.hours:,.2f}",
        f"Boxes    {info.boxes:,}, {index.bytes_a_box:.1f} bytes each",
        f"Rejected {info.rejected:,} files{rejects}",
    ]


def _materialize(options: argparse.Namespace) -> int:
    from voxblink2_lib.cluster.engine import check_shared_store
    from voxblink2_lib.materialize.run import materialize
    from voxblink2_lib.store.status import empty_store_message

    if options.engine == "ray":
        check_shared_store(options.store)  # before it is looked at
    request = resume_request(options, EVERYTHING)
    with _engine(options, request) as engine:
        store = materialize(request, retry=True, wait=False, engine=engine)
    if write_status(options, store, may_be_empty=False).utterances:
        return DONE
    # Videos that fail are outcomes, not errors; a whole run without any clip is.
    write_message(f"voxblink2: {empty_store_message(store, options.config)}")
    return WRONG_USE


def _engine(
    options: argparse.Namespace, request: MaterializeRequest
) -> contextlib.AbstractContextManager[Engine]:
    """Return the engine that was named.

    Raises:
        UsageError: an option would change nothing.
    """
    from voxblink2_lib.cluster.engine import ray_engine
    from voxblink2_lib.materialize.run import run_on_this_machine

    if options.engine == "ray":
        return ray_engine(request, address=options.address, shares_budget=options.share_budget)
    if options.address is not None or options.share_budget:
        raise UsageError(
            "--address and --share-budget would change nothing without a cluster. Add --engine ray."
        )
    return contextlib.nullcontext(run_on_this_machine)


def _retry(options: argparse.Namespace) -> int:
    from voxblink2_lib.materialize.last_run import read_last_run
    from voxblink2_lib.materialize.run import retry_videos

    if not (options.classes or options.since or options.lift_pauses):
        raise SelectionError(
            "retry needs --class CLASS, for example --class geo, or --since DATE, or --lift-pauses."
        )
    if options.lift_pauses:
        store = named_or_default_store(options)
        options.config = read_last_run(store, options.config)[0]
        _lift_pauses(store, options.config)
        if not (options.classes or options.since):
            write_status(options, store)
            return DONE
    since = None if options.since is None else options.since.timestamp()
    request = resume_request(options, FETCHING)
    store, count = retry_videos(request, options.classes, since=since)
    write_message(f"{counted(count, 'video', 'were')} retried.")
    write_status(options, store)
    return DONE


def _lift_pauses(store: Store, config: str) -> None:
    from voxblink2_lib.materialize.pauses import lift_pauses

    routes = lift_pauses(store, config)
    write_message(f"Pauses lifted: {', '.join(routes) or 'none, no route is paused'}.")


# -- Arguments ------------------------------------------------------------------------------------


def add_index_command(commands: Any) -> None:
    """Add the command ``index``."""
    does = "read a release into an index, or check an existing index"
    example = "voxblink2 index --data-dir release/vb2_meta.tar.gz --store /data/voxblink2"
    parser = add_command(commands, "index", _index, does, example)
    add_place_arguments(parser)
    add_scratch_argument(parser)


def add_materialize_command(commands: Any) -> None:
    """Add the command ``materialize``."""
    does = (
        "download media and crop every utterance, or read cut audio, and seal shards; run again, "
        "it resumes and retries what failed"
    )
    example = (
        "voxblink2 materialize --config audio --data-dir release --source youtube \\\n"
        "      --store /data/voxblink2 --max-speakers 100\n"
        "  voxblink2 materialize --source /data/parts --store /data/voxblink2    (cut audio)\n"
        "  voxblink2 materialize --store /data/voxblink2    (goes on with the last run)\n"
        "  voxblink2 materialize --data-dir release --source youtube --store s3://bucket/voxblink2 "
        "\\\n      --shard-of-jobs 3/64\n"
        "  voxblink2 materialize --engine ray --store s3://bucket/voxblink2    (on a cluster)"
    )
    parser = add_command(commands, "materialize", _materialize, does, example)
    add_last_run_arguments(parser, EVERYTHING)
    add_place_arguments(parser)
    add_scratch_argument(parser)
    add_slice_argument(parser)
    add_source_argument(parser)
    add_workers_argument(parser)
    add_selection_arguments(parser)
    add_clip_arguments(parser)
    add_fetch_arguments(parser)
    _add_cluster_arguments(parser)


def _add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cluster", "a store at a URL, made by many machines")
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="who does the work: this machine (local), or the nodes of a Ray cluster; default: "
        "local",
    )
    group.add_argument(
        "--address",
        help="of the Ray cluster, or local: one of this machine alone, started for the run and "
        "ended after it; default: $RAY_ADDRESS, or the cluster that runs on this machine",
        metavar="HOST:PORT",
    )
    group.add_argument(
        "--share-budget",
        action="store_true",
        help="one download budget for all nodes, as they are behind one IP address; otherwise each "
        "has its own",
    )


def _date(text: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"must be a date such as 2026-11-20, or with a time 2026-11-20T18:30, got {text!r}"
        ) from None


def add_retry_command(commands: Any) -> None:
    """Add the command ``retry``."""
    does = "retry videos of some classes, or of some days, including final ones"
    example = (
        "voxblink2 retry --class private --class geo --store /data/voxblink2\n"
        "  voxblink2 retry --since 2026-11-20 --store /data/voxblink2"
    )
    parser = add_command(commands, "retry", _retry, does, example)
    add_last_run_arguments(parser, FETCHING)
    add_place_arguments(parser)
    add_scratch_argument(parser)
    add_slice_argument(parser)
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        choices=[name for name in STATUSES if name not in {"done", "excluded"}],
        help="class of videos to retry; may be repeated",
        metavar="CLASS",
    )
    parser.add_argument(
        "--since",
        type=_date,
        help="take back the answers that the source gave at or after this time, as of a bad day: "
        "2026-11-20 or 2026-11-20T18:30, in local time unless it has an offset",
        metavar="DATE",
    )
    parser.add_argument(
        "--lift-pauses",
        action="store_true",
        help="end the pauses of all routes to the store's source, for every run of this user on "
        "this machine; alone, nothing is retried",
    )
    add_source_argument(parser, help="where media are; default: the source of the last run")
    add_workers_argument(parser)
    add_fetch_arguments(parser)
