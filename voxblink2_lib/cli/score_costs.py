"""Priors and costs of ``score``, by number or of a named evaluation, and what scores cost there."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.costs import EVALUATIONS, Costs

if TYPE_CHECKING:
    from voxblink2_lib.scoring.evaluation import VerificationReport

_DEFAULT_PRIOR = 0.01


def add_cost_arguments(parser: argparse.ArgumentParser) -> None:
    """Add priors, costs, and the names of evaluations that have their own."""
    parser.add_argument(
        "--p-target",
        type=float,
        nargs="+",
        metavar="P",
        help=f"priors of a target trial for minDCF and actDCF; default: {_DEFAULT_PRIOR}",
    )
    parser.add_argument("--c-miss", type=float, metavar="C", help="cost of a miss; default: 1")
    parser.add_argument(
        "--c-fa", type=float, metavar="C", help="cost of a false acceptance; default: 1"
    )
    parser.add_argument(
        "--preset",
        choices=tuple(EVALUATIONS),
        help="priors, costs and primary cost of an evaluation: VoxCeleb (0.01), NIST SRE21 (0.01 "
        "and 0.05), VoxSRC (0.05)",
    )


def settle_costs(options: argparse.Namespace) -> None:
    """Set ``p_target`` and ``costs`` of parsed options to what counts.

    Raises:
        ScoringError: a prior or a cost is out of range, or given beside an evaluation.
    """
    from voxblink2_lib.scoring.verification import exact_costs

    given = [name for name in ("p_target", "c_miss", "c_fa") if getattr(options, name) is not None]
    if options.preset:
        if given:
            raise ScoringError(
                f"--{given[0].replace('_', '-')} is part of --preset {options.preset}; give one of "
                "both."
            )
        evaluation = EVALUATIONS[options.preset]
        options.p_target, options.costs = list(evaluation.p_target), evaluation.costs
        return
    options.p_target = options.p_target or [_DEFAULT_PRIOR]
    given_costs = {name: getattr(options, name) for name in given if name != "p_target"}
    options.costs = Costs(**given_costs)
    for prior in options.p_target:
        exact_costs(prior, *options.costs)


def ratio_lines(report: VerificationReport) -> list[str]:
    """Return what scores cost that are taken as log-likelihood ratios."""
    rates = report.ratios
    lines = [
        f"actDCF    {cost.act_dcf:.4f}   p_target {prior:g}   threshold {cost.threshold:.4f}   "
        f"{rates.errors[prior].text}"
        for prior, cost in rates.act_dcf.items()
    ]
    bits = "above all numbers" if rates.cllr is None else f"{rates.cllr:.4f} bits"
    return [
        *lines,
        f"Cllr      {bits}",
        "actDCF and Cllr take scores as log-likelihood ratios; 'score calibrate' makes them such",
    ]


def primary_record(options: argparse.Namespace, report: VerificationReport) -> dict[str, Any]:
    """Return the primary cost of the evaluation that was named, for JSON; nothing without one."""
    if not options.preset:
        return {}
    evaluation = EVALUATIONS[options.preset]
    actual = [cost.act_dcf for cost in report.ratios.act_dcf.values()]
    least = [cost.min_dcf for cost in report.min_dcf.values()]
    return {
        "primary": {
            "evaluation": options.preset,
            "ranks_by": "actual" if evaluation.is_actual else "minimum",
            "actual": sum(actual) / len(actual),
            "minimum": sum(least) / len(least),
            "source": evaluation.source,
        }
    }


def primary_lines(options: argparse.Namespace, report: VerificationReport) -> list[str]:
    """Return the primary cost for people; nothing if no evaluation was named."""
    if not (record := primary_record(options, report).get("primary")):
        return []
    values = [f"{record[kind]:.4f} {kind}" for kind in ("actual", "minimum")]
    if record["ranks_by"] == "minimum":
        values.reverse()
    return [f"C_primary {values[0]} ({values[1]})   {options.preset}: {record['source']}"]
