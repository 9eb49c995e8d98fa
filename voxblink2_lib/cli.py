"""The command line, ``voxblink2``: the only place that prints."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from voxblink2_lib import __version__
from voxblink2_lib.config import CONFIG_NAMES, MaterializeConfig, Selection
from voxblink2_lib.engines.local import find_store, index_release, materialize
from voxblink2_lib.errors import VoxBlink2Error
from voxblink2_lib.progress import counting
from voxblink2_lib.records import AUDIO_FORMATS
from voxblink2_lib.report import (
    StoreStatus,
    frequent_reasons,
    missing_videos,
    nothing_came,
    read_status,
    verify_store,
)
from voxblink2_lib.store import Store, named_store

DONE, CHECK_FAILED, WRONG_USE, STOPPED = 0, 1, 2, 3

_EXIT_CODES = """\
exit codes: 0 done; 1 a check failed; 2 wrong use or bad input; 3 stopped with work left, run the
same command again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after the program's name; the process's own by default.

    Returns:
        The exit code.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    # A stopped service and Ctrl-C are the same to us: end now, keep what is finished.
    signal.signal(signal.SIGTERM, _interrupt)
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except VoxBlink2Error as error:
        _say(f"voxblink2: {error}", *getattr(error, "__notes__", []))
        if options.json:
            _print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return error.exit_code
    except KeyboardInterrupt:
        _say("\nvoxblink2: stopped. Everything finished is kept; run the same command to go on.")
        return STOPPED


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _show(options: argparse.Namespace, record: dict[str, Any], lines: Sequence[str]) -> None:
    """Print one JSON object, or lines for people."""
    _print(json.dumps(record) if options.json else "\n".join(lines))


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -- commands ---------------------------------------------------------------------------------


def _index(options: argparse.Namespace) -> int:
    index = index_release(_request(options))
    info = index.info
    lines = [
        f"Index    {index.folder}",
        f"Speakers {info.speakers:,}   videos {info.videos:,}   utterances {info.utterances:,}   "
        f"hours {info.hours:,.2f}",
        f"Rejected {info.rejected:,} files"
        + (f", see {index.folder / 'rejects.csv'}" if info.rejected else ""),
    ]
    _show(options, {"index": str(index.folder), **asdict(info)}, lines)
    return DONE


def _materialize(options: argparse.Namespace) -> int:
    request = _request(options)
    store = materialize(request, retry=True, wait=False)
    if _show_status(options, store).utterances:
        return DONE
    # Videos that fail are outcomes, not errors; a whole run without any clip is.
    _say(f"voxblink2: {nothing_came(store, options.config)}")
    return WRONG_USE


def _status(options: argparse.Namespace) -> int:
    _show_status(options, _named_store(options))
    return DONE


def _named_store(options: argparse.Namespace) -> Store:
    """Return the store that was named; its release is not needed to look at it."""
    if options.store is not None:
        return named_store(options.store)
    return find_store(_request(options))[1]


def _show_status(options: argparse.Namespace, store: Store) -> StoreStatus:
    status = read_status(store, options.config)
    missing = missing_videos(store, options.config)
    record = asdict(status)
    if getattr(options, "missing", False):
        record["missing"] = [asdict(video) for video in missing]
    lines = _status_lines(status)
    if getattr(options, "missing", False):
        lines += [f"{one.speaker_id} {one.video_id} {one.status}: {one.reason}" for one in missing]
    elif missing:
        lines += ["Most frequent reasons:"]
        reasons = frequent_reasons(missing)[:10]
        lines += [f"  {count:6,}  {reason}" for reason, count in reasons]
    _show(options, record, lines)
    return status


def _status_lines(status: StoreStatus) -> list[str]:
    videos = ", ".join(f"{count:,} {name}" for name, count in sorted(status.videos.items()))
    speakers = status.speakers
    return [
        f"Store      {status.store} ({status.config})",
        f"Videos     {videos or 'none'}",
        f"Utterances {status.utterances:,} ({status.hours:,.2f} hours); "
        f"{status.missing_utterances:,} could not be cut",
        f"Speakers   {speakers.complete:,} complete, {speakers.partial:,} partial, "
        f"{speakers.empty:,} empty",
        f"Shards     {status.shards:,} ({status.shard_bytes / 1e6:,.1f} MB)",
    ]


def _verify(options: argparse.Namespace) -> int:
    store = _named_store(options)
    with counting("Verifying", unit="shard") as progress:
        result = verify_store(store, options.config, sample=options.sample, progress=progress)
    lines = [
        f"{result.shards:,} shards, {result.rows:,} rows, {result.clips_decoded:,} clips decoded: "
        + (f"{len(result.problems)} problems" if result.problems else "all right"),
        *result.problems,
    ]
    _show(options, {"store": str(store.root), **asdict(result)}, lines)
    return CHECK_FAILED if result.problems else DONE


