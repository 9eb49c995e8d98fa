"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from typing import Any

from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources.options import FetchOptions


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Add the name of the configuration."""
    parser.add_argument(
        "--config", choices=CONFIG_NAMES, default="audio", help="default: %(default)s"
    )


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the release and the store are."""
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


def add_way_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the outgoing addresses: proxies, and files of cookies."""
    group.add_argument(
        "--cookies",
        action="append",
        metavar="FILE",
        help="cookies in Netscape's form; repeatable, then one for each --proxy, in order",
    )
    group.add_argument(
        "--proxy",
        action="append",
        metavar="URL",
        help="repeatable: each is an address with a budget of its own",
    )


def add_fetch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group of arguments that :class:`FetchOptions` takes."""
    group = parser.add_argument_group("fetching", "for YouTube and addresses; not for folders")
    add_way_arguments(group)
    group.add_argument(
        "--cookies-from-browser", metavar="BROWSER", help="as yt-dlp takes it, for example firefox"
    )
    group.add_argument(
        "--budget",
        type=float,
        metavar="N",
        help="videos an hour for each address, 0 for no limit; default: 300 for YouTube, else 0",
    )
    group.add_argument(
        "--sleep", type=float, metavar="SECONDS", help="least time between videos of one address"
    )
    group.add_argument(
        "--limit-rate", metavar="RATE", help="bytes a second of one download, as 500K or 2M"
    )
    group.add_argument(
        "--fetches", type=int, metavar="N", help="videos fetched at the same time; default: 8"
    )
    group.add_argument(
        "--extractor-args",
        action="append",
        metavar="ARGS",
        help="as yt-dlp takes them, for PO tokens and players; repeatable",
    )
    group.add_argument(
        "--yt-dlp",
        metavar="OPTIONS",
        help="further options of yt-dlp, such as --yt-dlp='--sleep-requests 1 --force-ipv4'",
    )
    group.add_argument(
        "--reasons",
        metavar="FILE",
        help="TOML file of further patterns of error texts and their classes",
    )


def build_request(options: argparse.Namespace) -> MaterializeRequest:
    """Return what the options ask for, as the library takes it."""

    def get(name: str) -> Any:
        return getattr(options, name, None)

    return MaterializeRequest(
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


def add_workers_argument(parser: argparse.ArgumentParser) -> None:
    """Add the number of worker processes."""
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes; default: one a core, at most 8"
    )
