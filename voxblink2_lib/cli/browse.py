"""The command that shows a store in the browser: ``browse``."""

from __future__ import annotations

import argparse
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import add_option, build_request
from voxblink2_lib.cli.terminal import DONE, add_command, write_message, write_result
from voxblink2_lib.errors import UsageError
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.records import options_of
from voxblink2_lib.release.location import RELEASE_VARIABLE

if TYPE_CHECKING:
    from voxblink2_lib.browse.browser import StoreBrowser
    from voxblink2_lib.store.layout import Store

_MOST_PORT = 65_535


def _browse(options: argparse.Namespace) -> int:
    from voxblink2_lib.browse.browser import StoreBrowser
    from voxblink2_lib.browse.server import PageServer

    browser = StoreBrowser.open(
        _store(options),
        config=options.config,
        exclude=_path(options.exclude),
        embeddings=_path(options.embeddings) if options.embeddings else None,
        purity=_path(options.purity) if options.purity else None,
    )
    with PageServer(browser, port=options.port) as server:
        record = {
            **{"url": server.url, "store": str(browser.store.root), "config": browser.config},
            "exclude": str(browser.marks.file),
        }
        lines = [
            f"Browse  {server.url}",
            "        Ctrl-C ends it. Nothing is written to the store.",
        ]
        write_result(options, record, lines)
        _wait()
    _save(browser)
    return DONE


def _wait() -> None:
    """Wait until the user ends the command: that is how it is meant to end."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return


def _save(browser: StoreBrowser) -> None:
    if not browser.marks.is_saved:
        browser.marks.save()
        write_message(f"Marks that were not saved yet are in {browser.marks.file} now.")


def _store(options: argparse.Namespace) -> Store:
    from voxblink2_lib.materialize.places import find_store
    from voxblink2_lib.store.layout import named_store

    if options.store is not None:
        return named_store(options.store)
    if os.environ.get(RELEASE_VARIABLE):
        return find_store(build_request(options))
    raise UsageError(
        "Which store? Name its folder, for example: voxblink2 browse voxblink2-demo/store"
    )


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_PORT):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no port; expected is a number from 1 to {_MOST_PORT:,}."
        )
    return int(text)


def add_browse_command(commands: Any) -> None:
    """Add the command ``browse``."""
    does = (
        "search a store in the browser, hear and see its utterances, and mark what is to be left "
        "out; for this machine alone, and nothing is written into the store"
    )
    example = "voxblink2 browse /data/voxblink2 --embeddings vb2.parquet --purity purity"
    parser = add_command(commands, "browse", _browse, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument(
        "store", nargs="?", metavar="STORE", help="folder of the store, also of one that is written"
    )
    config = options_of(MaterializeRequest)["config"]
    add_option(parser, "config", replace(config, default="that of the store's last run"))
    parser.add_argument(
        "--embeddings",
        metavar="FILE",
        help="of the store's utterances, by 'embed': compares a speaker's utterances",
    )
    parser.add_argument(
        "--purity", metavar="DIR", help="lists that 'purity' wrote: shows who is far, or mixed"
    )
    parser.add_argument(
        "--exclude",
        default="exclude.txt",
        metavar="FILE",
        help="where marks are saved, for exclude; what is in it is kept; default: %(default)s",
    )
    parser.add_argument(
        "--port", type=_port, metavar="N", help="of 127.0.0.1; default: any that is free"
    )