def _demo(options: argparse.Namespace) -> int:
    from voxblink2_lib.tour import run_tour

    tour = run_tour(Path(options.out).absolute(), workers=options.workers)
    _show(options, tour.as_json(), tour.lines())
    return DONE


def _request(options: argparse.Namespace) -> MaterializeConfig:
    def get(name: str) -> Any:
        return getattr(options, name, None)

    return MaterializeConfig(
        config=options.config,
        data_dir=get("data_dir"),
        source=get("source"),
        store=get("store"),
        audio_format=get("audio_format"),
        workers=get("workers"),
        selection=Selection.of(
            speakers=get("speakers"),
            videos=get("videos"),
            exclude=get("exclude"),
            max_speakers=get("max_speakers"),
            max_videos_per_speaker=get("max_videos_per_speaker"),
        ),
    )


# -- arguments --------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voxblink2",
        description="Turn the VoxBlink2 release and its media into Arrow shards.",
        epilog=f"example: voxblink2 demo\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _demo_arguments(commands)
    _index_arguments(commands)
    _materialize_arguments(commands)
    _status_arguments(commands)
    _verify_arguments(commands)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], does: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog=f"example:\n  {example}\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run, config="audio")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object; messages go to standard error"
    )
    return parser


def _demo_arguments(commands: Any) -> None:
    does = "run the whole way on a small built-in release, from real downloads to a dataset"
    parser = _command(commands, "demo", _demo, does, "voxblink2 demo --out voxblink2-demo")
    parser.add_argument(
        "--out",
        default="voxblink2-demo",
        metavar="DIR",
        help="folder for store, clips and picture; default: %(default)s",
    )
    _workers_argument(parser)


def _index_arguments(commands: Any) -> None:
    does = "read a release into an index, or check the index that is there"
    example = "voxblink2 index --data-dir release/vb2_meta.tar.gz --store /data/voxblink2"
    parser = _command(commands, "index", _index, does, example)
    _place_arguments(parser)


def _materialize_arguments(commands: Any) -> None:
    does = "bring media, cut every utterance, seal shards; again: what is missing or failed"
    example = (
        "voxblink2 materialize --config audio --data-dir release --source youtube \\\n"
        "      --store /data/voxblink2 --max-speakers 100"
    )
    parser = _command(commands, "materialize", _materialize, does, example)
    _config_argument(parser)
    _place_arguments(parser)
    parser.add_argument(
        "--source",
        help="'youtube' (default), an address with {video_id}, or a folder of media named "
        "<speaker>/<video>.<ext>",
    )
    parser.add_argument(
        "--audio-format",
        choices=AUDIO_FORMATS,
        help="default: what the store holds, and flac in a new one",
    )
    for name, does in (
        ("speakers", "only these speakers: ids, or files of ids"),
        ("videos", "only these videos: ids (one that begins with -: --videos=-ID), or files"),
        ("exclude", "speakers and videos to leave out: ids, or files of ids"),
    ):
        parser.add_argument(f"--{name}", nargs="+", metavar="ID|FILE", help=does)
    parser.add_argument("--max-speakers", type=int, metavar="N", help="the first N speakers")
    parser.add_argument(
        "--max-videos-per-speaker", type=int, metavar="N", help="the first N videos of each"
    )
    _workers_argument(parser)


def _status_arguments(commands: Any) -> None:
    does = "show what a store holds, and what did not come and why"
    example = "voxblink2 status --store /data/voxblink2 --missing"
    parser = _command(commands, "status", _status, does, example)
    _config_argument(parser)
    _place_arguments(parser)
    parser.add_argument("--missing", action="store_true", help="list every video that did not come")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of 0 or more, got {text!r}")
    return int(text)


def _verify_arguments(commands: Any) -> None:
    does = "hash every shard again, compare with index and ledger, decode some clips"
    example = "voxblink2 verify --store /data/voxblink2 --sample 20"
    parser = _command(commands, "verify", _verify, does, example)
    _config_argument(parser)
    _place_arguments(parser)
    parser.add_argument(
        "--sample",
        type=_count,
        default=8,
        metavar="N",
        help="decode N clips of each shard; default: %(default)s",
    )


def _config_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", choices=CONFIG_NAMES, default="audio", help="default: %(default)s"
    )


def _place_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        metavar="RELEASE",
        help="the release: a folder, vb2_meta.tar.gz, or 'demo'; default: $VOXBLINK2_RELEASE",
    )
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="folder of index, ledger and shards; default: one for the release under "
        "$VOXBLINK2_HOME or the user's cache folder",
    )


def _workers_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes; default: one a core, at most 8"
    )


if __name__ == "__main__":
    sys.exit(main())
