"""Open-set speaker identification from embeddings, as a metric of ``evaluate``."""

from typing import Any

import datasets
import evaluate

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.evaluate_metric import ArrayMetric
from voxblink2_lib.scoring.open_set import open_set_identification

_DESCRIPTION = """
Open-set speaker identification (OSSI): each probe is of a speaker in the gallery, or of none. DIR
at FAR is the share of known probes that are identified correctly with a score above the threshold
at which the share FAR of unknown probes is accepted.
"""

_INPUTS = """
Args:
    predictions: embeddings of the probes, (probes, dimensions).
    references: their speakers, integers or strings; one that is not in gallery_labels is unknown.
    gallery: embeddings of the enrolled utterances, (utterances, dimensions).
    gallery_labels: their speakers.
    far: false acceptance rates, [0.1, 0.01, 0.001] by default.
    method: "exact" (default), or "voxblink2" for the published script's grid of thresholds.
    enrolment: "mean" (default), "normalized-mean" or "max".

Returns:
    dir@far=0.1, dir@far=0.01, dir@far=0.001: detection and identification rate at each FAR.
    auc: area under DIR over FAR.
    rank1: share of known probes whose nearest speaker is the right one.
    All from 0 to 1.

Raises:
    ValueError: dimensions or lengths that differ, values that are not finite, zero vectors, an
        empty gallery, no known or no unknown probe.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("metrics/ossi")
    >>> metric.compute(
    ...     predictions=[[2.0, 1.0], [1.0, 3.0], [-1.0, 1.0]],
    ...     references=["anna", "bert", "nobody"],
    ...     gallery=[[1.0, 0.0], [0.0, 1.0]],
    ...     gallery_labels=["anna", "bert"],
    ...     far=[0.1],
    ... )
    {'dir@far=0.1': 1.0, 'auc': 1.0, 'rank1': 1.0}
"""

_CITATION = """
@inproceedings{lin2024voxblink2,
  title = {{VoxBlink2}: A 100{K}+ Speaker Recognition Corpus and the Open-Set
           Speaker-Identification Benchmark},
  author = {Lin, Yuke and Cheng, Ming and Zhang, Fulin and Gao, Yingying and Zhang, Shilei and
            Li, Ming},
  booktitle = {Proc. Interspeech},
  year = {2024}
}
"""


class OSSI(ArrayMetric):
    """DIR at FAR of probes and a gallery, see ``inputs_description``."""

    OPTIONS = (
        *("gallery", "gallery_labels", "far", "method", "enrolment"),
        *("memory_bytes", "device", "progress"),
    )

    def _info(self) -> evaluate.MetricInfo:
        embedding = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            # Strings come first: evaluate uses the first that fits, and "12" would fit integers.
            features=[
                datasets.Features({"predictions": embedding, "references": datasets.Value(kind)})
                for kind in ("string", "int64")
            ],
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        gallery: Any = None,
        gallery_labels: Any = None,
        **options: Any,
    ) -> dict[str, float]:
        if gallery is None or gallery_labels is None:
            raise ScoringError("gallery and gallery_labels are missing; compute needs both.")
        result = open_set_identification(
            gallery, gallery_labels, predictions, references, **options
        )
        return result.as_dict()
