"""The command ``score sv``: speaker verification."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.score_inputs import (
    add_embeddings_arguments,
    check_sources,
    embeddings_of,
    read_file,
)
from voxblink2_lib.cli.terminal import DONE, add_command, columns, write_message, write_result
from voxblink2_lib.errors import ScoringError
from voxblink2_lib.published_results import PublishedResult, published_results

if TYPE_CHECKING:
    from voxblink2_lib.scoring.evaluation import VerificationReport
    from voxblink2_lib.scoring.intervals import Interval
from voxblink2_lib.cli.score_inputs import add_plot_argument, missing_lines

_PUBLISHED_PRIOR = 0.01


# -- verification -----------------------------------------------------------------------------


def _sv(options: argparse.Namespace) -> int:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.scoring.evaluation import evaluate_trials
    from voxblink2_lib.scoring.plots import check_plot_path, plot_det
    from voxblink2_lib.scoring.trials import read_trials
    from voxblink2_lib.scoring.validation import check_prior

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
    write_message(f"Reading {options.trials}")
    trials = read_trials(options.trials)
    embeddings = embeddings_of(options, trials.names)
    cohort = None
    if options.cohort:
        cohort = read_file(options.cohort, options.cohort_names)
    top_n = min(options.top_n, len(cohort.names)) if cohort else options.top_n
    write_message(f"Scoring {len(trials.labels):,} trials")
    report = evaluate_trials(
        trials,
        embeddings,
        missing=options.missing,
        p_target=options.p_target,
        cohort=cohort,
        top_n=top_n,
        interval=options.interval,
        progress=show_progress,
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
    write_result(options, record, lines)
    return DONE


def _config(model: str) -> dict[str, Any]:
    from voxblink2_lib.embedding.model_location import find_model

    config: dict[str, Any] = json.loads((find_model(model) / "config.json").read_text("utf-8"))
    return config


def _published_lines(
    report: VerificationReport, published: Mapping[str, PublishedResult]
) -> list[str]:
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
        *missing_lines(report.missing),
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


def add_sv_command(group: Any) -> None:
    """Add the command ``score sv``."""
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
    add_plot_argument(parser, "DET curve")
