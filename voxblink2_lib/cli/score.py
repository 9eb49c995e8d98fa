"""The commands that score embeddings: ``score sv`` and ``score ossi``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.embeddings import (
    add_embeddings_arguments,
    check_sources,
    embeddings_of,
    read_file,
)
from voxblink2_lib.cli.terminal import DONE, EXIT_CODES, add_command, columns, say, show
from voxblink2_lib.errors import ScoringError
from voxblink2_lib.published import Result, published_results

if TYPE_CHECKING:
    from voxblink2_lib.scoring.evaluation import OpenSetReport, VerificationReport
    from voxblink2_lib.scoring.intervals import Interval

_PUBLISHED_PRIOR = 0.01

# -- verification -----------------------------------------------------------------------------


def _sv(options: argparse.Namespace) -> int:
    from voxblink2_lib.progress import counting
    from voxblink2_lib.scoring.evaluation import evaluate_trials
    from voxblink2_lib.scoring.inputs import check_prior
    from voxblink2_lib.scoring.plots import check_plot_path, plot_det
    from voxblink2_lib.scoring.trials import read_trials

    # Whatever can be wrong without reading anything.
    for prior in options.p_target:
        check_prior(prior)
    if options.top_n < 2:
        raise ScoringError(f"--top-n must be at least 2, got {options.top_n}.")
    if options.cohort_names and not options.cohort:
        raise ScoringError("--cohort-names tells how to read --cohort, which is missing.")
    if options.plot:
        check_plot_path(options.plot)
    check_sources(options)
    say(f"Reading {options.trials}")
    trials = read_trials(options.trials)
    embeddings = embeddings_of(options, trials.names)
    cohort = None
    if options.cohort:
        cohort = read_file(options.cohort, options.cohort_names)
    top_n = min(options.top_n, len(cohort.names)) if cohort else options.top_n
    say(f"Scoring {len(trials.labels):,} trials")
    report = evaluate_trials(
        trials,
        embeddings,
        missing=options.missing,
        p_target=options.p_target,
        cohort=cohort,
        top_n=top_n,
        interval=options.interval,
        watch=counting,
    )
    if options.plot:
        points = {prior: found.threshold for prior, found in report.min_dcf.items()}
        plot_det(report.sweep, options.plot, min_dcf=points)  # type: ignore[arg-type]  # one prior each
    normalized = f"AS-norm, {top_n:,} nearest of {len(cohort.names):,}" if cohort else None
    record, lines = _sv_record(report, normalized), _sv_lines(report, normalized)
    if options.model:
        published = published_results(_config(options.model))
        record |= {
            "embeddings": embeddings.source,
            "published": {name: one._asdict() for name, one in published.items()},
        }
        lines += _published_lines(report, published)
    show(options, record, lines)
    return DONE


def _config(model: str) -> dict[str, Any]:
    from voxblink2_lib.embedding.hub import find_model

    config: dict[str, Any] = json.loads((find_model(model) / "config.json").read_text("utf-8"))
    return config


def _published_lines(report: VerificationReport, published: Mapping[str, Result]) -> list[str]:
    """Return the published results beside ours; nothing for a model that has none."""
    if not published:
        return []
    ours = report.min_dcf.get(_PUBLISHED_PRIOR)
    table = [
        ["", "EER", f"minDCF (p_target {_PUBLISHED_PRIOR:g})"],
        ["here", f"{100 * report.eer.eer:.3f} %", "-" if ours is None else f"{ours.min_dcf:.3f}"],
    ]
    table += [
        [f"published, Vox1-O: {name}", f"{one.eer_percent:.3f} %", f"{one.min_dcf:.3f}"]
        for name, one in published.items()
    ]
    return ["", *columns(table)]


def _sv_lines(report: VerificationReport, normalized: str | None) -> list[str]:
    intervals = report.intervals
    eer_between = _between(intervals.eer if intervals else None, 100)
    lines = [
        f"Trials    {report.scored:,} of {report.trials:,} scored: {report.targets:,} target, "
        f"{report.scored - report.targets:,} non-target",
        *_missing_lines(report.missing),
        *([f"Scores    {normalized}"] if normalized else []),
        f"EER       {100 * report.eer.eer:.3f} %{eer_between}"
        f"   threshold {report.eer.threshold:.4f}",
        f"EER hull  {100 * report.hull_eer:.3f} %",
    ]
    for row, (prior, found) in enumerate(report.min_dcf.items()):
        between = _between(intervals.min_dcf if intervals and row == 0 else None, 1)
        lines.append(
            f"minDCF    {found.min_dcf:.4f}{between}   p_target {prior:g}   "
            f"threshold {found.threshold:.4f}"
        )
    if len(report.min_dcf) > 1:
        mean = sum(found.min_dcf for found in report.min_dcf.values()) / len(report.min_dcf)
        lines.append(f"          {mean:.4f}   mean")
    lines.append(f"min Cllr  {report.min_cllr:.4f} bits")
    if intervals:
        lines.append(
            f"In brackets: {100 * intervals.confidence:g} % intervals, {intervals.resamples:,} "
            f"resamples of {intervals.over}"
        )
    return lines


def _between(interval: Interval | None, factor: float) -> str:
    if interval is None:
        return ""
    digits = 3 if factor == 100 else 4
    return f" [{factor * interval.low:.{digits}f}, {factor * interval.high:.{digits}f}]"


def _sv_record(report: VerificationReport, normalized: str | None) -> dict[str, Any]:
    intervals = report.intervals
    return {
        "trials": report.trials,
        "scored": report.scored,
        "targets": report.targets,
        "missing": report.missing,
        "normalization": normalized,
        "eer": report.eer.eer,
        "eer_threshold": report.eer.threshold,
        "eer_hull": report.hull_eer,
        "min_dcf": [
            # JSON has no infinity: nothing is accepted.
            {
                "p_target": prior,
                "min_dcf": found.min_dcf,
                "threshold": None if found.threshold == float("inf") else found.threshold,
            }
            for prior, found in report.min_dcf.items()
        ],
        "min_cllr": report.min_cllr,
        "intervals": intervals
        and {
            "over": intervals.over,
            "confidence": intervals.confidence,
            "resamples": intervals.resamples,
            "eer": [intervals.eer.low, intervals.eer.high],
            "min_dcf": [intervals.min_dcf.low, intervals.min_dcf.high],
        },
    }


# -- open-set identification ------------------------------------------------------------------


def _ossi(options: argparse.Namespace) -> int:
    from voxblink2_lib.progress import counting
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
        say(
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
                watch=counting,
            )
        )
    if options.plot:
        plot_dir({report.protocol: report.result for report in reports}, options.plot)
    show(options, {"protocols": [_ossi_record(one) for one in reports]}, _ossi_lines(reports))
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
    lines += _missing_lines(missing)
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


# -- shared -----------------------------------------------------------------------------------


def _missing_lines(missing: Sequence[str]) -> list[str]:
    if not missing:
        return []
    return [f"Missing   {len(missing):,} utterances have no embedding, such as {missing[0]}"]


# -- arguments --------------------------------------------------------------------------------


def add_score_commands(commands: Any) -> None:
    """Add the group ``score`` with its commands."""
    does = "score embeddings: verification (sv), open-set identification (ossi)"
    parser = commands.add_parser(
        "score",
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog="example:\n  voxblink2 score sv --trials vox1_o.txt --embeddings embeddings.parquet"
        f"\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _sv_arguments(group)
    _ossi_arguments(group)


def _sv_arguments(group: Any) -> None:
    does = "score trials by cosine: EER, minDCF, min Cllr"
    example = (
        "voxblink2 score sv --model resnet34 --wav-scp data/test_vox/wav.scp \\\n"
        "      --trials data/test_vox/trials --interval speakers --plot det.png"
    )
    parser = add_command(group, "sv", _sv, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument(
        "--trials",
        required=True,
        metavar="FILE",
        help="lines '1 enrol test', 'enrol test target|nontarget', or CSV",
    )
    add_embeddings_arguments(parser)
    parser.add_argument(
        "--p-target",
        type=float,
        nargs="+",
        default=[0.01],
        metavar="P",
        help="priors of a target trial for minDCF; default: 0.01",
    )
    parser.add_argument(
        "--cohort", metavar="FILE", help="embeddings of other speakers: normalise scores (AS-norm)"
    )
    parser.add_argument("--cohort-names", metavar="FILE", help="as --names, for a cohort in .npy")
    parser.add_argument(
        "--top-n",
        type=int,
        default=300,
        metavar="N",
        help="nearest members of the cohort that count; default: %(default)s, or all if fewer",
    )
    parser.add_argument("--device", help="PyTorch device of --model; default: cuda where it is")
    parser.add_argument(
        "--interval",
        choices=("trials", "speakers"),
        help="95%% confidence intervals from 1,000 resamples of these",
    )
    _plot_argument(parser, "DET curve")


def _ossi_arguments(group: Any) -> None:
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
    _plot_argument(parser, "DIR over FAR")


def _plot_argument(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--plot", metavar="FILE", help=f"draw {what}: .png, .pdf or .svg")
