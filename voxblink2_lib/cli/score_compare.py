"""The command ``score compare``: two systems on the same trials and resamples."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.score_costs import add_cost_arguments, settle_costs
from voxblink2_lib.cli.score_inputs import add_overlap_argument, overlap_lines
from voxblink2_lib.cli.score_sv import trial_speakers
from voxblink2_lib.cli.score_systems import FORMS, add_key_argument, other_lines, read_systems
from voxblink2_lib.cli.terminal import DONE, add_command, columns, write_result

if TYPE_CHECKING:
    from voxblink2_lib.scoring.paired import Comparison, PairedDifference
    from voxblink2_lib.scoring.same_trials import ScoredSystems


# No smaller probability can be told from 1,000 resamples.
_RESAMPLES, _LEAST = 1000, 0.001


def _compare(options: argparse.Namespace) -> int:
    from voxblink2_lib.scoring.contamination import check_trials

    settle_costs(options)
    options.scores = [options.first, options.second]
    systems = read_systems(options)
    overlap = check_trials(systems.trials, allow_overlap=options.allow_overlap)
    comparison = _compared(options, systems)
    targets = int(systems.trials.labels.sum())  # type: ignore[union-attr]  # read_systems checks
    count = len(systems.trials.enrolment)
    record = {
        "trials": count,
        "targets": targets,
        "systems": options.scores,
        **options.costs._asdict(),
        **comparison.as_dict(),
        "other_scores": systems.others,
        "overlap": overlap.as_dict(),
    }
    lines = [
        f"Trials    {count:,}: {targets:,} target, {count - targets:,} non-target",
        *other_lines(options, systems),
        *overlap_lines(overlap),
        *_comparison_lines(options, comparison),
    ]
    write_result(options, record, lines)
    return DONE


def _compared(options: argparse.Namespace, systems: ScoredSystems) -> Comparison:
    from voxblink2_lib.progress import show_progress
    from voxblink2_lib.scoring.paired import compare_systems

    trials, sides = systems.trials, None
    speakers = trial_speakers(options, trials)
    if options.interval == "speakers" and speakers is not None:
        sides = speakers[trials.enrolment], speakers[trials.test]
    total = 2 * _RESAMPLES * len(options.p_target)
    with show_progress("Resampling", unit="resample", total=total) as advance:
        first, second = systems.scores
        return compare_systems(
            first,
            second,
            trials.labels,
            speakers=sides,
            p_target=options.p_target,
            costs=options.costs,
            resamples=_RESAMPLES,
            progress=advance,
        )


def _comparison_lines(options: argparse.Namespace, comparison: Comparison) -> list[str]:
    percent = f"{100 * comparison.confidence:g} % interval"
    table = [
        ["", "A", "B", "B - A", percent, "B better"],
        _row("EER (%)", comparison.eer, 100, 3),
        *(
            _row(f"minDCF({prior:g})", difference, 1, 4)
            for prior, difference in comparison.min_dcf.items()
        ),
    ]
    lines = [
        f"A         {options.first}",
        f"B         {options.second}",
        "",
        *columns(table),
        f"Intervals, and the probability that B is better: by {comparison.resamples:,} resamples "
        f"of {comparison.over}",
    ]
    marks = [each.mark for each in (comparison.eer, *comparison.min_dcf.values()) if each.mark]
    if marks:
        lines.append(f"* these may not hold: {', '.join(dict.fromkeys(marks))}")
    return lines


def _row(name: str, difference: PairedDifference, factor: float, digits: int) -> list[str]:
    def text(value: float) -> str:
        return f"{factor * value:.{digits}f}"

    return [
        name,
        text(difference.first),
        text(difference.second),
        text(difference.difference),
        f"[{text(difference.low)}, {text(difference.high)}]" + " *" * bool(difference.mark),
        _probability(difference.second_better),
    ]


def _probability(share: float) -> str:
    if share < _LEAST:
        return f"< {100 * _LEAST:g} %"
    return f"{100 * share:.1f} %" if share <= 1 - _LEAST else f"> {100 * (1 - _LEAST):g} %"


def add_compare_command(group: Any) -> None:
    """Add the command ``score compare``."""
    does = "compare two systems on the same trials: how their rates differ, and how sure that is"
    example = "voxblink2 score compare a.txt b.txt --trials vox1_o.txt"
    parser = add_command(group, "compare", _compare, does, example)
    parser.set_defaults(keeps_work=False)
    parser.add_argument("first", metavar="A", help=f"scores: {FORMS}")
    parser.add_argument("second", metavar="B", help="scores of the other system")
    add_key_argument(parser)
    add_cost_arguments(parser)
    parser.add_argument(
        "--interval",
        choices=("speakers", "trials"),
        default="speakers",
        help="what is resampled, 1,000 times; default: %(default)s",
    )
    parser.add_argument("--utt2spk", metavar="FILE", help="speaker of each utterance")
    add_overlap_argument(parser)
