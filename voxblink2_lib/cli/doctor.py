"""The command that looks at everything that a long run needs: doctor."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import (
    add_config_argument,
    add_place_arguments,
    add_way_arguments,
)
from voxblink2_lib.cli.terminal import CHECK_FAILED, DONE, add_command, write_result
from voxblink2_lib.materialize.request import MaterializeRequest

if TYPE_CHECKING:
    from voxblink2_lib.doctor.findings import Finding


def _doctor(options: argparse.Namespace) -> int:
    from voxblink2_lib.doctor.checks import run_checks

    request = MaterializeRequest(
        config=options.config,
        data_dir=options.data_dir,
        source=options.source,
        store=options.store,
    )
    findings = run_checks(
        request=request, proxies=options.proxy or (), cookies=options.cookies or ()
    )
    errors = sum(one.level == "error" for one in findings)
    warnings = sum(one.level == "warning" for one in findings)
    record = {
        "ok": not errors,
        "errors": errors,
        "warnings": warnings,
        "findings": [one.as_dict() for one in findings],
    }
    write_result(
        options,
        record,
        [*_lines(findings), f"{_many(errors, 'error')}, {_many(warnings, 'warning')}"],
    )
    return CHECK_FAILED if errors else DONE


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield words to the left in columns, each remedy indented below what it is for."""
    width = max(len(one.topic) for one in findings)
    for one in findings:
        yield f"{one.level:7}  {one.topic:{width}}  {one.message}"
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
    add_config_argument(parser)
    add_place_arguments(parser)
    parser.add_argument("--source", help="where media come from, as in materialize")
    add_way_arguments(parser.add_argument_group("fetching"))
