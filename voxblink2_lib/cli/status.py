"""The command that shows what a store holds: ``status``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import (
    add_place_arguments,
    add_present_config_argument,
    build_request,
    store_path,
)
from voxblink2_lib.cli.terminal import (
    CHECK_FAILED,
    DONE,
    add_command,
    failure_record,
    write_result,
)
from voxblink2_lib.errors import StoreError, next_command
from voxblink2_lib.published.manifest import LEDGER_ONLY
from voxblink2_lib.published.place import is_url

# So many videos are named; all are in the JSON form.
_MAX_NAMES = 5

if TYPE_CHECKING:
    from voxblink2_lib.sources.rate_limits import Pause
    from voxblink2_lib.store.layout import Store
    from voxblink2_lib.store.ledger_statistics import MissingVideo, SoundNotes
    from voxblink2_lib.store.status import StoreStatus

# -- Commands -------------------------------------------------------------------------------------


def _status(options: argparse.Namespace) -> int:
    from voxblink2_lib.store.status import chosen_configurations

    store = named_or_default_store(options)
    configs: dict[str | None, dict[str, Any]] = {}
    lines: list[Iterable[str]] = []
    for name in chosen_configurations(store, options.config):
        _, configs[name], more = _about(store, name, with_missing=options.missing)
        lines += [[""], more] if lines else [more]
    nothing = [f"Store      {store.place}: nothing of any configuration yet"]
    record = {"store": store.place, "configs": configs}
    write_result(options, configs.get(options.config, record), chain(*lines) if lines else nothing)
    return DONE if configs else CHECK_FAILED


def named_or_default_store(options: argparse.Namespace) -> Store:
    """Return the store that was named, whose release is not needed; else that of the release.

    Raises:
        UsageError: neither is named.
    """
    from voxblink2_lib.materialize.places import find_store
    from voxblink2_lib.release.location import RELEASE_VARIABLE

    if options.store is None and (options.data_dir or os.environ.get(RELEASE_VARIABLE)):
        return find_store(build_request(options))
    return existing_store(store_path(options))


def existing_store(named: str, needs: Collection[str] = LEDGER_ONLY) -> Store:
    """Return a store that is only read: the one in a folder, or a copy of what is at a URL.

    Args:
        named: a folder or a URL.
        needs: which files of a published store are needed.
    """
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.published.reading import open_published
    from voxblink2_lib.store.layout import named_store

    if is_url(named):
        return open_published(named, needs, progress=show_progress)
    return named_store(named)


# -- Status in JSON and in lines ------------------------------------------------------------------


def write_status(
    options: argparse.Namespace, store: Store, *, may_be_empty: bool = True
) -> StoreStatus:
    """Write what a store holds of one configuration, and return it.

    Args:
        options: parsed arguments with the name of the configuration.
        store: the store.
        may_be_empty: a store without any clip is no error.
    """
    from voxblink2_lib.store.status import empty_store_message

    status, record, lines = _about(store, options.config)
    if not (status.utterances or may_be_empty):
        record |= failure_record(StoreError(empty_store_message(store, options.config)))
    write_result(options, record, lines)
    return status


def _about(
    store: Store, config: str, *, with_missing: bool = False
) -> tuple[StoreStatus, dict[str, Any], Iterable[str]]:
    """Return what a store holds of a configuration, also as it is written in both forms.

    Args:
        store: the store.
        config: the configuration.
        with_missing: list every unavailable video instead of the most frequent reasons.
    """
    from voxblink2_lib.materialize.pauses import stored_pauses
    from voxblink2_lib.store.status import missing_videos, read_status

    status = read_status(store, config)
    pauses = stored_pauses(store, config)
    record = {**status.as_dict(), "pauses": _pause_records(pauses)}
    lines = [*_status_lines(status), *_pause_lines(pauses)]
    if not with_missing:
        return status, record, [*lines, *_reason_lines(status)]
    # One of the two is read: there may be millions.
    missing = missing_videos(store, config)
    record["missing"] = (video.as_dict() for video in missing)
    return status, record, chain(lines, map(_missing_line, missing))


def _missing_line(video: MissingVideo) -> str:
    return f"{video.speaker_id} {video.video_id} {video.status}: {video.reason}"


def _status_lines(status: StoreStatus) -> list[str]:
    from voxblink2_lib.progress import size_text

    videos = ", ".join(f"{count:,} {name}" for name, count in sorted(status.videos.items()))
    speakers = status.speakers
    return [
        f"Store      {status.store} ({status.config})",
        f"Videos     {videos or 'none'}",
        f"Utterances {status.utterances:,} ({status.hours:,.2f} hours); "
        f"{status.missing_utterances:,} without a clip",
        f"Speakers   {speakers.complete:,} complete, {speakers.partial:,} partial, "
        f"{speakers.empty:,} empty",
        f"Shards     {status.shards:,} ({size_text(status.shard_bytes)})",
        f"Fetched    {size_text(status.bytes_fetched)}; last hour of work: "
        f"{status.videos_an_hour:,.0f} videos per hour, {size_text(status.bytes_a_second)}/s",
        *([f"Cut audio  {status.archive_problem}"] if status.archive_problem else []),
        *_time_lines(status),
        *_sound_lines(status.sound),
    ]


def _time_lines(status: StoreStatus) -> list[str]:
    from voxblink2_lib.progress import clock_text, duration_text

    lines = []
    if status.seconds_left is not None:
        lines.append(f"Time left  about {duration_text(status.seconds_left)} at that speed")
    if status.waiting and status.next_try is not None:
        lines.append(
            f"Waiting    {status.waiting:,} for a retry by "
            f"{next_command('materialize', store=status.store, config=status.config)}, "
            f"the first from {clock_text(status.next_try)}"
        )
    return lines


def _pause_records(pauses: Mapping[str, Pause]) -> list[dict[str, Any]]:
    return [
        {"route": route, "until": pause.until, "reason": pause.reason}
        for route, pause in pauses.items()
    ]


def _pause_lines(pauses: Mapping[str, Pause]) -> list[str]:
    from voxblink2_lib.progress import clock_text

    return [
        f"Paused     {route} until {clock_text(pause.until)} ({pause.reason})"
        for route, pause in pauses.items()
    ]


def _sound_lines(sound: SoundNotes) -> list[str]:
    lines = []
    if sound.videos_with_tracks:
        lines.append(f"Sound      videos with several audio tracks: {sound.videos_with_tracks:,}")
    if sound.clipped_samples:
        lines.append(
            f"Sound      samples beyond full scale: {sound.clipped_samples:,}, "
            f"videos that have any: {sound.clipped_videos:,}"
        )
    if sound.louder_channels:
        named = [
            f"{row.speaker_id}/{row.video_id} (channel {row.channel})"
            for row in sound.louder_channels[:_MAX_NAMES]
        ]
        more = len(sound.louder_channels) - len(named)
        named += [f"and {more:,} more"] if more else []
        lines.append(
            f"Sound      channels cancel each other, so the louder one was used: {', '.join(named)}"
        )
    return lines


def _reason_lines(status: StoreStatus) -> list[str]:
    if not status.reasons:
        return []
    reasons = [
        f"  {reason.videos:6,}  {reason.status}: {reason.message}" for reason in status.reasons
    ]
    return ["Most frequent reasons:", *reasons]


# -- Arguments ------------------------------------------------------------------------------------


def add_status_command(commands: Any) -> None:
    """Add the command ``status``."""
    does = "show what a store holds, which videos are unavailable, and why"
    example = "voxblink2 status --store /data/voxblink2 --missing"
    parser = add_command(commands, "status", _status, does, example)
    add_present_config_argument(parser)
    add_place_arguments(parser)
    parser.add_argument("--missing", action="store_true", help="list every unavailable video")
