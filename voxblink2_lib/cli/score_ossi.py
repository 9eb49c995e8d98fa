"""The command ``score ossi``: open-set speaker identification."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.score_inputs import (
    add_embeddings_arguments,
    check_sources,
    embeddings_of,
)
from voxblink2_lib.cli.terminal import DONE, add_command, columns, write_message, write_result

if TYPE_CHECKING:
    from voxblink2_lib.scoring.evaluation import OpenSetReport
from voxblink2_lib.cli.score_inputs import add_plot_argument, missing_lines

# -- open-set identification ------------------------------------------------------------------


def _ossi(options: argparse.Namespace) -> int:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.scoring.evaluation import evaluate_protocol, read_protocols
    from voxblink2_lib.scoring.open_set import checked_far
    from voxblink2_lib.scoring.plots import check_plot_path, plot_dir

    checked_far(options.far)
    if options.plot:
        check_plot_path(options.plot)
    check_sources(options)
    protocols = read_protocols(options.protocol)
    names = (name for one in protocols for name in (*one.gallery, *one.probes))
    embeddings = embeddings_of(options, names)
    reports = []
    for protocol in protocols:
        write_message(
            f"Scoring {protocol.name}: {len(protocol.probes):,} probes, "
            f"{len(protocol.gallery):,} enrolled utterances"
        )
        reports.append(
            evaluate_protocol(
                protocol,
                embeddings,
                missing=options.missing,
                far=options.far,
                enrolment=options.enrolment,
                method=options.method,
                device=options.device,
                progress=show_progress,
            )
        )
    if options.plot:
        plot_dir({report.protocol: report.result for report in reports}, options.plot)
    write_result(
        options, {"protocols": [_ossi_record(one) for one in reports]}, _ossi_lines(reports)
    )
    return DONE


def _ossi_lines(reports: Sequence[OpenSetReport]) -> list[str]:
    from voxblink2_lib.scoring.open_set import far_text

    fars = list(reports[0].result.dir)
    head = ["protocol", "enrolled", "speakers", "probes", "known", "unknown"]
    table = [[*head, *(f"DIR@FAR={far_text(far)}" for far in fars), "AUC", "rank-1"]]
    for report in reports:
        result = report.result
        table.append(
            [
                report.protocol,
                _of(report.enrolled, report.gallery),
                f"{result.speakers:,}",
                _of(report.scored, report.probes),
                f"{result.known:,}",
                f"{result.unknown:,}",
                *(f"{100 * result.dir[far]:.2f} %" for far in fars),
                f"{result.auc:.4f}",
                f"{100 * result.rank1:.2f} %",
            ]
        )
    lines = columns(table)
    missing = list(dict.fromkeys(name for report in reports for name in report.missing))
    lines += missing_lines(missing)
    for report in reports:
        if report.lost_speakers:
            lines.append(
                f"{report.protocol}: speakers without any enrolled utterance: "
                f"{len(report.lost_speakers):,}; their {report.lost_probes:,} probes are left out"
            )
    first = reports[0].result
    return [*lines, f"Method {first.method}, enrolment {first.enrolment}"]


def _of(part: int, whole: int) -> str:
    return f"{whole:,}" if part == whole else f"{part:,} of {whole:,}"


def _ossi_record(report: OpenSetReport) -> dict[str, Any]:
    from voxblink2_lib.scoring.open_set import far_text

    result = report.result
    return {
        "protocol": report.protocol,
        "gallery": report.gallery,
        "enrolled": report.enrolled,
        "speakers": result.speakers,
        "probes": report.probes,
        "scored": report.scored,
        "known": result.known,
        "unknown": result.unknown,
        "missing": report.missing,
        "lost_speakers": report.lost_speakers,
        "lost_probes": report.lost_probes,
        "method": result.method,
        "enrolment": result.enrolment,
        **result.as_dict(),
        **{
            f"threshold@far={far_text(far)}": None if threshold == float("-inf") else threshold
            for far, threshold in result.thresholds.items()
        },
    }


def add_ossi_command(group: Any) -> None:
    """Add the command ``score ossi``."""
    does = "open-set identification: DIR at FAR, of one protocol or of all below a folder"
    example = (
        "voxblink2 score ossi --protocol data/ossi --embeddings embeddings.parquet --plot dir.png"
    )
    parser = add_command(group, "ossi", _ossi, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument(
        "--protocol",
        required=True,
        metavar="DIR",
        help="folder with the files gallery and probe, or above such folders",
    )
    add_embeddings_arguments(parser)
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
        "--method",
        choices=("exact", "voxblink2"),
        default="exact",
        help="exact, or the published script's grid of 1,000 thresholds; default: %(default)s",
    )
    parser.add_argument(
        "--device",
        help="PyTorch device; default: CUDA where it is, for --model and for large products",
    )
    add_plot_argument(parser, "DIR over FAR")
