"""Costs of errors, and the operating points of named evaluations."""

from __future__ import annotations

from typing import NamedTuple


class Costs(NamedTuple):
    """What a miss and a false acceptance cost; only their ratio counts.

    Attributes:
        c_miss: of a miss.
        c_fa: of a false acceptance.
    """

    c_miss: float = 1.0
    c_fa: float = 1.0


EQUAL_COSTS = Costs()


class Evaluation(NamedTuple):
    """The operating points of an evaluation, whose primary cost is the mean over them.

    Attributes:
        p_target: priors of a target trial.
        costs: of both errors, at all of them.
        is_actual: whether the evaluation ranks by the actual cost; otherwise by the minimum.
        source: the document that defines it.
    """

    p_target: tuple[float, ...]
    costs: Costs
    is_actual: bool
    source: str


EVALUATIONS = {
    "vox": Evaluation(
        (0.01,),
        EQUAL_COSTS,
        is_actual=False,
        source="Nagrani et al., VoxCeleb, Interspeech 2017",
    ),
    "sre21": Evaluation(
        (0.01, 0.05),
        EQUAL_COSTS,
        is_actual=True,
        source="NIST 2021 Speaker Recognition Evaluation Plan, 2021",
    ),
    "voxsrc": Evaluation(
        (0.05,),
        EQUAL_COSTS,
        is_actual=False,
        source="VoxCeleb Speaker Recognition Challenge 2020, validation toolkit",
    ),
}
