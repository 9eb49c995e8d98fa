"""The command that checks everything that a long run needs: ``doctor``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.arguments import (
    add_last_run_arguments,
    add_place_arguments,
    add_route_arguments,
    add_source_argument,
    kept_names,
)
from voxblink2_lib.cli.terminal import CHECK_FAILED, DONE, add_command, write_result
from voxblink2_lib.errors import VoxBlink2Error, first_line
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.records import options_of
from voxblink2_lib.release.selection import Selection

if TYPE_CHECKING:
    from voxblink2_lib.doctor.findings import Finding


# Proxies and cookies are checked one by one, so those that are given are no part of the request.
_ROUTES = ("proxy", "cookies")
# What of the store's last run is checked, where it is not given.
_REMEMBERED = ("data_dir", "source", *options_of(Selection), *_ROUTES)


def _doctor(options: argparse.Namespace) -> int:
    from voxblink2_lib.doctor.checks import run_checks

    request, findings = _request(options)
    findings += run_checks(
        request=request,
        proxies=options.proxy or request.fetch.proxy,
        cookies=options.cookies or request.fetch.cookies,
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


def _request(options: argparse.Namespace) -> tuple[MaterializeRequest, list[Finding]]:
    """Return what is given, completed by the last run of the store; or why it cannot be."""
    from voxblink2_lib.doctor.findings import Finding
    from voxblink2_lib.materialize.last_run import resumed_request
    from voxblink2_lib.materialize.places import remembering_store
    from voxblink2_lib.published.place import is_url
    from voxblink2_lib.store.layout import named_store

    given = {name: getattr(options, name) for name in ("config", "data_dir", "source", "store")}
    request = MaterializeRequest.of(**given)
    if request.store is None:
        return request, []
    store = remembering_store(request) if is_url(request.store) else named_store(request.store)
    if not store.ledger.exists():
        return request, []
    names = kept_names(options, _REMEMBERED)
    try:
        kept = [name for name in names if name not in _ROUTES or not getattr(options, name)]
        return resumed_request(given, kept), []
    except VoxBlink2Error as error:
        remedy = "Give it again, or leave it out with --forget."
        return request, [Finding("error", "last run", first_line(error), remedy)]


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
        "      --cookies cookies.txt\n"
        "  voxblink2 doctor --store /data/voxblink2    (what the last run had)"
    )
    parser = add_command(commands, "doctor", _doctor, does, example)
    add_last_run_arguments(parser, _REMEMBERED)
    add_place_arguments(parser)
    add_source_argument(parser)
    add_route_arguments(parser)
