"""The command that publishes clips, or a metric, for others on the Hub: ``publish``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from voxblink2_lib import METRICS
from voxblink2_lib.cli.arguments import add_selection_arguments
from voxblink2_lib.cli.export import local_store
from voxblink2_lib.cli.terminal import DONE, add_command, write_message, write_result
from voxblink2_lib.errors import UsageError
from voxblink2_lib.records import CONFIG_NAMES, options_of
from voxblink2_lib.release.selection import Selection

if TYPE_CHECKING:
    from voxblink2_lib.hub.plan import PublishPlan
    from voxblink2_lib.hub.run import Publication


def _publish(options: argparse.Namespace) -> int:
    return _publish_metric(options) if options.metric else _publish_clips(options)


def _publish_clips(options: argparse.Namespace) -> int:
    from voxblink2_lib.hub.plan import PublishRequest, plan_publication
    from voxblink2_lib.hub.present import find_repository, look_at
    from voxblink2_lib.hub.run import publish
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.store.joined_columns import RowOptions

    repository = find_repository(options.place, "dataset")
    present = look_at(repository, is_public=options.public)
    store, config = local_store(options, "publish")
    request = PublishRequest(
        store=store,
        config=config,
        repository=repository,
        present=present,
        selection=Selection.of(**{name: getattr(options, name) for name in options_of(Selection)}),
        rows=RowOptions.of(options),
        is_public=options.public,
    )
    plan = plan_publication(request, progress=show_progress)
    write_message(*_plan_lines(plan))
    _ask_all(plan, options)
    result = publish(plan, progress=show_progress)
    record = {
        "data_set": repository.name,
        "config": config,
        "store": store.place,
        **{name: value for name, value in asdict(result).items() if name != "config"},
        **result.config.present,
        "hours": result.config.hours,
        "splits": {name: asdict(split) for name, split in result.config.splits.items()},
    }
    write_result(options, record, _lines(plan, result))
    return DONE


def _publish_metric(options: argparse.Namespace) -> int:
    from voxblink2_lib.hub.metric_space import publish_metric
    from voxblink2_lib.hub.present import find_repository

    if options.store is not None:
        raise UsageError(f"--metric {options.metric} publishes no clips. Leave out --store.")
    repository = find_repository(options.place, "space")
    if options.public:
        _ask(
            f"{repository} will be seen by everybody: the code of the metric {options.metric} and "
            "its description, no clips.",
            options,
        )
    result = publish_metric(options.metric, repository, is_public=options.public)
    lines = [
        f"Published  the metric {options.metric}, {len(result.files)} files, to {repository}, "
        f"{_seen_by(is_public=result.is_public)}",
        f'To load    evaluate.load("{repository.name}")',
    ]
    write_result(options, {"space": repository.name, **asdict(result)}, lines)
    return DONE


# -- Questions -------------------------------------------------------------------------------------


def _ask_all(plan: PublishPlan, options: argparse.Namespace) -> None:
    """Ask before what cannot be undone.

    Raises:
        UsageError: it was not confirmed.
    """
    if plan.changes:
        _ask(
            f"{plan.request.repository} was published with something else: "
            f"{'; '.join(plan.changes)}. {len(plan.removed):,} of its files would be removed.",
            options,
        )
    if plan.becomes_public:
        _ask(_public_text(plan), options)


def _public_text(plan: PublishPlan) -> str:
    from voxblink2_lib.published_results import LICENSE

    present, name = plan.now.present, plan.request.repository.name
    what = "hear the voices and see the faces" if _has_faces(plan) else "hear the voices"
    return (
        f"Everybody in the world will be able to {what} of {present['speakers']:,} real people in "
        f"{present['utterances']:,} clips at https://huggingface.co/datasets/{name}, to download "
        "them, and to keep them when you delete the data set. The card names this licence: "
        f"{LICENSE} Nobody but the owners of the videos can allow their clips to be published."
    )


def _has_faces(plan: PublishPlan) -> bool:
    return "video" in plan.now.features


def _ask(text: str, options: argparse.Namespace) -> None:
    write_message(text)
    if options.yes:
        return
    refused = "Nothing was changed."
    if not sys.stdin.isatty():
        raise UsageError(
            f"Nobody can be asked here whether that is what you want. {refused} Confirm it with "
            "--yes."
        )
    write_message("Type 'yes' to go on:")
    if sys.stdin.readline().strip().lower() != "yes":
        raise UsageError(f"It was not confirmed. {refused}")


# -- Lines -----------------------------------------------------------------------------------------


def _plan_lines(plan: PublishPlan) -> list[str]:
    from voxblink2_lib.progress import size_text

    present, left = plan.now.present, plan.left
    lines = [
        f"Publish    {present['utterances']:,} utterances of {present['speakers']:,} speakers, "
        f"{plan.now.hours:,.2f} h, to {plan.request.repository}"
    ]
    if plan.removed:
        lines.append(f"To remove  {len(plan.removed):,} files, which are not in it any more")
    size = size_text(sum(unit.size_bytes for unit in left))
    if not left:
        return [*lines, "To upload  nothing: all files are there"]
    return [*lines, f"To upload  {len(left):,} of {len(plan.units):,} files, about {size}"]


def _lines(plan: PublishPlan, result: Publication) -> list[str]:
    name, config = plan.request.repository.name, plan.request.config
    seen_by = _seen_by(is_public=result.is_public)
    lines = [
        f"Published  {result.config.utterances:,} utterances, {seen_by}: "
        f"{result.uploaded:,} files are new, {result.kept:,} were there, {result.removed:,} went"
    ]
    if result.erased:
        lines.append(f"Erased     {result.erased:,} former files, from the history too")
    return [*lines, f'To load    load_dataset("{name}", "{config}", streaming=True)']


def _seen_by(*, is_public: bool) -> str:
    return "public" if is_public else "private"


# -- Arguments -------------------------------------------------------------------------------------


def add_publish_command(commands: Any) -> None:
    """Add the command ``publish``."""
    does = (
        "publish clips of a store for others, as a data set of the Hugging Face Hub that "
        "load_dataset reads without this package, or a metric; private unless --public. What is "
        "stopped goes on, and a store that has grown or was purged is published again"
    )
    example = (
        "voxblink2 publish hf://datasets/USER/NAME --store /data/voxblink2\n"
        "  voxblink2 publish hf://spaces/USER/eer --metric eer"
    )
    parser = add_command(commands, "publish", _publish, does, example)
    _add_place_arguments(parser)
    _add_rows_arguments(parser)
    add_selection_arguments(parser)


def _add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is published, where, and who sees it."""
    parser.add_argument(
        "place", metavar="URL", help="hf://datasets/USER/NAME; of a metric, hf://spaces/USER/NAME"
    )
    parser.add_argument("--store", metavar="DIR|URL", help="folder of the store, or its URL")
    parser.add_argument(
        "--config",
        choices=CONFIG_NAMES,
        help="configuration to publish; default: the one that the store has",
    )
    parser.add_argument(
        "--metric", choices=METRICS, help="publish this metric of evaluate, and no clips"
    )
    parser.add_argument(
        "--public",
        action="store_true",
        help="let everybody see it, once all of it is there; asked again before",
    )
    parser.add_argument(
        "--yes", action="store_true", help="answer what would be asked on a terminal with yes"
    )


def _add_rows_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which splits and columns the rows have."""
    parser.add_argument(
        "--validation",
        metavar="FILE",
        help="file that the command split wrote: its speakers make the split validation, and the "
        "others train",
    )
    parser.add_argument(
        "--with-speaker-info",
        action="store_true",
        help="also gender, language, location and tags of the speakers, where the store knows them",
    )
