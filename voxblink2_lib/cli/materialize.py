"""The commands that make a store: ``index``, ``materialize``, ``retry``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from voxblink2_lib.cli.arguments import (
    add_config_argument,
    add_fetch_arguments,
    add_place_arguments,
    add_workers_argument,
    build_request,
)
from voxblink2_lib.cli.demo import add_demo_command
from voxblink2_lib.cli.status import add_status_command, add_verify_command, show_status
from voxblink2_lib.cli.terminal import DONE, WRONG_USE, add_command, write_message, write_result
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.outcomes import STATUSES
from voxblink2_lib.records import AUDIO_FORMATS, WINDOW_SHAPES

# -- commands ---------------------------------------------------------------------------------


def _index(options: argparse.Namespace) -> int:
    from voxblink2_lib.materialize.run import index_release

    index = index_release(build_request(options))
    info = index.info
    lines = [
        f"Index    {index.folder}",
        f"Speakers {info.speakers:,}   videos {info.videos:,}   utterances {info.utterances:,}   "
        f"hours {info.hours:,.2f}",
        f"Boxes    {info.boxes:,}, {index.bytes_a_box:.1f} bytes each",
        f"Rejected {info.rejected:,} files"
        + (f", see {index.folder / 'rejects.csv'}" if info.rejected else ""),
    ]
    write_result(options, {"index": str(index.folder), **asdict(info)}, lines)
    return DONE


def _materialize(options: argparse.Namespace) -> int:
    from voxblink2_lib.materialize.run import materialize
    from voxblink2_lib.store.status import empty_store_message

    request = build_request(options)
    store = materialize(request, retry=True, wait=False)
    if show_status(options, store).utterances:
        return DONE
    # Videos that fail are outcomes, not errors; a whole run without any clip is.
    write_message(f"voxblink2: {empty_store_message(store, options.config)}")
    return WRONG_USE


def _retry(options: argparse.Namespace) -> int:
    from voxblink2_lib.materialize.run import retry_videos

    request = build_request(options)
    store, count = retry_videos(request, options.classes)
    write_message(f"{count:,} videos were asked for again.")
    show_status(options, store)
    return DONE


# -- arguments --------------------------------------------------------------------------------


def add_corpus_commands(commands: Any) -> None:
    """Add the commands that make a store and look at it.

    Args:
        commands: what ``add_subparsers`` returned.
    """
    add_demo_command(commands)
    add_index_command(commands)
    add_materialize_command(commands)
    add_retry_command(commands)
    add_status_command(commands)
    add_verify_command(commands)


def add_index_command(commands: Any) -> None:
    """Add the command ``index``."""
    does = "read a release into an index, or check the index that is there"
    example = "voxblink2 index --data-dir release/vb2_meta.tar.gz --store /data/voxblink2"
    parser = add_command(commands, "index", _index, does, example)
    parser.set_defaults(config="audio")
    add_place_arguments(parser)


def add_materialize_command(commands: Any) -> None:
    """Add the command ``materialize``."""
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
    add_workers_argument(parser)


def add_retry_command(commands: Any) -> None:
    """Add the command ``retry``."""
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
    add_workers_argument(parser)


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
