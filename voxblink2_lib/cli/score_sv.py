"""The command ``score sv``: speaker verification."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.score_cohort import (
    add_cohort_arguments,
    centred_if_asked,
    check_cohort_options,
    norm_arguments,
    read_cohort,
)
from voxblink2_lib.cli.score_conditions import (
    add_condition_argument,
    condition_lines,
    condition_record,
    condition_reports,
    read_condition_file,
)
from voxblink2_lib.cli.score_costs import (
    add_cost_arguments,
    primary_lines,
    primary_record,
    ratio_lines,
    settle_costs,
)
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
from voxblink2_lib.cli.score_rows import system_name, verification_table
from voxblink2_lib.cli.terminal import add_command, columns, write_message
from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import counted
from voxblink2_lib.published_results import PublishedResult, published_results

if TYPE_CHECKING:
    import numpy.typing as npt

    from voxblink2_lib.scoring.conditions import ConditionReport
    from voxblink2_lib.scoring.embeddings import Embeddings
    from voxblink2_lib.scoring.enrolment import EnrolmentMap
    from voxblink2_lib.scoring.evaluation import VerificationReport
    from voxblink2_lib.scoring.intervals import Interval
    from voxblink2_lib.scoring.trials import ScoredTrials, TrialList

_PUBLISHED_PRIOR = 0.01


def _sv(options: argparse.Namespace) -> ScoreResult:
    from voxblink2_lib.scoring.plots import plot_det

    _check(options)
    trials = _read_trials(options)
    if trials.labels is None:
        return _only_scores(options, trials)
    report, conditions, source = _evaluate(options, trials)
    if options.plot:
        points = {prior: cost.threshold for prior, cost in report.min_dcf.items()}
        plot_det(report.sweep, options.plot, min_dcf=points)  # type: ignore[arg-type]  # one prior each
    record = report.as_dict() | primary_record(options, report) | condition_record(conditions)
    lines = [
        *report_lines(report),
        *primary_lines(options, report),
        *_out_lines(options),
        *condition_lines(report, conditions),
    ]
    if options.model:
        published = published_results(_model_config(options.model))
        record |= {
            "embeddings": source,
            "published": {name: result._asdict() for name, result in published.items()},
        }
        lines += _published_lines(report, published)
    table = verification_table(system_name(options), report, conditions)
    return ScoreResult(record, lines, table, source if options.model else None)


def _check(options: argparse.Namespace) -> None:
    """Check all that can be checked before anything is read."""
    from voxblink2_lib.scoring.plots import check_plot_path
    from voxblink2_lib.scoring.score_files import check_scores_path

    settle_costs(options)
    check_cohort_options(options)
    if options.plot:
        check_plot_path(options.plot)
    if options.out:
        check_scores_path(options.out)
    if options.enrolment and not options.enrol:
        raise ScoringError("--enrolment goes with --enrol, which is missing.")
    check_sources(options)


def _read_trials(options: argparse.Namespace) -> TrialList:
    """Return the trials; without labels, there must be a file for their scores."""
    from voxblink2_lib.scoring.trial_lists import read_trials
    from voxblink2_lib.scoring.trials import check_labelled

    write_message(f"Reading {options.trials}")
    trials = read_trials(options.trials)
    needs_rates = options.plot or options.interval or options.condition or options.format
    if needs_rates or not options.out:
        check_labelled(trials, options.trials)
    return trials


def _evaluate(
    options: argparse.Namespace, trials: TrialList
) -> tuple[VerificationReport, list[ConditionReport], str]:
    """Return the report, those by condition, and where the embeddings were read from."""
    from voxblink2_lib.scoring.evaluation import evaluate_trials

    models = _read_models(options)
    speakers = trial_speakers(options, trials, models)
    conditions = read_condition_file(options, trials, models)
    embeddings, scoring = _scoring_arguments(options, trials, models)
    kept: list[ScoredTrials] = []

    def keep(scored: ScoredTrials) -> None:
        _write_scores(options, trials, scored)
        kept.append(scored)

    report = evaluate_trials(
        trials,
        embeddings,
        p_target=options.p_target,
        costs=options.costs,
        interval=options.interval,
        speakers=speakers,
        same_ids=options.same_ids,
        allow_overlap=options.allow_overlap,
        keep=keep,
        **scoring,
    )
    by_condition = condition_reports(options, trials, kept[0], conditions, speakers)
    return report, by_condition, embeddings.source


def _only_scores(options: argparse.Namespace, trials: TrialList) -> ScoreResult:
    """Write the scores of trials without labels; return what there is to say of them."""
    from voxblink2_lib.scoring.contamination import check_trials
    from voxblink2_lib.scoring.trial_scores import normalized_scores

    models = _read_models(options)
    embeddings, scoring = _scoring_arguments(options, trials, models)
    overlap = check_trials(
        trials,
        models=models,
        speakers=trial_speakers(options, trials, models),
        embeddings=embeddings,
        cohort=scoring["cohort"],
        same_ids=options.same_ids,
        allow_overlap=options.allow_overlap,
    )
    scored, normalization = normalized_scores(trials, embeddings, **scoring)
    _write_scores(options, trials, scored)
    record = {
        "trials": len(trials.enrolment),
        "scored": len(scored.scores),
        "missing": scored.missing,
        "normalization": normalization,
        "overlap": overlap.as_dict(),
    }
    lines = [
        f"Trials    {len(scored.scores):,} of {len(trials.enrolment):,} scored, without labels",
        *missing_lines(scored.missing),
        *([f"Scores    {normalization}"] if normalization else []),
        *overlap_lines(overlap),
        *_out_lines(options),
    ]
    return ScoreResult(record, lines, embeddings=embeddings.source if options.model else None)


def _read_models(options: argparse.Namespace) -> EnrolmentMap | None:
    from voxblink2_lib.scoring.enrolment import read_enrolment

    if not options.enrol:
        return None
    write_message(f"Reading {options.enrol}")
    return read_enrolment(options.enrol)


def trial_speakers(
    options: argparse.Namespace, trials: TrialList, models: EnrolmentMap | None = None
) -> npt.NDArray[Any] | None:
    """Return the speaker of each name of a list, if intervals need them or a file has them."""
    from voxblink2_lib.scoring.enrolment import read_speakers, speakers_of_names

    if options.interval != "speakers" and not options.utt2spk:
        return None
    speakers = read_speakers(options.utt2spk) if options.utt2spk else None
    return speakers_of_names(trials, speakers=speakers, models=models, source=options.utt2spk or "")


def _scoring_arguments(
    options: argparse.Namespace, trials: TrialList, models: EnrolmentMap | None
) -> tuple[Embeddings, dict[str, Any]]:
    """Return the embeddings, and how trials are scored by them."""
    from voxblink2_lib.progress import show_progress

    utterances = chain.from_iterable(models.utterances.values()) if models else ()
    embeddings = embeddings_of(options, [*trials.names, *utterances], options.corpus)
    cohort = read_cohort(options) if options.cohort else None
    embeddings, cohort = centred_if_asked(options, embeddings, cohort)
    write_message(f"Scoring {counted(len(trials.enrolment), 'trial')}")
    return embeddings, {
        "missing": options.missing,
        "models": models,
        "enrolment": options.enrolment or "mean",
        **norm_arguments(options, cohort),
        "progress": show_progress,
    }


def _write_scores(options: argparse.Namespace, trials: TrialList, scored: ScoredTrials) -> None:
    from voxblink2_lib.scoring.score_files import write_scores

    if options.out:
        write_scores(options.out, trials, scored)


def _out_lines(options: argparse.Namespace) -> list[str]:
    return [f"Scores in {options.out}"] if options.out else []


def _model_config(model: str) -> dict[str, Any]:
    from voxblink2_lib.embedding.back_ends import back_end_of
    from voxblink2_lib.embedding.model_location import find_model

    return back_end_of(find_model(model)).configuration()


# -- Text ------------------------------------------------------------------------------------------


def report_lines(report: VerificationReport) -> list[str]:
    """Return the report as lines for people."""
    from voxblink2_lib.scoring.det import FEWEST_ERRORS
    from voxblink2_lib.scoring.intervals import other_marks

    intervals = report.intervals
    eer_range = _range(intervals.eer, 100, 3) if intervals else ""
    lines = [
        f"Trials    {report.scored:,} of {report.trials:,} scored: {report.targets:,} target, "
        f"{report.scored - report.targets:,} non-target",
        *missing_lines(report.missing),
        *([f"Scores    {report.normalization}"] if report.normalization else []),
        *overlap_lines(report.overlap),
        f"EER       {100 * report.eer.eer:.3f} %{eer_range}   "
        f"threshold {report.eer.threshold:.4f}   {report.errors.text}",
        f"EER hull  {100 * report.hull_eer:.3f} %",
    ]
    for index, (prior, cost) in enumerate(report.min_dcf.items()):
        # The intervals are those of the first prior.
        dcf_range = _range(intervals.min_dcf, 1, 4) if intervals and index == 0 else ""
        lines.append(
            f"minDCF    {cost.min_dcf:.4f}{dcf_range}   p_target {prior:g}   "
            f"threshold {cost.threshold:.4f}   {report.min_dcf_errors[prior].text}"
        )
    if len(report.min_dcf) > 1:
        mean = sum(cost.min_dcf for cost in report.min_dcf.values()) / len(report.min_dcf)
        lines.append(f"          {mean:.4f}   mean")
    lines += [f"min Cllr  {report.min_cllr:.4f} bits", *ratio_lines(report)]
    if intervals:
        lines.append(
            f"In brackets: {100 * intervals.confidence:g} % intervals, {intervals.resamples:,} "
            f"resamples of {intervals.over}"
        )
        if marks := other_marks([intervals.eer, intervals.min_dcf]):
            lines.append(f"Intervals may not hold: {', '.join(marks)}")
    all_errors = report.errors, *report.min_dcf_errors.values(), *report.ratios.errors.values()
    if any(errors.few for errors in all_errors):
        lines.append(
            f"* fewer than {FEWEST_ERRORS} errors of a kind: too few to rely on the rate or its "
            "interval"
        )
    return lines


def _range(interval: Interval, factor: float, digits: int) -> str:
    return f" [{factor * interval.low:.{digits}f}, {factor * interval.high:.{digits}f}]"


def _published_lines(
    report: VerificationReport, published: Mapping[str, PublishedResult]
) -> list[str]:
    """Return ours and the published results as a table; nothing for a model that has none."""
    if not published:
        return []
    ours = report.min_dcf.get(_PUBLISHED_PRIOR)
    table = [
        ["", "EER", f"minDCF (p_target {_PUBLISHED_PRIOR:g})"],
        ["here", f"{100 * report.eer.eer:.3f} %", _dcf(ours.min_dcf if ours else None)],
    ]
    table += [
        [f"published, {name}", f"{result.eer_percent:.3f} %", _dcf(result.min_dcf)]
        for name, result in published.items()
    ]
    return ["", *columns(table)]


def _dcf(min_dcf: float | None) -> str:
    return "-" if min_dcf is None else f"{min_dcf:.3f}"


# -- Arguments -------------------------------------------------------------------------------------


def add_sv_command(group: Any) -> None:
    """Add the command ``score sv``."""
    does = "score trials by cosine: EER, minDCF, actDCF, Cllr"
    example = (
        "voxblink2 score sv --model resnet34 --wav-scp data/test_vox/wav.scp \\\n"
        "      --trials data/test_vox/trials --interval speakers --plot det.png"
    )
    parser = add_command(group, "sv", run_score, does, example)
    parser.set_defaults(score=_sv, keeps_work=False)
    parser.add_argument(
        "--trials",
        required=True,
        metavar="FILE",
        help="lines '1 enrol test', 'enrol test target|nontarget', CSV, SRE keys and others, with "
        "--out also without labels; or the release",
    )
    parser.add_argument(
        "--enrol",
        metavar="MAP",
        help="utterances of each model, if the enrolment side of trials are models: lines 'model "
        "utterance ...', or columns modelid and segmentid",
    )
    parser.add_argument(
        "--enrolment",
        choices=("mean", "normalized-mean", "mean-of-scores", "max"),
        help="how the utterances of a model count; default: the mean of their embeddings",
    )
    add_embeddings_arguments(parser)
    add_rate_arguments(parser)
    add_cohort_arguments(parser)
    parser.add_argument("--device", help="PyTorch device of --model; default: cuda if available")
    parser.add_argument(
        "--out",
        metavar="SCORES",
        help="write the scores: .txt (enrol test score label), .csv, .tsv or .parquet; and beside "
        "them the result, for 'score verify'",
    )


def add_rate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is computed from scores."""
    add_cost_arguments(parser)
    parser.add_argument(
        "--interval",
        choices=("trials", "speakers"),
        help="95%% confidence intervals from 1,000 resamples of these",
    )
    parser.add_argument(
        "--utt2spk", metavar="FILE", help="speaker of each utterance, for intervals and cohorts"
    )
    add_overlap_argument(parser)
    add_condition_argument(parser)
    add_plot_argument(parser, "DET curve")
    add_format_argument(parser)
