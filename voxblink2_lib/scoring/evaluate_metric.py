"""Base of the ``evaluate`` metrics, which pass arrays straight to the computation."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import datasets
import evaluate

from voxblink2_lib.errors import ScoringError

# Labels are floats: with an integer type, evaluate would turn 0.5 into 0.
SCORES_AND_LABELS = datasets.Features(
    {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
)


class ArrayMetric(evaluate.Metric, ABC):  # type: ignore[misc]  # evaluate has no type hints
    """A metric whose ``compute`` takes arrays without converting them.

    ``evaluate`` converts every value to Arrow and back, one by one: a million scores take seconds.
    That is only needed where values are gathered: after ``add`` or ``add_batch``, and with several
    processes.

    Attributes:
        OPTIONS: names of the arguments of ``compute`` besides predictions and references.
    """

    OPTIONS: ClassVar[tuple[str, ...]]

    def __init__(self, **options: Any) -> None:
        # evaluate silently accepts any option; a misspelt one must not be ignored.
        known = inspect.signature(evaluate.Metric.__init__).parameters
        if unknown := sorted(options.keys() - known.keys()):
            raise ScoringError(f"{type(self).__name__} has no option {', '.join(unknown)}.")
        super().__init__(**options)

    # Abstract, or evaluate would use this class as the metric of a script that imports it.
    @abstractmethod
    def _info(self) -> evaluate.MetricInfo: ...

    def compute(
        self, *, predictions: Any = None, references: Any = None, **options: Any
    ) -> dict[str, Any] | None:
        """Compute the metric from the arguments, or from values that were added before.

        Returns:
            The results; ``None`` in a process other than the first.

        Raises:
            ScoringError: an argument that the metric does not have; or see ``inputs_description``.
        """
        if unknown := sorted(options.keys() - set(self.OPTIONS)):
            raise ScoringError(
                f"{type(self).__name__}.compute has no argument {', '.join(unknown)}; it has "
                f"{', '.join(('predictions', 'references', *self.OPTIONS))}. evaluate.combine "
                "passes options to each of its metrics: name those of one metric in its "
                'evaluate.load, such as evaluate.load("metrics/min_dcf", p_target=0.05).'
            )
        given = predictions is not None
        if given != (references is not None):
            raise ScoringError("predictions and references go together; one of them is missing.")
        results: dict[str, Any] | None
        if given and self.writer is None and self.num_process == 1:
            results = self._compute(predictions=predictions, references=references, **options)
        else:
            results = super().compute(predictions=predictions, references=references, **options)
        return results
