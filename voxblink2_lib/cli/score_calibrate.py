"""The commands ``score calibrate fit`` and ``apply``: from scores to log-likelihood ratios."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.score_inputs import add_overlap_argument, overlap_lines
from voxblink2_lib.cli.score_systems import (
    FORMS,
    add_key_argument,
    other_lines,
    read_systems,
)
from voxblink2_lib.cli.terminal import DONE, add_command, add_group, write_message, write_result
from voxblink2_lib.errors import ScoringError

if TYPE_CHECKING:
    from voxblink2_lib.scoring.same_trials import ScoredSystems
    from voxblink2_lib.scoring.score_calibration import ScoreCalibration
    from voxblink2_lib.scoring.trials import TrialList
    from voxblink2_lib.scoring.validation import Floats

_PRIOR = 0.5

_NEGATIVE = "   negative: the higher a score, the less likely the same speaker"


# -- Fit -------------------------------------------------------------------------------------------


def _fit(options: argparse.Namespace) -> int:
    from voxblink2_lib.scoring.contamination import check_trials
    from voxblink2_lib.scoring.score_files import check_place
    from voxblink2_lib.scoring.validation import check_prior

    check_prior(options.p_target)
    if options.log and not options.quality:
        raise ScoringError("--log goes with --quality, which is missing.")
    check_place(options.out)
    systems = read_systems(options)
    overlap = check_trials(systems.trials, allow_overlap=options.allow_overlap)
    calibration = _fitted(options, systems)
    calibration.save(options.out)
    record = calibration.as_dict() | {
        "other_scores": systems.others,
        "overlap": overlap.as_dict(),
        "out": options.out,
    }
    lines = [
        f"Trials    {calibration.trials:,}: {calibration.targets:,} target, "
        f"{calibration.trials - calibration.targets:,} non-target",
        *other_lines(options, systems),
        *overlap_lines(overlap),
        *_weight_lines(calibration),
        f"Calibration in {options.out}, for a prior of {calibration.p_target:g}",
    ]
    write_result(options, record, lines)
    return DONE


def _fitted(options: argparse.Namespace, systems: ScoredSystems) -> ScoreCalibration:
    from voxblink2_lib.files import sha256_of
    from voxblink2_lib.scoring.score_calibration import FitInputs, fit_score_calibration

    path, *columns = options.quality or [None]
    quality = _read_quality(path, systems.trials, columns, options.log)
    others = {"trials": options.trials, "quality": path}
    inputs = FitInputs(
        paths=options.scores,
        digests=[sha256_of(Path(each)) for each in options.scores],
        scores=systems.scores,
        trials=systems.trials,
        quality=quality,
        quality_columns=columns,
        is_log=options.log,
        sources={what: sha256_of(Path(file)) for what, file in others.items() if file},
    )
    return fit_score_calibration(inputs, p_target=options.p_target, ridge=options.ridge)


def _read_quality(
    path: str | None, trials: TrialList, columns: list[str], is_log: bool
) -> dict[str, Floats]:
    from voxblink2_lib.scoring.quality_files import read_quality

    if path is None:
        return {}
    write_message(f"Reading {path}")
    return read_quality(path, trials, columns=columns, is_log=is_log)


def _weight_lines(calibration: ScoreCalibration, paths: list[str] | None = None) -> list[str]:
    """Return the factors, beside the files that they are of, and are applied to."""
    names = [system.scores for system in calibration.systems]
    if paths:
        names = [f"{path}, as {name} in the fit" for path, name in zip(paths, names, strict=True)]
    is_alone = len(names) == 1
    lines = [
        f"Weight    {system.weight:.6g}   {name}{_NEGATIVE * (is_alone and system.weight < 0)}"
        for system, name in zip(calibration.systems, names, strict=True)
    ]
    lines += [f"Weight    {weight:.6g}   {name}" for name, weight in calibration.quality.items()]
    return [*lines, f"Offset    {calibration.offset:.6g}"]


# -- Apply -----------------------------------------------------------------------------------------


def _apply(options: argparse.Namespace) -> int:
    from voxblink2_lib.scoring.score_calibration import ScoreCalibration
    from voxblink2_lib.scoring.score_files import check_scores_path

    check_scores_path(options.out)
    calibration = ScoreCalibration.load(options.calibration)
    calibration.check_systems(len(options.scores))
    if calibration.quality and not options.quality:
        raise ScoringError(
            f"{options.calibration} was fitted with {calibration.quality_text}; name a file of "
            "them: --quality FILE."
        )
    systems = read_systems(options, is_labelled=False)
    overlap = _overlap(options, calibration, systems.trials)
    columns = list(calibration.quality_columns)
    path = options.quality if calibration.quality else None
    quality = _read_quality(path, systems.trials, columns, calibration.is_log)
    _write(options.out, systems, calibration.ratios(systems.scores, quality))
    record = {
        "trials": len(systems.trials.enrolment),
        "other_scores": systems.others,
        "overlap": {"fitted_on": overlap is not None},
        "calibration": calibration.as_dict(),
        "out": options.out,
    }
    lines = [
        f"Trials    {record['trials']:,}",
        *other_lines(options, systems),
        *([f"Overlap   {overlap}"] if overlap else []),
        *_weight_lines(calibration, options.scores),
        f"Log-likelihood ratios in {options.out}",
    ]
    write_result(options, record, lines)
    return DONE


def _overlap(
    options: argparse.Namespace, calibration: ScoreCalibration, trials: TrialList
) -> str | None:
    """Return what is of the data that the calibration was fitted on, if that is allowed.

    Raises:
        ScoringError: something is, and it is not allowed.
    """
    from voxblink2_lib.files import sha256_of

    digests = [sha256_of(Path(path)) for path in options.scores]
    shared = calibration.fitted_on(digests, trials)
    if shared and not options.allow_overlap:
        raise ScoringError(
            f"{options.calibration}: {shared}. Rates of such scores are better than those of new "
            "trials. Fit on others; or go on, and have it in the output: --allow-overlap."
        )
    return shared


def _write(path: str, systems: ScoredSystems, ratios: Floats) -> None:
    import numpy as np

    from voxblink2_lib.scoring.score_files import write_scores
    from voxblink2_lib.scoring.trials import ScoredTrials

    trials, rows = systems.trials, np.arange(len(ratios))
    scored = ScoredTrials(ratios, rows, trials.enrolment, trials.test, trials.labels, [])
    write_scores(path, trials, scored)


# -- Arguments -------------------------------------------------------------------------------------


def add_calibrate_commands(group: Any) -> None:
    """Add the group ``score calibrate`` with its commands."""
    does = "turn scores into log-likelihood ratios, also of several systems together"
    fit_example = "voxblink2 score calibrate fit dev.txt --quality utt2dur --log --out cal.json"
    commands = add_group(group, "calibrate", does, fit_example)
    _add_fit(commands, fit_example)
    _add_apply(commands)


def _add_fit(commands: Any, example: str) -> None:
    does = "fit a calibration on labelled scores; of several systems, a fusion"
    parser = add_command(commands, "fit", _fit, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument("scores", nargs="+", metavar="SCORES", help=f"of each system: {FORMS}")
    add_key_argument(parser)
    parser.add_argument(
        "--out", required=True, metavar="CALIBRATION", help="the JSON file to write"
    )
    parser.add_argument(
        "--p-target",
        type=float,
        default=_PRIOR,
        metavar="P",
        help="prior for which the ratios are best; default: %(default)s, where that is the Cllr",
    )
    parser.add_argument(
        "--quality",
        nargs="+",
        metavar=("FILE", "COLUMN"),
        help="measures such as durations: lines 'utterance number' or 'enrol test number', or "
        "columns below a header, of which all or some are measures",
    )
    parser.add_argument("--log", action="store_true", help="take logarithms of these measures")
    parser.add_argument(
        "--ridge",
        type=float,
        default=0.0,
        metavar="WEIGHT",
        help="hold weights down, where scores separate the trials perfectly; default: 0",
    )
    add_overlap_argument(parser)


def _add_apply(commands: Any) -> None:
    does = "write other scores as log-likelihood ratios, with labels or without"
    example = "voxblink2 score calibrate apply cal.json eval.txt --quality utt2dur --out llr.txt"
    parser = add_command(commands, "apply", _apply, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument("calibration", metavar="CALIBRATION", help="what 'fit' wrote")
    parser.add_argument(
        "scores",
        nargs="+",
        metavar="SCORES",
        help=f"of each system, in the order of 'fit': {FORMS}",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="SCORES",
        help="what to write: .txt, .csv, .tsv or .parquet",
    )
    parser.add_argument(
        "--trials", metavar="LIST", help="only these trials; default: all that have scores"
    )
    parser.add_argument("--quality", metavar="FILE", help="measures of these trials, as in 'fit'")
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="go on with trials that the calibration was fitted on, and have it in the output",
    )
