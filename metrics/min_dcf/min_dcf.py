"""Minimum detection cost of verification scores, as a metric of ``evaluate``."""

from typing import Any

import evaluate

from voxblink2_lib.scoring.evaluate_metric import SCORES_AND_LABELS, ArrayMetric
from voxblink2_lib.scoring.verification import min_dcf

_DESCRIPTION = """
The minimum of the detection cost (minDCF) over all thresholds, normalized by the cost of the better
of accepting and rejecting everything. Equal scores are one step, so the order of trials never
matters.
"""

_INPUTS = """
Args:
    predictions: scores, the higher, the more likely the same speaker.
    references: 1 for a target trial (same speaker), 0 for a non-target trial (different speakers).
    p_target: prior probability of a target trial, 0.01 by default; several for their mean.
    c_miss: cost of a miss, 1 by default.
    c_fa: cost of a false acceptance, 1 by default.

The last three may also be passed to `evaluate.load`, which makes them the defaults.

Returns:
    min_dcf: the cost, from 0 to 1.
    threshold: the lowest one that has it, infinite when it is best to accept nothing; a trial is
        accepted when its score is at least the threshold. A list for several p_target.

Raises:
    ValueError: lengths that differ, values that are not finite, labels that are not 0 or 1, only
        one of the two classes, or an invalid prior or cost.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("metrics/min_dcf")
    >>> metric.compute(predictions=[0.2, 0.7, 0.4, 0.9, 0.6], references=[0, 0, 0, 1, 1])
    {'min_dcf': 0.5, 'threshold': 0.9}
"""

_CITATION = """
@techreport{nist2016sre,
  title = {{NIST} 2016 Speaker Recognition Evaluation Plan},
  institution = {National Institute of Standards and Technology},
  year = {2016}
}
"""


class MinDCF(ArrayMetric):
    """minDCF of scores and labels, see ``inputs_description``."""

    OPTIONS = ("p_target", "c_miss", "c_fa")

    def __init__(self, **options: Any) -> None:
        # `evaluate.combine` passes its options to every metric, so costs are best given on loading.
        names = set(self.OPTIONS) & options.keys()
        self._costs = {name: options.pop(name) for name in names}
        super().__init__(**options)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=SCORES_AND_LABELS,
        )

    def _compute(self, predictions: Any, references: Any, **costs: Any) -> dict[str, Any]:
        cost, threshold = min_dcf(predictions, references, **{**self._costs, **costs})
        return {
            "min_dcf": cost,
            "threshold": list(threshold) if isinstance(threshold, tuple) else threshold,
        }
