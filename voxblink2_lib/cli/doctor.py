"""The command that checks everything that a long run needs: ``doctor``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import (
    add_config_argument,
    add_place_arguments,
    add_route_arguments,
    add_source_argument,
)
from voxblink2_lib.cli.terminal import CHECK_FAILED, DONE, add_command, write_result
from voxblink2_lib.materialize.request import MaterializeRequest

if TYPE_CHECKING:
    from voxblink2_lib.doctor.findings import Finding


def _doctor(options: argparse.Namespace) -> int:
    from voxblink2_lib.doctor.checks import run_checks

    # Proxies and cookies are checked one by one, so they are no part of the request.
    request = MaterializeRequest.of(
        config=options.config,
        data_dir=options.data_dir,
        source=options.source,
        store=options.store,
    )
    findings = run_checks(
        request=request, proxies=options.proxy or (), cookies=options.cookies or ()
    )
    levels = [finding.level for finding in findings]
    errors, warnings = levels.count("error"), levels.count("warning")
    record = {
        "ok": not errors,
        "errors": errors,
        "warnings": warnings,
        "findings": [finding.as_dict() for finding in findings],
    }
    summary = f"{_counted(errors, 'error')}, {_counted(warnings, 'warning')}"
    write_result(options, record, [*_lines(findings), summary])
    return CHECK_FAILED if errors else DONE


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield each finding in columns, with its remedy indented below it."""
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        yield f"{finding.level:7}  {finding.topic:{width}}  {finding.message}"
        if finding.remedy:
            yield f"{'':7}  {'':{width}}  -> {finding.remedy}"


def add_doctor_command(commands: Any) -> None:
    """Add the command ``doctor``."""
    does = "check everything that a long run needs, before the first video"
    example = (
        "voxblink2 doctor --data-dir release --source youtube --store /data/voxblink2 \\\n"
        "      --cookies cookies.txt"
    )
    parser = add_command(commands, "doctor", _doctor, does, example)
    add_config_argument(parser)
    add_place_arguments(parser)
    add_source_argument(parser)
    add_route_arguments(parser)
