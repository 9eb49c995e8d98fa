"""The command ``score ossi``: open-set speaker identification."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.score_inputs import (
    add_embeddings_arguments,
    add_overlap_argument,
    add_plot_argument,
    check_sources,
    embeddings_of,
    missing_lines,
    overlap_lines,
)
from voxblink2_lib.cli.score_result import ScoreResult, add_format_argument, run_score
from voxblink2_lib.cli.score_rows import open_set_table, system_name
from voxblink2_lib.cli.terminal import add_command, columns, write_message
from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import counted

if TYPE_CHECKING:
    from voxblink2_lib.scoring.embeddings import Embeddings
    from voxblink2_lib.scoring.open_set import OpenSetResult
    from voxblink2_lib.scoring.open_set_report import OpenSetReport
    from voxblink2_lib.scoring.protocols import OpenSetProtocol


def _ossi(options: argparse.Namespace) -> ScoreResult:
    from voxblink2_lib.scoring.plots import plot_dir
    from voxblink2_lib.scoring.protocols import read_protocols

    _check(options)
    protocols = read_protocols(options.protocol)
    names = (name for protocol in protocols for name in (*protocol.gallery, *protocol.probes))
    embeddings = embeddings_of(options, names)
    reports = [_evaluate(options, protocol, embeddings) for protocol in protocols]
    if options.plot:
        plot_dir({report.protocol: report.result for report in reports}, options.plot)
    record = {"protocols": [report.as_dict() for report in reports]}
    table = open_set_table(system_name(options), reports)
    source = embeddings.source if options.model else None
    return ScoreResult(record, _report_lines(reports), table, source)


def _check(options: argparse.Namespace) -> None:
    """Check all that can be checked before anything is read."""
    from voxblink2_lib.scoring.open_set import checked_far
    from voxblink2_lib.scoring.plots import check_plot_path

    checked_far(options.far)
    if options.interval and options.method != "exact":
        raise ScoringError("--interval goes with --method exact, the default.")
    if options.plot:
        check_plot_path(options.plot)
    check_sources(options)


def _evaluate(
    options: argparse.Namespace, protocol: OpenSetProtocol, embeddings: Embeddings
) -> OpenSetReport:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.scoring.open_set_report import evaluate_protocol

    write_message(
        f"Scoring {protocol.name}: {counted(len(protocol.probes), 'probe')}, "
        f"{counted(len(protocol.gallery), 'enrolled utterance')}"
    )
    return evaluate_protocol(
        protocol,
        embeddings,
        missing=options.missing,
        far=options.far,
        enrolment=options.enrolment,
        method=options.method,
        interval=options.interval,
        device=options.device,
        allow_overlap=options.allow_overlap,
        progress=show_progress,
    )


# -- Text ------------------------------------------------------------------------------------------


def _report_lines(reports: Sequence[OpenSetReport]) -> list[str]:
    """Return the reports as a table and notes for people."""
    from voxblink2_lib.scoring.open_set import far_text

    first = reports[0].result
    head = ["protocol", "enrolled", "speakers", "probes", "known", "unknown"]
    rates = [*(f"DIR@FAR={far_text(far)}" for far in first.dir), "AUC", "rank-1"]
    lines = columns([[*head, *rates], *map(_row, reports)])
    lines += missing_lines(list(dict.fromkeys(name for each in reports for name in each.missing)))
    lines += [
        f"{report.protocol}: speakers without any enrolled utterance: "
        f"{len(report.lost_speakers):,}; "
        f"their {counted(report.lost_probes, 'probe', 'are')} left out"
        for report in reports
        if report.lost_speakers
    ]
    lines += [line for report in reports for line in overlap_lines(report.overlap)]
    lines.append(f"Method {first.method}, enrolment {first.enrolment}")
    return [*lines, *_mark_lines([report.result for report in reports])]


def _mark_lines(results: Sequence[OpenSetResult]) -> list[str]:
    """Return lines about intervals, and about rates and intervals that may not hold."""
    from voxblink2_lib.scoring.det import FEWEST_ERRORS
    from voxblink2_lib.scoring.intervals import other_marks

    intervals = [each for result in results for each in (result.intervals or {}).values()]
    lines = ["In brackets: 95 % intervals, 1,000 resamples"] if intervals else []
    if marks := other_marks(intervals):
        lines.append(f"Intervals may not hold: {', '.join(marks)}")
    if any(errors.few for result in results for errors in result.errors.values()):
        lines.append(
            f"* fewer than {FEWEST_ERRORS} known probes are lost or unknown ones accepted: too few "
            "to rely on the rate or its interval"
        )
    return lines


def _row(report: OpenSetReport) -> list[str]:
    result = report.result
    return [
        report.protocol,
        _part_of(report.enrolled, report.gallery),
        f"{result.speakers:,}",
        _part_of(report.scored, report.probes),
        f"{result.known:,}",
        f"{result.unknown:,}",
        *(_rate(result, far) for far in result.dir),
        f"{result.auc:.4f}",
        f"{100 * result.rank1:.2f} %",
    ]


def _rate(result: OpenSetResult, far: float) -> str:
    mark = " *" if result.errors[far].few else ""
    ends = ""
    if result.intervals:
        interval = result.intervals[far]
        ends = f" [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"
    return f"{100 * result.dir[far]:.2f} %{ends}{mark}"


def _part_of(part: int, whole: int) -> str:
    return f"{whole:,}" if part == whole else f"{part:,} of {whole:,}"


# -- Arguments -------------------------------------------------------------------------------------


def add_ossi_command(group: Any) -> None:
    """Add the command ``score ossi``."""
    does = "open-set identification: DIR at FAR, of one protocol or of all below a folder"
    example = (
        "voxblink2 score ossi --protocol data/ossi --embeddings embeddings.parquet --plot dir.png"
    )
    parser = add_command(group, "ossi", run_score, does, example)
    parser.set_defaults(score=_ossi, keeps_work=False)
    parser.add_argument(
        "--protocol",
        required=True,
        metavar="DIR",
        help="folder with the files gallery and probe, or above such folders; or the release",
    )
    add_embeddings_arguments(parser)
    add_overlap_argument(parser)
    _add_rate_arguments(parser)
    parser.add_argument(
        "--device",
        help="PyTorch device; default: CUDA if available, for --model and for large products",
    )
    add_plot_argument(parser, "DIR over FAR")
    add_format_argument(parser)


def _add_rate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--far",
        type=float,
        nargs="+",
        default=[0.1, 0.01, 0.001],
        metavar="FAR",
        help="false acceptance rates to report; default: 0.1 0.01 0.001",
    )
    parser.add_argument(
        "--enrolment",
        choices=("mean", "normalized-mean", "max"),
        default="mean",
        help="how a speaker's embeddings become a model; default: %(default)s",
    )
    parser.add_argument(
        "--interval",
        choices=("probes", "speakers"),
        help="95%% confidence intervals from 1,000 resamples of these",
    )
    parser.add_argument(
        "--method",
        choices=("exact", "voxblink2"),
        default="exact",
        help="exact, or the published script's grid of 1,000 thresholds; default: %(default)s",
    )
