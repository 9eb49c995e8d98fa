"""The command that draws what a store holds and lists what it lacks: report."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from voxblink2_lib.cli.arguments import add_config_argument
from voxblink2_lib.cli.terminal import DONE, WRONG_USE, add_command, write_message, write_result


def _report(options: argparse.Namespace) -> int:
    from voxblink2_lib import __version__
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.report.page import ReportSubject, write_report
    from voxblink2_lib.store.layout import named_store
    from voxblink2_lib.store.status import open_ledger

    store = named_store(options.store)
    target = Path(options.out).expanduser().absolute()
    csv_file = target.with_name("missing.csv")
    if options.csv is not None:
        csv_file = Path(options.csv).expanduser().absolute()
    if csv_file == target:
        write_message(f"voxblink2: --out and --csv are the same file, {target}; name two.")
        return WRONG_USE
    subject = ReportSubject(str(store.root), options.config, __version__, time.time())
    with open_ledger(store, options.config) as ledger:
        missing = write_report(
            ledger.statistics,
            subject,
            target=target,
            csv_file=csv_file,
            index=store.index,
            progress=show_progress,
        )
    record = {
        "store": str(store.root),
        "config": options.config,
        "report": str(target),
        "csv": str(csv_file),
        "missing": missing,
    }
    videos = "video" if missing == 1 else "videos"
    lines = [f"Report  {target}", f"Missing {csv_file} ({missing:,} {videos})"]
    write_result(options, record, lines)
    return DONE


def add_report_command(commands: Any) -> None:
    """Add the command.

    Args:
        commands: what ``add_subparsers`` returned.
    """
    does = "write a page of plots of what a store holds, and a CSV file of what is missing and why"
    example = "voxblink2 report --store /data/voxblink2 --out report.html"
    parser = add_command(commands, "report", _report, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument("--store", required=True, metavar="DIR", help="folder of the store")
    add_config_argument(parser)
    parser.add_argument(
        "--out",
        default="report.html",
        metavar="FILE",
        help="the page, which needs no other file and no network; default: %(default)s",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="every missing video with its reason; default: missing.csv beside the page",
    )
