"""The command that looks at everything that a long run needs: doctor."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.terminal import CHECK_FAILED, DONE, add_command, show
from voxblink2_lib.config import CONFIG_NAMES, MaterializeConfig

if TYPE_CHECKING:
    from voxblink2_lib.doctor import Finding


def _doctor(options: argparse.Namespace) -> int:
    from voxblink2_lib.doctor import examine

    config = MaterializeConfig(
        config=options.config,
        data_dir=options.data_dir,
        source=options.source,
        store=options.store,
    )
    findings = examine(config=config, proxies=options.proxy, cookies=options.cookies)
    errors = sum(one.level == "error" for one in findings)
    warnings = sum(one.level == "warning" for one in findings)
    record = {
        "ok": not errors,
        "errors": errors,
        "warnings": warnings,
        "findings": [asdict(one) for one in findings],
    }
    show(
        options,
        record,
        [*_lines(findings), f"{_many(errors, 'error')}, {_many(warnings, 'warning')}"],
    )
    return CHECK_FAILED if errors else DONE


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield words to the left in columns, each remedy indented below what it is for."""
    width = max(len(one.what) for one in findings)
    for one in findings:
        yield f"{one.level:7}  {one.what:{width}}  {one.says}"
        if one.remedy:
            yield f"{'':7}  {'':{width}}  -> {one.remedy}"


def add_doctor_command(commands: Any) -> None:
    """Add the command.

    Args:
        commands: what ``add_subparsers`` returned.
    """
    does = "look at everything that a long run needs, before the first video"
    example = (
        "voxblink2 doctor --data-dir release --source youtube --store /data/voxblink2 \\\n"
        "      --cookies cookies.txt"
    )
    parser = add_command(commands, "doctor", _doctor, does, example)
    parser.add_argument(
        "--config", choices=CONFIG_NAMES, default="audio", help="default: %(default)s"
    )
    parser.add_argument("--data-dir", metavar="RELEASE", help="the release, as in materialize")
    parser.add_argument("--source", help="where media come from, as in materialize")
    parser.add_argument("--store", metavar="DIR", help="where clips would go, as in materialize")
    parser.add_argument(
        "--proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="ask the source through this proxy; again for more",
    )
    parser.add_argument(
        "--cookies",
        action="append",
        default=[],
        metavar="FILE",
        help="cookies in Netscape format (cookies.txt); again for more",
    )
