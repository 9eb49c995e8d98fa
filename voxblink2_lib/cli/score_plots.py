"""The commands ``score det`` and ``score bayes``: pictures of several systems."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxblink2_lib.cli.score_costs import add_cost_arguments, settle_costs
from voxblink2_lib.cli.score_systems import FORMS, add_key_argument, read_files, read_systems
from voxblink2_lib.cli.terminal import DONE, add_command, write_result
from voxblink2_lib.errors import ScoringError

if TYPE_CHECKING:
    from voxblink2_lib.scoring.det import Sweep


def _det(options: argparse.Namespace) -> int:
    from voxblink2_lib.scoring.plots import plot_systems

    settle_costs(options)

    def plot(sweeps: dict[str, Sweep]) -> None:
        plot_systems(sweeps, options.out, p_target=options.p_target, costs=options.costs)

    return _plot(options, plot)


def _bayes(options: argparse.Namespace) -> int:
    from voxblink2_lib.scoring.plots import plot_bayes_errors
    from voxblink2_lib.scoring.validation import check_prior

    for prior in options.p_target:
        check_prior(prior)
    return _plot(
        options, lambda sweeps: plot_bayes_errors(sweeps, options.out, p_target=options.p_target)
    )


def _plot(options: argparse.Namespace, plot: Callable[[dict[str, Sweep]], None]) -> int:
    from voxblink2_lib.scoring.plots import check_plot_path

    check_plot_path(options.out)
    sweeps = dict(zip(_names(options), _sweeps(options), strict=True))
    plot(sweeps)
    systems = [
        {"scores": path, "label": name, "targets": len(sweep.target), "eer": sweep.crossing().rate}
        for path, (name, sweep) in zip(options.scores, sweeps.items(), strict=True)
    ]
    lines = [f"EER       {100 * system['eer']:.3f} %   {system['label']}" for system in systems]
    write_result(
        options, {"out": options.out, "systems": systems}, [*lines, f"Plot in {options.out}"]
    )
    return DONE


def _names(options: argparse.Namespace) -> list[str]:
    """Return a different name for each system.

    Raises:
        ScoringError: there are more or fewer, or one is given twice.
    """
    names = options.labels or [Path(path).stem for path in options.scores]
    if not options.labels and len(set(names)) < len(names):
        names = options.scores
    if len(names) != len(options.scores) or len(set(names)) < len(names):
        raise ScoringError(
            f"{len(options.scores)} files of scores need as many different names; name them with "
            f"--labels. Got {', '.join(names)}."
        )
    return list(names)


def _sweeps(options: argparse.Namespace) -> list[Sweep]:
    """Return the scores of each system, of one list or each of its own trials."""
    from voxblink2_lib.scoring.det import Sweep
    from voxblink2_lib.scoring.trials import check_labelled

    if options.trials:
        systems = read_systems(options)
        return [Sweep.of(scores, systems.trials.labels) for scores in systems.scores]
    files = read_files(options)
    for file in files:
        check_labelled(file.trials, file.source)
    return [Sweep.of(file.scores, file.trials.labels) for file in files]


def add_plot_commands(group: Any) -> None:
    """Add the commands ``score det`` and ``score bayes``."""
    does = "draw the DET curves of several systems on one picture"
    example = (
        "voxblink2 score det a.txt b.txt --trials vox1_o.txt --labels ECAPA ResNet --out det.png"
    )
    parser = add_command(group, "det", _det, does, example)
    _add_arguments(parser)
    add_cost_arguments(parser)
    does = "draw actual and minimum cost over priors (Bayes error rates), of log-likelihood ratios"
    example = "voxblink2 score bayes llr.txt --p-target 0.01 --out bayes.png"
    parser = add_command(group, "bayes", _bayes, does, example)
    _add_arguments(parser)
    parser.add_argument(
        "--p-target",
        type=float,
        nargs="+",
        default=[],
        metavar="P",
        help="priors whose costs are marked; default: none",
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(keeps_work=False)
    parser.add_argument("scores", nargs="+", metavar="SCORES", help=f"of each system: {FORMS}")
    add_key_argument(parser)
    parser.add_argument(
        "--labels", nargs="+", metavar="NAME", help="names of the systems; default: of their files"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="picture: .png, .pdf or .svg")
