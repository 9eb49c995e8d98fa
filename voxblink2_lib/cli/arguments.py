"""Arguments that several commands take, made from the options that the records declare."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from voxblink2_lib.errors import UsageError
from voxblink2_lib.materialize.request import MaterializeRequest, user_options
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import Option, option_string, options_of
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources.options import FetchOptions

Parser = argparse.ArgumentParser | argparse._ArgumentGroup


def add_option(parser: Parser, name: str, option: Option, **changes: Any) -> None:
    """Add the argument of one option.

    Args:
        parser: a parser, or a group of one.
        name: the option's name.
        option: the option.
        changes: arguments of ``add_argument`` that differ in this command.
    """
    if option.values == "none":
        parser.add_argument(
            option_string(name), action="store_const", const=True, help=_help(option)
        )
        return
    details: dict[str, Any] = {"type": option.parse, "help": _help(option)}
    if option.choices:
        details["choices"] = option.choices
    else:
        details["metavar"] = option.metavar
    if option.values == "repeat":
        details["action"] = "append"
    elif option.values == "list":
        details["nargs"] = "+"
    parser.add_argument(option_string(name), **details | changes)


def _help(option: Option) -> str:
    repeatable = "; may be repeated" if option.values == "repeat" else ""
    return f"{option.summary}{repeatable}".replace("%", "%%")


def add_options(parser: Parser, record: type, names: Iterable[str] | None = None) -> None:
    """Add the arguments of a record's options, or of some of them."""
    options = options_of(record)
    for name in options if names is None else names:
        add_option(parser, name, options[name])


def add_config_argument(parser: Parser) -> None:
    """Add the name of the configuration."""
    option = options_of(MaterializeRequest)["config"]
    add_option(parser, "config", option, default=option.default)


def add_present_config_argument(parser: Parser) -> None:
    """Add the name of a configuration that a store has, in a command that looks at all of them."""
    option = options_of(MaterializeRequest)["config"]
    add_option(parser, "config", replace(option, default="all that the store has"))


def add_last_run_arguments(parser: Parser, names: Iterable[str]) -> None:
    """Add the configuration, by default the last run's, and what of that run is left out.

    Args:
        parser: a parser.
        names: the options that the command takes over from the last run.
    """
    option = options_of(MaterializeRequest)["config"]
    default = f"that of the store's last run, {option.default} in a new store"
    add_option(parser, "config", replace(option, default=default))
    parser.add_argument(
        "--forget",
        action="append",
        default=[],
        choices=[option_string(name).removeprefix("--") for name in names],
        help="leave out an option that the store remembers of its last run, such as max-speakers; "
        "may be repeated",
        metavar="OPTION",
    )


def add_place_arguments(parser: Parser) -> None:
    """Add where the release and the store are."""
    add_options(parser, MaterializeRequest, ["data_dir", "store"])


def add_scratch_argument(parser: Parser) -> None:
    """Add where a store at a URL is made."""
    add_options(parser, MaterializeRequest, ["scratch"])


def add_slice_argument(parser: Parser) -> None:
    """Add which slice of the corpus is made."""
    add_options(parser, MaterializeRequest, ["shard_of_jobs"])


def add_source_argument(parser: Parser, **changes: Any) -> None:
    """Add where media are."""
    add_option(parser, "source", options_of(MaterializeRequest)["source"], **changes)


def add_workers_argument(parser: Parser) -> None:
    """Add the number of worker processes."""
    add_options(parser, MaterializeRequest, ["workers"])


def add_selection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which part of the release."""
    note = "which videos; an id that begins with two dashes: --videos=--demoSailo"
    add_options(parser.add_argument_group("selection", note), Selection)


def add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how clips are cropped and encoded."""
    note = (
        "video options are for --config audio-visual; the defaults are those of a new store, "
        "an existing store keeps its values"
    )
    add_options(parser.add_argument_group("clips", note), ClipOptions)


def add_route_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the routes to a source: proxies, and files of cookies."""
    add_options(_fetch_group(parser), FetchOptions, ["proxy", "cookies"])


def add_fetch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how media are downloaded."""
    add_options(_fetch_group(parser), FetchOptions)


def _fetch_group(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    return parser.add_argument_group("download", "for YouTube and URLs; not for a folder")


def store_path(options: argparse.Namespace) -> str:
    """Return the store that was named.

    Raises:
        UsageError: none was.
    """
    if options.store is None:
        raise UsageError(
            "Which store? Name its folder with --store, for example: "
            f"{options.prog} --store voxblink2-demo/store"
        )
    return str(options.store)


def build_request(options: argparse.Namespace) -> MaterializeRequest:
    """Return the request of parsed arguments, of which a command has all or some."""
    return MaterializeRequest.of(**_given(options))


def resume_request(options: argparse.Namespace, names: Iterable[str]) -> MaterializeRequest:
    """Return that request, completed by the store's last run; its configuration is written back.

    Args:
        options: parsed arguments, perhaps with those of :func:`add_last_run_arguments`.
        names: the options that may be completed.
    """
    from voxblink2_lib.materialize.last_run import resumed_request

    request = resumed_request(_given(options), kept_names(options, names))
    options.config = request.config
    return request


def kept_names(options: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Return the names of options without those that ``--forget`` leaves out."""
    left_out = {name.replace("-", "_") for name in getattr(options, "forget", ())}
    return [name for name in names if name not in left_out]


def _given(options: argparse.Namespace) -> dict[str, Any]:
    names = user_options()
    return {name: value for name, value in vars(options).items() if name in names}
