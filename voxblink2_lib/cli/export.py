"""The command that writes a store in the format of another tool: ``export``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import (
    add_selection_arguments,
    add_workers_argument,
    store_path,
)
from voxblink2_lib.cli.status import existing_store
from voxblink2_lib.cli.terminal import DONE, add_command, write_message, write_result
from voxblink2_lib.errors import UsageError
from voxblink2_lib.export.names import FORMAT_NAMES, TEXTS
from voxblink2_lib.published.manifest import TABLES
from voxblink2_lib.records import CONFIG_NAMES, options_of
from voxblink2_lib.release.selection import Selection

if TYPE_CHECKING:
    from voxblink2_lib.export.plan import ExportPlan
    from voxblink2_lib.export.run import Exported
    from voxblink2_lib.store.layout import Store


def _export(options: argparse.Namespace) -> int:
    from voxblink2_lib.export.formats import find_format
    from voxblink2_lib.export.plan import ExportRequest, plan_export
    from voxblink2_lib.export.run import export
    from voxblink2_lib.export.target import Target
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.store.joined_columns import RowOptions

    store, config = local_store(options, "export")
    chosen = find_format(options.format, segments=options.segments)
    request = ExportRequest(
        store=store,
        config=config,
        chosen=chosen,
        target=Target.of(options.to),
        selection=Selection.of(**{name: getattr(options, name) for name in options_of(Selection)}),
        rows=RowOptions(with_speaker_info=options.with_speaker_info),
    )
    plan = plan_export(request, progress=show_progress)
    write_message(*_plan_lines(plan))
    result = export(plan, workers=options.workers, progress=show_progress)
    record = {
        "target": request.target.shown,
        **asdict(result.manifest),
        "shards": len(result.manifest.shards),
        "shards_written": result.written,
        "shards_removed": result.removed,
    }
    write_result(options, record, _lines(plan, result))
    return DONE


def local_store(options: argparse.Namespace, verb: str) -> tuple[Store, str]:
    """Return the store that was named and a configuration of it; its shards are on this machine.

    Args:
        options: with the store, and perhaps the configuration.
        verb: what is done to it.

    Raises:
        UsageError: no store was named, or it has several configurations and none was named.
        StoreError: there is no such store.
    """
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.published.reading import fetch_shards
    from voxblink2_lib.store.status import open_ledger

    store = existing_store(store_path(options), TABLES)
    config = _config(options, store, verb)
    if store.url:
        with open_ledger(store, config) as ledger:
            names = [shard.name for shard in ledger.shards()]
        fetch_shards(store_path(options), store, config, names, progress=show_progress)
    return store, config


def _config(options: argparse.Namespace, store: Store, verb: str) -> str:
    """Return the configuration that was named, or the only one that the store has.

    Raises:
        UsageError: it has several.
    """
    from voxblink2_lib.store.status import chosen_configurations

    present = chosen_configurations(store, options.config)
    if len(present) > 1:
        raise UsageError(
            f"The store {store.root} has {' and '.join(present)}. Say which to {verb}: --config "
            f"{present[0]}"
        )
    return present[0] if present else CONFIG_NAMES[0]


def _plan_lines(plan: ExportPlan) -> list[str]:
    from voxblink2_lib.progress import size_text

    manifest, left = plan.manifest, plan.left
    lines = [
        f"Export     {manifest.utterances:,} utterances of {manifest.speakers:,} speakers, "
        f"{manifest.hours:,.2f} h, as {manifest.format} to {manifest.target}"
    ]
    if plan.is_audio_only:
        lines.append(f"Faces      are left out: {manifest.format} has audio only")
    if plan.outdated:
        lines.append(f"Outdated   {len(plan.outdated):,} shards, which the store has no more")
    if plan.current is not None:
        return [*lines, "Nothing is left to do: all of it is there"]
    free = "" if plan.free_bytes is None else f"; {size_text(plan.free_bytes)} are free"
    return [
        *lines,
        f"To write   {len(left):,} of {len(plan.units):,} shards, about "
        f"{size_text(plan.needed_bytes)}{free}",
    ]


def _lines(plan: ExportPlan, result: Exported) -> list[str]:
    from voxblink2_lib.progress import size_text

    manifest = result.manifest
    lines = [
        f"Exported   {manifest.utterances:,} utterances in {manifest.files:,} files, "
        f"{size_text(manifest.size_bytes)}, to {manifest.target}"
    ]
    if lists := plan.request.chosen.list_names:
        lines.append(f"Lists      {', '.join(lists)}")
    reading = TEXTS[plan.request.chosen.name].reading
    return [*lines, f"To read    {reading.format(target=manifest.target)}"]


def add_export_command(commands: Any) -> None:
    """Add the command ``export``."""
    does = (
        "write a store, or a part of it, in the format of another tool; what is stopped goes on "
        "where it was, and a store that has grown is completed"
    )
    example = (
        "voxblink2 export wespeaker --store /data/voxblink2 --to /data/wespeaker\n"
        "  voxblink2 export webdataset --store /data/voxblink2 --to s3://bucket/voxblink2"
    )
    parser = add_command(commands, "export", _export, does, example)
    contents = "; ".join(f"{name}: {text.content}" for name, text in TEXTS.items())
    parser.add_argument("format", metavar="FORMAT", choices=FORMAT_NAMES, help=contents)
    parser.add_argument("--store", metavar="DIR|URL", help="folder of the store, or its URL")
    parser.add_argument(
        "--to", required=True, metavar="DIR|URL", help="a new folder, or a URL as of s3://"
    )
    parser.add_argument(
        "--config",
        choices=CONFIG_NAMES,
        help="configuration to export; default: the one that the store has",
    )
    parser.add_argument(
        "--segments",
        action="store_true",
        help="of kaldi: one recording for each video, and a list segments",
    )
    parser.add_argument(
        "--with-speaker-info",
        action="store_true",
        help="also gender, language, location and tags of the speakers, where the store knows them",
    )
    add_workers_argument(parser)
    add_selection_arguments(parser)
