"""Equal error rate of verification scores, as a metric of ``evaluate``."""

from typing import Any

import evaluate

from voxblink2_lib.scoring.evaluate_metric import SCORES_AND_LABELS, ArrayMetric
from voxblink2_lib.scoring.verification import eer

_DESCRIPTION = """
The equal error rate (EER): the rate at which false negative and false positive rate are equal, with
straight lines between operating points. Equal scores are one step, so the order of trials never
matters.
"""

_INPUTS = """
Args:
    predictions: scores, the higher, the more likely the same speaker.
    references: 1 for a target trial (same speaker), 0 for a non-target trial (different speakers).
    method: "interpolated" (default), or "hull" for the convex hull of the ROC.

Returns:
    eer: the rate, from 0 to 1.
    threshold: its threshold; a trial is accepted when its score is at least the threshold.
        None with "hull", whose points belong to a random choice between two thresholds.

Raises:
    ValueError: lengths that differ, values that are not finite, labels that are not 0 or 1, or
        only one of the two classes.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("metrics/eer")
    >>> metric.compute(predictions=[0.2, 0.7, 0.4, 0.9, 0.8], references=[0, 0, 0, 1, 1])
    {'eer': 0.0, 'threshold': 0.8}
"""

_CITATION = """
@inproceedings{martin1997det,
  title = {The {DET} curve in assessment of detection task performance},
  author = {Martin, Alvin and Doddington, George and Kamm, Terri and Ordowski, Mark and
            Przybocki, Mark},
  booktitle = {Proc. Eurospeech},
  pages = {1895--1898},
  year = {1997}
}
"""


class EER(ArrayMetric):
    """EER of scores and labels, see ``inputs_description``."""

    OPTIONS = ("method",)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=SCORES_AND_LABELS,
        )

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return eer(predictions, references, **options)._asdict()
