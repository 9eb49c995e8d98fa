"""Error rates of scores that are taken as log-likelihood ratios: actual costs and Cllr."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.costs import EQUAL_COSTS, Costs
from voxblink2_lib.scoring.det import ErrorCounts, Sweep
from voxblink2_lib.scoring.verification import ActDcf, act_dcf, cllr


@dataclass(frozen=True)
class RatioRates:
    """What scores cost if they are natural log-likelihood ratios; other scores cost more.

    Attributes:
        act_dcf: the actual cost at each prior, and the threshold of Bayes' rule.
        errors: misses and false acceptances there.
        cllr: in bits; ``None`` if it is above the largest number.
    """

    act_dcf: dict[float, ActDcf]
    errors: dict[float, ErrorCounts]
    cllr: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the rates for JSON."""
        return {
            "act_dcf": [
                {
                    "p_target": prior,
                    "act_dcf": cost,
                    "threshold": threshold,
                    "errors": self.errors[prior]._asdict(),
                }
                for prior, (cost, threshold) in self.act_dcf.items()
            ],
            "cllr": self.cllr,
        }


def measure_ratios(
    sweep: Sweep, *, p_target: Sequence[float], costs: Costs = EQUAL_COSTS
) -> RatioRates:
    """Return actual costs at each prior, and Cllr.

    Args:
        sweep: sorted scores.
        p_target: priors of a target trial.
        costs: of both errors.

    Raises:
        ScoringError: an invalid prior or cost.
    """
    actual = {prior: act_dcf(sweep, p_target=prior, **costs._asdict()) for prior in p_target}
    errors = {prior: sweep.errors(cost.threshold) for prior, cost in actual.items()}
    try:
        bits = cllr(sweep)
    except ScoringError:  # scores that are no ratios may be of any size
        bits = None
    return RatioRates(actual, errors, bits)
