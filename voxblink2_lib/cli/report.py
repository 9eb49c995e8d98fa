"""The command that plots what a store holds and lists what is missing: ``report``."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import add_present_config_argument, store_path
from voxblink2_lib.cli.status import existing_store
from voxblink2_lib.cli.terminal import CHECK_FAILED, DONE, add_command, write_result
from voxblink2_lib.errors import UsageError
from voxblink2_lib.published.manifest import DURATIONS, TABLES

if TYPE_CHECKING:
    from voxblink2_lib.store.layout import Store


def _report(options: argparse.Namespace) -> int:
    from voxblink2_lib.store.status import chosen_configurations

    page, csv_file = _targets(options)
    if csv_file == page:
        raise UsageError(f"--out and --csv are the same file, {page}. Name two files.")
    store = existing_store(store_path(options), (*TABLES, DURATIONS))
    configs = chosen_configurations(store, options.config)
    if not configs:
        return _say_nothing(options, store)
    missing = _write(store, configs, page, csv_file)
    record: dict[str, Any] = {"store": store.place, "report": str(page), "csv": str(csv_file)}
    if options.config is None:
        record["configs"] = {name: {"missing": missing[name]} for name in configs}
    else:
        record |= {"config": options.config, "missing": missing.total()}
    videos = "video" if missing.total() == 1 else "videos"
    lines = [
        f"Report  {page} ({' and '.join(configs)})",
        f"Missing {csv_file} ({missing.total():,} {videos})",
    ]
    write_result(options, record, lines)
    return DONE


def _say_nothing(options: argparse.Namespace, store: Store) -> int:
    nothing = f"Nothing to report: the store {store.place} has nothing of any configuration yet."
    write_result(options, {"store": store.place, "configs": {}}, [nothing])
    return CHECK_FAILED


def _targets(options: argparse.Namespace) -> tuple[Path, Path]:
    """Return the page and the CSV file to write."""
    page = Path(options.out).expanduser().absolute()
    if options.csv is None:
        return page, page.with_name("missing.csv")
    return page, Path(options.csv).expanduser().absolute()


def _write(store: Store, configs: Sequence[str], page: Path, csv_file: Path) -> Counter[str]:
    """Write both files; return the number of missing videos of each configuration."""
    from voxblink2_lib import __version__
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.report.page import ReportSubject, write_report
    from voxblink2_lib.store.status import open_ledger

    with ExitStack() as ledgers:
        statistics = {
            name: ledgers.enter_context(open_ledger(store, name)).statistics for name in configs
        }
        return write_report(
            statistics,
            ReportSubject(store.place, __version__, time.time()),
            target=page,
            csv_file=csv_file,
            index=store.index,
            progress=show_progress,
        )


def add_report_command(commands: Any) -> None:
    """Add the command ``report``."""
    does = "write a page of plots of what a store holds, and a CSV file of what is missing and why"
    example = "voxblink2 report --store /data/voxblink2 --out report.html"
    parser = add_command(commands, "report", _report, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument("--store", metavar="DIR|URL", help="folder of the store, or its URL")
    add_present_config_argument(parser)
    parser.add_argument(
        "--out",
        default="report.html",
        metavar="FILE",
        help="the page, one file that needs no network; default: %(default)s",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="every missing video with its reason; default: missing.csv beside the page",
    )
