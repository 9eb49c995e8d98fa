"""The commands that make a store and look at it: demo, index, materialize, status, verify."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import (
    add_config_argument,
    add_fetch_arguments,
    add_place_arguments,
)
from voxblink2_lib.cli.terminal import CHECK_FAILED, DONE, WRONG_USE, add_command, say, show
from voxblink2_lib.config import ClipOptions, MaterializeConfig, Selection
from voxblink2_lib.fetch_options import FetchOptions
from voxblink2_lib.records import AUDIO_FORMATS, STATUSES, WINDOW_SHAPES

if TYPE_CHECKING:
    from voxblink2_lib.report import StoreStatus
    from voxblink2_lib.store import Store

# -- commands ---------------------------------------------------------------------------------


def _index(options: argparse.Namespace) -> int:
    from voxblink2_lib.engines.local import index_release

    index = index_release(_request(options))
    info = index.info
    lines = [
        f"Index    {index.folder}",
        f"Speakers {info.speakers:,}   videos {info.videos:,}   utterances {info.utterances:,}   "
        f"hours {info.hours:,.2f}",
        f"Boxes    {info.boxes:,}, {index.bytes_a_box:.1f} bytes each",
        f"Rejected {info.rejected:,} files"
        + (f", see {index.folder / 'rejects.csv'}" if info.rejected else ""),
    ]
    show(options, {"index": str(index.folder), **asdict(info)}, lines)
    return DONE


def _materialize(options: argparse.Namespace) -> int:
    from voxblink2_lib.engines.local import materialize
    from voxblink2_lib.report import nothing_came

    request = _request(options)
    store = materialize(request, retry=True, wait=False)
    if _show_status(options, store).utterances:
        return DONE
    # Videos that fail are outcomes, not errors; a whole run without any clip is.
    say(f"voxblink2: {nothing_came(store, options.config)}")
    return WRONG_USE


def _retry(options: argparse.Namespace) -> int:
    from voxblink2_lib.engines.local import retry_videos

    request = _request(options)
    store, count = retry_videos(request, options.classes)
    say(f"{count:,} videos were asked for again.")
    _show_status(options, store)
    return DONE


def _status(options: argparse.Namespace) -> int:
    _show_status(options, _named_store(options))
    return DONE


def _named_store(options: argparse.Namespace) -> Store:
    """Return the store that was named; its release is not needed to look at it."""
    from voxblink2_lib.engines.local import find_store
    from voxblink2_lib.store import named_store

    if options.store is not None:
        return named_store(options.store)
    return find_store(_request(options))[1]


def _show_status(options: argparse.Namespace, store: Store) -> StoreStatus:
    from voxblink2_lib.report import missing_videos, read_status

    status = read_status(store, options.config)
    record = asdict(status)
    record["reasons"] = [one._asdict() for one in status.reasons]
    lines = _status_lines(status)
    if getattr(options, "missing", False):
        missing = missing_videos(store, options.config)
        record["missing"] = [asdict(video) for video in missing]
        lines += [f"{one.speaker_id} {one.video_id} {one.status}: {one.reason}" for one in missing]
    elif status.reasons:
        lines += ["Most frequent reasons:"]
        lines += [f"  {one.videos:6,}  {one.status}: {one.words}" for one in status.reasons]
    show(options, record, lines)
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
        f"Fetched    {status.bytes_fetched / 1e6:,.1f} MB; last hour of work: "
        f"{status.videos_an_hour:,.0f} videos an hour, {status.bytes_a_second / 1e6:.2f} MB/s",
        *_time_lines(status),
    ]


def _time_lines(status: StoreStatus) -> list[str]:
    from voxblink2_lib.live import clock_text, duration_text

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
    from voxblink2_lib.progress import counting
    from voxblink2_lib.report import verify_store

    store = _named_store(options)
    with counting("Verifying", unit="shard") as progress:
        result = verify_store(store, options.config, sample=options.sample, progress=progress)
    lines = [
        f"{result.shards:,} shards, {result.rows:,} rows, {result.clips_decoded:,} clips decoded: "
        + (f"{len(result.problems)} problems" if result.problems else "all right"),
        *result.problems,
    ]
    show(options, {"store": str(store.root), **asdict(result)}, lines)
    return CHECK_FAILED if result.problems else DONE


def _demo(options: argparse.Namespace) -> int:
    from voxblink2_lib.tour import run_tour

    out = Path(options.out).absolute()
    tour = run_tour(out, config=options.config, workers=options.workers)
    record, lines = tour.as_json(), tour.lines()
    if options.train:
        import torch

        from voxblink2_lib.lesson import run_lesson

        # Two threads gain a tenth; where other work has the cores, they take ten times as long.
        torch.set_num_threads(1)
        lesson = run_lesson(out / "store", out, config=options.config)
        record["training"], lines = lesson.as_json(), [*lines, "", *lesson.lines()]
    show(options, record, lines)
    return DONE


def _request(options: argparse.Namespace) -> MaterializeConfig:
    def get(name: str) -> Any:
        return getattr(options, name, None)

    return MaterializeConfig(
        config=options.config,
        data_dir=get("data_dir"),
        source=get("source"),
        store=get("store"),
        **{name: get(name) for name in ClipOptions.names("audio-visual")},
        workers=get("workers"),
        selection=Selection.of(
            speakers=get("speakers"),
            videos=get("videos"),
            exclude=get("exclude"),
            max_speakers=get("max_speakers"),
            max_videos_per_speaker=get("max_videos_per_speaker"),
        ),
        fetch=FetchOptions.of(**{name: get(name) for name in FetchOptions.names()}),
    )


# -- arguments --------------------------------------------------------------------------------


def add_corpus_commands(commands: Any) -> None:
    """Add the commands that make a store and look at it.

    Args:
        commands: what ``add_subparsers`` returned.
    """
    _demo_arguments(commands)
    _index_arguments(commands)
    _materialize_arguments(commands)
    _retry_arguments(commands)
    _status_arguments(commands)
    _verify_arguments(commands)


def _demo_arguments(commands: Any) -> None:
    does = "run the whole way on a small built-in release, from real downloads to a dataset"
    parser = add_command(commands, "demo", _demo, does, "voxblink2 demo --out voxblink2-demo")
    parser.add_argument(
        "--out",
        default="voxblink2-demo",
        metavar="DIR",
        help="folder for store, clips and picture; default: %(default)s",
    )
    add_config_argument(parser)
    parser.add_argument(
        "--train",
        action="store_true",
        help="then train a small model on it, and score it before and after; a minute on two cores",
    )
    _workers_argument(parser)


def _index_arguments(commands: Any) -> None:
    does = "read a release into an index, or check the index that is there"
    example = "voxblink2 index --data-dir release/vb2_meta.tar.gz --store /data/voxblink2"
    parser = add_command(commands, "index", _index, does, example)
    parser.set_defaults(config="audio")
    add_place_arguments(parser)


def _materialize_arguments(commands: Any) -> None:
    does = "bring media, cut every utterance, seal shards; again: what is missing or failed"
    example = (
        "voxblink2 materialize --config audio --data-dir release --source youtube \\\n"
        "      --store /data/voxblink2 --max-speakers 100"
    )
    parser = add_command(commands, "materialize", _materialize, does, example)
    add_config_argument(parser)
    add_place_arguments(parser)
    parser.add_argument(
        "--source",
        help="'youtube' (default), an address with {video_id}, or a folder of media named "
        "<speaker>/<video>.<ext>",
    )
    add_fetch_arguments(parser)
    parser.add_argument(
        "--audio-format",
        choices=AUDIO_FORMATS,
        help="default: what the store holds, and flac in a new one",
    )
    _video_arguments(parser)
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


def _retry_arguments(commands: Any) -> None:
    does = "ask again for videos of some classes, also of those that are final"
    example = "voxblink2 retry --class private --class geo --store /data/voxblink2"
    parser = add_command(commands, "retry", _retry, does, example)
    add_config_argument(parser)
    add_place_arguments(parser)
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        required=True,
        choices=[name for name in STATUSES if name not in {"done", "excluded"}],
        help="repeatable",
        metavar="CLASS",
    )
    parser.add_argument("--source", help="default: the source that the store was last used with")
    add_fetch_arguments(parser)
    _workers_argument(parser)


def _video_arguments(parser: argparse.ArgumentParser) -> None:
    video = parser.add_argument_group(
        "faces", "with --config audio-visual; default: what the store holds, in a new one as told"
    )
    new = ClipOptions()
    video.add_argument(
        "--video-size",
        type=int,
        metavar="PIXELS",
        help=f"width and height of the clips; {new.video_size}",
    )
    video.add_argument(
        "--video-margin",
        type=float,
        metavar="PART",
        help=f"added to a box on each side, as a part of its size; {new.video_margin:g}",
    )
    video.add_argument(
        "--video-shape",
        choices=WINDOW_SHAPES,
        help=f"widen the box to a square, or distort it to one; {new.video_shape}",
    )
    video.add_argument(
        "--video-crf",
        type=int,
        metavar="N",
        help=f"x264's quality, 0 (lossless) to 51; {new.video_crf}",
    )


def _status_arguments(commands: Any) -> None:
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


def _verify_arguments(commands: Any) -> None:
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


def _workers_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes; default: one a core, at most 8"
    )
